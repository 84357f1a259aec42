"""Reads what starts with the kernel and its devices: rules of udev, modules, and the kernel's command line."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from stanch.agent.host.autorun_found import Item, of_line
from stanch.agent.host.autorun_tree import Line, Tree, joined_lines
from stanch.agent.host.autorun_units import folders_once
from stanch.core.autoruns import Place

UDEV = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)
UDEV_PROGRAMS = "/usr/lib/udev"
"""Where a program without a folder is looked for."""

LOADS = tuple(f"{above}/modules-load.d" for above in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"))
MODULES = ("/etc/modules", "/etc/initramfs-tools/modules")
PROBES = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")

RUNNING = "/proc/cmdline"
GRUB = ("/etc/default/grub",)
GRUB_FOLDER = "/etc/default/grub.d"
ENTRIES = ("/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries")
OTHER_LOADERS = (
    *("/etc/kernel/cmdline", "/boot/cmdline.txt", "/boot/firmware/cmdline.txt"),
    *("/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg"),
)

BOOT_FOLDERS = ("/boot/grub", "/boot/grub2", "/boot/efi/EFI")
"""grub.cfg stands in them, or one folder deeper."""

_STARTS = re.compile(
    r"""\b(RUN(?:\{program\})?\s{0,10}\+?:?=|PROGRAM\s{0,10}=?=|IMPORT\{program\}\s{0,10}=?=)\s{0,10}e?"([^"]{1,4000})"""
)
_BUILT_IN = re.compile(r"^\s*(kmod|uaccess|hwdb|net_id|path_id|usb_id|blkid|keyboard|btrfs)\b")
_PROBE = re.compile(r"\s*(install|remove)\s+(\S{1,200})\s+(.+)", re.DOTALL)
_ENTRY = re.compile(r"\s*(?:options|append|linux(?:efi|16)?\s+\S+)\s+(.+)", re.IGNORECASE | re.DOTALL)
_GRUB = re.compile(r"\s*(?:export\s+)?(GRUB_CMDLINE_\w{1,40})\+?=(.*)", re.DOTALL | re.ASCII)
_INIT = re.compile(r"(?:^|[\s\"'])(rdinit|init)=(/[^\s\"']{1,1000})")
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "busybox"})


@dataclass(frozen=True, slots=True)
class KernelReader:
    """udev, modules, the command line."""

    places: Collection[Place] = (Place.UDEV, Place.MODULES, Place.KERNEL)

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:
        """In this order."""
        if Place.UDEV in places:
            yield from _udev(tree)
        if Place.MODULES in places:
            yield from _modules(tree)
        if Place.KERNEL in places:
            yield from _kernel(tree)


def _effective(tree: Tree, folders: Collection[str], end: str) -> Iterator[tuple[str, bool]]:
    """Files of several folders, and of each name whether it is the first, which is the one that counts."""
    seen = set[str]()
    for folder in folders_once(tree, folders):
        for name in tree.names(folder):
            if name.endswith(end):
                yield f"{folder}/{name}", name not in seen
                seen.add(name)


# --- udev ------------------------------------------------------------------------------------------------------------


def udev_commands(text: str) -> list[str]:
    """The programs that a rule starts, with their arguments; what udev does itself is none."""
    return [found[2] for found in _STARTS.finditer(text[:65_536]) if not _BUILT_IN.match(found[2])]


def _udev(tree: Tree) -> Iterator[Item]:
    for path, counts in _effective(tree, UDEV, ".rules"):
        for line, text in joined_lines(tree.lines(path)):
            commands = udev_commands(text)
            if not commands:
                continue
            word = commands[0].split()[0] if commands[0].split() else ""
            own = f"{UDEV_PROGRAMS}/{word}"
            yield of_line(
                Place.UDEV,
                path,
                line,
                name=f"{path.rpartition('/')[2]}: {word.rpartition('/')[2]}",
                command=" ".join(text.split()),
                program=own if "/" not in word and word and tree.is_file(own) else "",
                starts=commands[0],
                user="root",
                enabled=counts,
            )


# --- modules ---------------------------------------------------------------------------------------------------------


def _modules(tree: Tree) -> Iterator[Item]:
    loads = [(path, True) for path in MODULES if tree.status(path)]
    seen_links = {path for path, _counts in _effective(tree, LOADS, ".conf") if _leads_to_modules(tree, path)}
    loads += [one for one in _effective(tree, LOADS, ".conf") if one[0] not in seen_links]
    for path, counts in loads:
        for line in tree.lines(path):
            if not line.is_blank and not line.text.lstrip().startswith(";"):
                name = line.text.split()[0]
                yield of_line(Place.MODULES, path, line, name=name, starts="-", user="root", enabled=counts)
    for path, counts in _effective(tree, PROBES, ".conf"):
        for line, text in joined_lines(tree.lines(path)):
            found = _PROBE.fullmatch(text)
            if found and not found[3].strip().startswith(
                ("/bin/true", "/bin/false", "/usr/bin/true", "/usr/bin/false")
            ):
                yield of_line(
                    Place.MODULES,
                    path,
                    line,
                    name=f"{found[1]} {found[2]}",
                    command=" ".join(text.split()),
                    starts=found[3],
                    user="root",
                    enabled=counts,
                )


def _leads_to_modules(tree: Tree, path: str) -> bool:
    """Debian has a link to /etc/modules in modules-load.d: it is told once."""
    return (tree.target(path) or "").endswith("/modules")


# --- the kernel's command line ---------------------------------------------------------------------------------------


def init_of(text: str) -> str:
    """The program that is the first process, if a command line says so; the last one that is named counts."""
    found = _INIT.findall(text)
    return found[-1][1] if found else ""


def _kernel(tree: Tree) -> Iterator[Item]:
    for path in (RUNNING, *OTHER_LOADERS[:3]):
        for line in tree.lines(path) if tree.status(path) else ():
            if line.text.strip():
                yield _command_line(
                    path, line, line.text, name="running" if path == RUNNING else path.rpartition("/")[2]
                )
    for path in (*GRUB, *tree.paths(GRUB_FOLDER)):
        for line in tree.lines(path) if tree.status(path) else ():
            found = None if line.is_blank else _GRUB.fullmatch(line.text)
            if found and found[2].strip().strip("\"'").strip():
                yield _command_line(path, line, found[2].strip(), name=found[1])
    entries = [path for folder in folders_once(tree, ENTRIES) for path in tree.paths(folder) if path.endswith(".conf")]
    for path in [*entries, *OTHER_LOADERS[3:], *_grub_files(tree)]:
        for line in tree.lines(path) if tree.status(path) else ():
            found = None if line.is_blank else _ENTRY.fullmatch(line.text)
            if found:
                yield _command_line(path, line, found[1].strip(), name=path.rpartition("/")[2])


def _grub_files(tree: Tree) -> Iterator[str]:
    """What GRUB reads at boot, which need not be what its settings would make."""
    for folder in BOOT_FOLDERS:
        above = [folder, *tree.paths(folder)] if folder.endswith("EFI") else [folder]
        yield from (f"{one}/grub.cfg" for one in above if tree.is_file(f"{one}/grub.cfg"))


def _command_line(path: str, line: Line, command: str, *, name: str) -> Item:
    init = init_of(command)
    shell = init.rpartition("/")[2] in _SHELLS
    notes = (f"the first process is {init[:300]}{', a shell' if shell else ''}",) if init else ()
    return of_line(
        Place.KERNEL, path, line, name=name, command=command, program=init, starts="-", user="root", notes=notes
    )
