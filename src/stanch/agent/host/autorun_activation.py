"""Reads what is started on demand, or by another manager: D-Bus, polkit, inetd, supervisors, networks, the kernel."""

import re
from collections.abc import Iterator

from stanch.agent.host.autorun_found import Item, of_file, of_line
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.autorun_unit_files import assignments
from stanch.agent.host.autorun_units import folders_once
from stanch.core.autoruns import Place

_SHARED = ("/etc", "/usr/local/share", "/usr/share")
BUS = tuple(f"{one}/dbus-1/{kind}" for one in _SHARED for kind in ("system-services", "services"))
BUS_OF_HOME = ".local/share/dbus-1/services"

FILES = (
    *((f"{one}/polkit-1/rules.d", ".rules", "polkit") for one in _SHARED),
    *(("/etc/xinetd.d", "", "xinetd"), ("/etc/logrotate.d", "", "logrotate")),
    *(("/etc/supervisor/conf.d", ".conf", "supervisor"), ("/etc/supervisord.d", ".ini", "supervisor")),
    *(("/etc/containers/systemd", "", "quadlet"), ("/usr/share/containers/systemd", "", "quadlet")),
    *(("/etc/kubernetes/manifests", "", "pod"), ("/etc/pacman.d/hooks", ".hook", "pacman")),
    *(("/etc/dnf/plugins/post-transaction-actions.d", ".action", "dnf"), ("/etc/dracut.conf.d", ".conf", "dracut")),
)
"""Folder, end of the names that count, and what reads them: each file as a whole."""

QUADLETS_OF_HOME = ".config/containers/systemd"

_IF_UP = re.compile(r"(?:pre-|post-)?(?:up|down)\s+(.+)")
_INETD = re.compile(r"(?:\S+\s+){5}(/\S.*)")
_SYSCTL = re.compile(r"-?kernel[./](?:core_pattern\s*=\s*\|\s*|(?:modprobe|hotplug|poweroff_cmd)\s*=\s*)(/\S.*)")
LINES = (
    ("/etc/inetd.conf", "", _INETD, "inetd"),
    ("/etc/network/interfaces", "/etc/network/interfaces.d", _IF_UP, "ifupdown"),
    ("/etc/sysctl.conf", "/etc/sysctl.d", _SYSCTL, "sysctl"),
    *(("", f"{above}/sysctl.d", _SYSCTL, "sysctl") for above in ("/run", "/usr/local/lib", "/usr/lib")),
)
"""File, folder, what of a line is started, and what reads it."""


def activated(tree: Tree) -> Iterator[Item]:
    """One kind after the other."""
    yield from _bus(tree)
    for folder, end, what in FILES:
        yield from _files(tree, folder, end, what, "root")
    for one in tree.homes():
        yield from _files(tree, f"{one.home}/{QUADLETS_OF_HOME}", "", "quadlet", one.name)
    for file, folder, pattern, what in LINES:
        for path in [*([file] if file else []), *(tree.paths(folder) if folder else [])]:
            yield from _lines(tree, path, pattern, what)


def _bus(tree: Tree) -> Iterator[Item]:
    """Services that the bus starts when somebody asks for their names."""
    folders = [(one, "root" if "/system-" in one else "") for one in folders_once(tree, BUS)]
    folders += [(f"{one.home}/{BUS_OF_HOME}", one.name) for one in tree.homes()]
    for folder, user in folders:
        for path in tree.paths(folder):
            if path.endswith(".service") and tree.is_file(path):
                said = {one.key: one.value for one in assignments(tree.text(path))}
                command, unit = said.get("Exec", ""), said.get("SystemdService", "")
                yield of_file(
                    Place.OTHER,
                    path,
                    name=f"dbus: {said.get('Name') or path.rpartition('/')[2]}"[:300],
                    command=command + (f"; starts {unit}" if unit else ""),
                    starts=command or "-",
                    user=said.get("User") or user,
                )


def _files(tree: Tree, folder: str, end: str, what: str, user: str) -> Iterator[Item]:
    for path in tree.paths(folder):
        if path.endswith(end) and tree.is_file(path):
            lines = [one.text.strip() for one in tree.lines(path) if not one.is_blank]
            name = f"{what}: {path.rpartition('/')[2]}"
            yield of_file(Place.OTHER, path, name=name, command="; ".join(lines)[:4000], starts="-", user=user)


def _lines(tree: Tree, path: str, pattern: re.Pattern[str], what: str) -> Iterator[Item]:
    for line in tree.lines(path) if tree.is_file(path) else ():
        found = None if line.is_blank else pattern.fullmatch(line.text.strip()[:4000])
        if found:
            name = f"{what}: {path.rpartition('/')[2]}"
            yield of_line(Place.OTHER, path, line, name=name, starts=found[1], user="root")
