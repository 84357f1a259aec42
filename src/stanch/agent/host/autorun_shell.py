"""Reads what starts with a login: the start-up files of shells, and the autostart of desktops."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stanch.agent.host.autorun_found import Item, of_file, suspicions
from stanch.agent.host.autorun_libraries import is_preload
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.autorun_unit_files import assignments
from stanch.core.autoruns import Place

FILES = (
    *("/etc/profile", "/etc/bash.bashrc", "/etc/bashrc", "/etc/bash.bash_logout", "/etc/bash_logout", "/etc/ksh.kshrc"),
    *("/etc/zshenv", "/etc/zprofile", "/etc/zshrc", "/etc/zlogin", "/etc/zlogout", "/etc/csh.cshrc", "/etc/csh.login"),
    *(
        "/etc/csh.logout",
        "/etc/tcsh.conf",
        "/etc/fish/config.fish",
        "/etc/mkshrc",
        "/etc/inputrc",
        "/etc/profile.local",
    ),
    *("/etc/bash.bashrc.local", "/etc/X11/Xsession", "/etc/X11/xinit/xinitrc"),
)
FOLDERS = (
    *(
        "/etc/profile.d",
        "/etc/bash.bashrc.d",
        "/etc/bashrc.d",
        "/etc/zsh",
        "/etc/fish/conf.d",
        "/usr/share/fish/vendor_conf.d",
    ),
    *("/etc/X11/Xsession.d", "/etc/X11/xinit/xinitrc.d", "/etc/bash_completion.d"),
)
OF_HOME = (
    *(".profile", ".bash_profile", ".bash_login", ".bashrc", ".bash_logout", ".bash_aliases", ".zshrc", ".zprofile"),
    *(".zlogin", ".zlogout", ".zshenv", ".cshrc", ".tcshrc", ".login", ".logout", ".kshrc", ".mkshrc", ".xinitrc"),
    *(".xprofile", ".xsession", ".xsessionrc", ".config/fish/config.fish"),
)
FOLDERS_OF_HOME = (".config/fish/conf.d", ".bashrc.d", ".profile.d")

AUTOSTART = ("/etc/xdg/autostart", "/usr/share/gnome/autostart", "/usr/share/autostart")
AUTOSTART_OF_HOME = (".config/autostart", ".config/autostart-scripts", ".config/plasma-workspace/env")

_TEXTS = 4000
_DESKTOP = "[Desktop Entry]"


@dataclass(frozen=True, slots=True)
class ShellReader:
    """Shells and desktops."""

    places: Collection[Place] = (Place.SHELL, Place.DESKTOP)

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:
        """The system's first, then each home's."""
        if Place.SHELL in places:
            yield from _shells(tree)
        if Place.DESKTOP in places:
            yield from _desktops(tree)


# --- shells ----------------------------------------------------------------------------------------------------------


def _shells(tree: Tree) -> Iterator[Item]:
    system = [*FILES, *(path for folder in FOLDERS for path in tree.paths(folder))]
    for path in system:
        yield from _shell_file(tree, path, "")
    for one in tree.homes():
        own = [f"{one.home}/{name}" for name in OF_HOME]
        own += [path for folder in FOLDERS_OF_HOME for path in tree.paths(f"{one.home}/{folder}")]
        for path in own:
            yield from _shell_file(tree, path, one.name)


def _shell_file(tree: Tree, path: str, user: str) -> Iterator[Item]:
    """A file, with its first lines that are no comment: whole programs of a shell cannot be told apart."""
    if tree.status(path) is None:
        return
    if not tree.is_file(path):
        tree.read(path)  # tells why not, unless it is /dev/null
        return
    lines = [one.text.strip() for one in tree.lines(path) if not one.is_blank]
    yield of_file(
        Place.SHELL,
        path,
        command="; ".join(lines)[:_TEXTS],
        starts="-",
        user=user,
        notes=tuple(suspicious_lines(lines)),
    )


def suspicious_lines(lines: Sequence[str]) -> Iterator[str]:
    """What deserves a look, wherever it stands in the file: each kind of it once."""
    found = dict[str, None]()
    for line in lines:
        found |= dict.fromkeys(suspicions(line))
        if is_preload(line):
            found["it preloads a library, or says where libraries are"] = None
    yield from found


# --- desktops --------------------------------------------------------------------------------------------------------


def _desktops(tree: Tree) -> Iterator[Item]:
    folders = [(folder, "") for folder in AUTOSTART]
    folders += [(f"{one.home}/{folder}", one.name) for one in tree.homes() for folder in AUTOSTART_OF_HOME]
    for folder, user in folders:
        for path in tree.paths(folder):
            if path.endswith(".desktop"):
                entry = desktop_entry(tree.text(path))
                yield _entry(path, entry, user)
            elif tree.is_file(path) and not folder.endswith("/autostart"):
                yield of_file(Place.DESKTOP, path, command=path, program=path, user=user)


def desktop_entry(text: str) -> Mapping[str, str]:
    """The settings of a desktop entry; of a key that is said twice the first."""
    found: dict[str, str] = {}
    for one in assignments(text):
        if f"[{one.section}]" == _DESKTOP:
            found.setdefault(one.key, one.value)
    return found


def _entry(path: str, entry: Mapping[str, str], user: str) -> Item:
    off = entry.get("Hidden", "").lower() == "true" or entry.get("X-GNOME-Autostart-enabled", "").lower() == "false"
    notes = [f"{key}={entry[key]}" for key in ("OnlyShowIn", "NotShowIn", "TryExec") if entry.get(key)]
    command = entry.get("Exec", "")
    name = f"{entry.get('Name', '')[:200]} ({path.rpartition('/')[2]})".strip()
    return of_file(
        Place.DESKTOP,
        path,
        name=name,
        command=command,
        starts=command or "-",
        user=user,
        enabled=bool(command) and not off,
        notes=tuple(notes),
    )
