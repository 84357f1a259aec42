"""Reads what other programs start on some occasion: MOTD, networks, package managers, Python, binary formats."""

import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from stanch.agent.host.autorun_activation import activated
from stanch.agent.host.autorun_found import Item, of_file, of_line
from stanch.agent.host.autorun_libraries import of_loader
from stanch.agent.host.autorun_tree import Tree, joined_lines
from stanch.agent.host.autorun_units import folders_once
from stanch.core.autoruns import Place

PROGRAM_FOLDERS = (
    *("/etc/update-motd.d", "/etc/network/if-up.d", "/etc/network/if-pre-up.d", "/etc/network/if-down.d"),
    *("/etc/network/if-post-down.d", "/etc/NetworkManager/dispatcher.d", "/etc/NetworkManager/dispatcher.d/pre-up.d"),
    *("/etc/NetworkManager/dispatcher.d/pre-down.d", "/etc/NetworkManager/dispatcher.d/no-wait.d"),
    *("/usr/lib/NetworkManager/dispatcher.d", "/etc/dhcp/dhclient-enter-hooks.d", "/etc/dhcp/dhclient-exit-hooks.d"),
    *(
        "/etc/networkd-dispatcher/routable.d",
        "/etc/networkd-dispatcher/configured.d",
        "/etc/networkd-dispatcher/degraded.d",
    ),
    *("/etc/networkd-dispatcher/off.d", "/etc/networkd-dispatcher/dormant.d", "/etc/networkd-dispatcher/no-carrier.d"),
    *(
        "/etc/ppp/ip-up.d",
        "/etc/ppp/ip-down.d",
        "/etc/acpi",
        "/etc/acpi/events",
        "/etc/pm/sleep.d",
        "/usr/lib/pm-utils/sleep.d",
    ),
    *("/etc/kernel/postinst.d", "/etc/kernel/prerm.d", "/etc/kernel/postrm.d", "/etc/kernel/install.d"),
    *(
        "/etc/initramfs-tools/hooks",
        "/etc/initramfs-tools/scripts/init-top",
        "/etc/initramfs-tools/scripts/init-bottom",
    ),
    *("/var/lib/cloud/scripts/per-boot", "/var/lib/cloud/scripts/per-instance", "/var/lib/cloud/scripts/per-once"),
    *("/usr/lib/networkd-dispatcher/routable.d", "/usr/lib/zypp/plugins/commit", "/usr/share/git-core/templates/hooks"),
    *("/etc/grub.d", "/etc/dkms/framework.conf.d", "/usr/share/initramfs-tools/hooks", "/etc/resolvconf/update.d"),
)
PROGRAM_FILES = (
    "/etc/dhclient-enter-hooks",
    "/etc/dhclient-exit-hooks",
    "/etc/dhcpcd.enter-hook",
    "/etc/dhcpcd.exit-hook",
)
_ANY_MODE = frozenset({"/etc/dhcp/dhclient-enter-hooks.d", "/etc/dhcp/dhclient-exit-hooks.d"})
"""Sourced by a shell: they need not be executable."""

APT = ("/etc/apt/apt.conf", "/etc/apt/apt.conf.d", "/etc/dpkg/dpkg.cfg", "/etc/dpkg/dpkg.cfg.d")
BINARY_FORMATS = ("/etc/binfmt.d", "/run/binfmt.d", "/usr/local/lib/binfmt.d", "/usr/lib/binfmt.d")
PYTHONS = ("/usr/lib", "/usr/local/lib", "/usr/lib64", "/usr/local/lib64")
MAX_PTH = 5000

_APT_HOOK = re.compile(
    r"(Pre-Invoke|Post-Invoke|Pre-Install-Pkgs|Post-Invoke-Success|^\s*(?:pre|post)-invoke)", re.IGNORECASE
)
_QUOTED = re.compile(r'"([^"]{2,4000})"')
_PYTHON = re.compile(r"python\d?(?:\.\d{1,3})?")
_SITES = ("site-packages", "dist-packages")
_BINARY_FORMAT_FIELDS = 7


@dataclass(frozen=True, slots=True)
class HookReader:
    """Everything that is of no larger family."""

    places: Collection[Place] = (Place.OTHER,)

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:  # noqa: ARG002 - as Reader has it
        """One kind after the other."""
        yield from _programs(tree)
        yield from _apt(tree)
        yield from _pth(tree)
        yield from _binary_formats(tree)
        yield from of_loader(tree)
        yield from activated(tree)


def _programs(tree: Tree) -> Iterator[Item]:
    for folder in folders_once(tree, PROGRAM_FOLDERS):
        for path in tree.paths(folder):
            yield from _program(tree, path, f"{folder.rpartition('/')[2]}: ", any_mode=folder in _ANY_MODE)
    for path in PROGRAM_FILES:
        yield from _program(tree, path, "", any_mode=True)


def _program(tree: Tree, path: str, before: str, *, any_mode: bool) -> Iterator[Item]:
    status = tree.status(path)
    if status is None or stat.S_ISDIR(status.st_mode) or path.endswith("/README"):
        return
    if not stat.S_ISREG(status.st_mode):
        tree.read(path)  # tells why not
        return
    runs = any_mode or bool(status.st_mode & 0o111)
    name = before + path.rpartition("/")[2]
    yield of_file(Place.OTHER, path, name=name, command=path, program=path, user="root", enabled=runs)


def _apt(tree: Tree) -> Iterator[Item]:
    """A hook may go on over lines: the line that names it, or that has its command, is told."""
    for path in [one for base in APT for one in (base, *tree.paths(base)) if tree.is_file(one)]:
        inside = ""
        for line in tree.lines(path):
            text = line.text.strip()
            if text.startswith(("//", "#")) or not text:
                continue
            found = _APT_HOOK.search(text)
            inside = found[1] if found else inside
            command = _QUOTED.search(text) if inside else None
            if command or (found and "=" in text):
                starts = command[1] if command else text.partition("=")[2]
                yield of_line(
                    Place.OTHER, path, line, name=f"{path.rpartition('/')[2]}: {inside}", starts=starts, user="root"
                )
            if "}" in text or (found and ";" in text and "{" not in text):
                inside = ""


def _pth(tree: Tree) -> Iterator[Item]:
    """Lines of .pth files that Python runs at each start; sitecustomize and usercustomize."""
    bases = [f"{base}/{name}" for base in PYTHONS for name in tree.names(base) if _PYTHON.fullmatch(name)]
    homes = [(f"{one.home}/.local/lib", one.name) for one in tree.homes()]
    folders = [(folder, "") for base in bases for folder in (base, *(f"{base}/{site}" for site in _SITES))]
    folders += [(f"{lib}/{name}/site-packages", user) for lib, user in homes for name in tree.names(lib)]
    for folder, user in folders:
        names = [one for one in tree.names(folder) if one.endswith(".pth") or one in _CUSTOM]
        for name in names[:MAX_PTH]:
            yield from _python_file(tree, f"{folder}/{name}", name, user)


_CUSTOM = frozenset({"sitecustomize.py", "usercustomize.py"})


def _python_file(tree: Tree, path: str, name: str, user: str) -> Iterator[Item]:
    if name in _CUSTOM:
        if tree.is_file(path):
            yield of_file(Place.OTHER, path, name=f"python: {name}", command=path, starts="-", user=user)
        return
    for line in tree.lines(path):
        if line.text.startswith(("import ", "import\t")):
            yield of_line(Place.OTHER, path, line, name=f"python: {name}", starts="-", user=user)


def _binary_formats(tree: Tree) -> Iterator[Item]:
    for folder in folders_once(tree, BINARY_FORMATS):
        for path in tree.paths(folder):
            if path.endswith(".conf"):
                for line, text in joined_lines(tree.lines(path)):
                    parts = text.strip()[1:].split(text.strip()[0]) if len(text.strip()) > 1 else []
                    if len(parts) >= _BINARY_FORMAT_FIELDS - 1 and not text.lstrip().startswith(";"):
                        yield of_line(
                            Place.OTHER,
                            path,
                            line,
                            name=f"binfmt: {parts[0]}",
                            program=parts[5],
                            starts="-",
                            user="root",
                        )
