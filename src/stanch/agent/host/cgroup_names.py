r"""Reads the names of control groups: the unit, the container and the pod of a process. No input or output.

A path of control groups is read from its root, and **the outermost container wins**: that is the one which the
endpoint's own runtime (or systemd) made and knows. What a container, or a service with a tree of its own, makes below
its group bears any name that it likes, so nothing below the first match is believed. For the same reason a unit is
looked for only below slices and below the managers of users, as systemd itself lays out its tree; and what lies in the
slice of a user is marked with that user's number, who may have made it up.

    /system.slice/ssh.service                                   unit ssh.service
    /system.slice/docker-<id>.scope                             container <id> of docker
    /kubepods.slice/.../cri-containerd-<id>.scope               container <id> of containerd, with its pod
    /machine.slice/systemd-nspawn@web.service/payload/...       container web of nspawn
    /docker/<id>/docker/<other>                                 container <id>: <other> is known only inside of it

The processes that watch over a container (conmon, the supervisor of nspawn, the monitor of lxc) are not in it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

MAX_TEXT = 65_536
"""Bytes of /proc/PID/cgroup that are read; a line for each of a dozen hierarchies, each a path of the kernel."""

MAX_NAME = 200
"""Characters of a name that are kept."""

MAX_USER = 2**32 - 1
"""Of the kernel."""

V2 = ""
"""How the hierarchy of version 2 is called in /proc/PID/cgroup."""

SYSTEMD = "name=systemd"
FREEZER = "freezer"

_MAX_LINES = 64
_MAX_PARTS = 64
"""Of a path: deeper ones are not looked into."""

_ORDER = (V2, SYSTEMD, FREEZER, "memory", "pids", "devices")
"""Hierarchies in which a container is looked for first."""

_ID = r"(?P<id>[0-9a-f]{64})"
_OF_PREFIX = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
}
_PREFIX = f"(?P<prefix>{'|'.join(_OF_PREFIX)})"
_PREFIXED = re.compile(rf"{_PREFIX}-{_ID}(?:\.scope)?")
_COLONS = re.compile(rf"(?P<slice>[^:]*):{_PREFIX}:{_ID}")
_BARE = re.compile(_ID)
_OF_FOLDER = {"docker": "docker", "actions_job": "docker", "moby": "docker", "k8s.io": "containerd"}
_OF_FOLDER |= {"default": "containerd", "libpod_parent": "podman"}
_WATCHES = re.compile(r"(?:(?:libpod|crio)-conmon-.*|lxc\.monitor(?:\..*)?)")
_LXC = re.compile(r"lxc\.payload\.(?P<name>.+)")
_NSPAWN = re.compile(r"systemd-nspawn@(?P<name>.+)\.service|machine-(?P<machine>.+)\.scope")
_LIBVIRT = re.compile(r"(?P<kind>qemu|lxc)-\d+-(?P<name>.+)")
_KUBERNETES = re.compile(r"kubepods[^/]*-pod(?P<uid>[0-9a-zA-Z_-]{1,200})\.slice")
_KUBERNETES_PLAIN = re.compile(r"pod(?P<uid>[0-9a-zA-Z_-]{1,200})")
_PODMAN_POD = re.compile(r"(?:[a-z]+-)?libpod_pod_(?P<id>[0-9a-f]{12,64})(?:\.slice)?")
_USER = re.compile(r"user@([0-9]{1,10})\.service|user-([0-9]{1,10})\.slice")
_MANAGER = re.compile(r"user@[0-9]{1,10}\.service")
_UNIT = re.compile(r".+\.(?:service|scope|socket|mount|swap)")
_ESCAPED = re.compile(r"(?:\\x[0-9a-f]{2})+")
_UNKNOWN = re.compile(r"[^0-9A-Za-z_.:-]")
_DELETED = b" (deleted)"


@dataclass(frozen=True, slots=True)
class GroupNames:
    """What the control groups of a process say about it; everything is empty where they say nothing."""

    unit: str = ""
    r"""The unit of systemd, as `systemctl` takes it (a `\x2d` in it stays)."""

    user: int | None = None
    """The user in whose slice it is, whose word the names below that slice are; None for the system's own."""

    container: str = ""
    """The runtime's id, or the name where the runtime has no other id (lxc, nspawn)."""

    runtime: str = ""
    """docker, podman, containerd, cri-o, lxc, nspawn, or unknown; empty without a container."""

    pod: str = ""
    """The pod of the container: the uid of Kubernetes, or the id of podman."""

    group: bytes = b""
    """The container's own group: a path below the root of the hierarchy, without `/` in front."""

    hierarchy: str = V2
    """Where that group is: V2, or the name of a hierarchy of version 1."""


NOTHING = GroupNames()


def names_of(text: bytes) -> GroupNames:
    """What /proc/PID/cgroup says; whatever the bytes are, nothing is raised."""
    groups = groups_of(text)
    ordered = [one for one in _ORDER if one in groups] + [one for one in groups if one not in _ORDER]
    units = (_unit(_split(groups.get(one, b""))) for one in (V2, SYSTEMD))
    unit, user = next((found for found in units if found[0]), ("", None))
    for hierarchy in ordered:
        found = container_of(groups[hierarchy])
        if found.container:
            return replace(found, unit=unit or found.unit, hierarchy=hierarchy)
    return GroupNames(unit=unit, user=user) if unit else NOTHING


def groups_of(text: bytes) -> dict[str, bytes]:
    """Hierarchy to path, without `/` in front: V2, each controller of version 1, and `name=NAME`."""
    found: dict[str, bytes] = {}
    for line in text[:MAX_TEXT].split(b"\n")[:_MAX_LINES]:
        number, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if number.isdigit() and colon and path.startswith(b"/"):
            plain = path.removesuffix(_DELETED).strip(b"/")
            for one in controllers.decode("utf-8", "backslashreplace").split(","):
                found.setdefault(one[:MAX_NAME], plain)
    return found


def container_of(path: bytes) -> GroupNames:
    """What a path of one hierarchy says."""
    parts = _split(path)
    unit, _ = _unit(parts)
    for depth, part in enumerate(parts):
        if _WATCHES.fullmatch(part):
            break
        above = parts[:depth]
        runtime, name = _container(part, above)
        length = depth + 1
        if runtime == "nspawn" and parts[length : length + 1] == ["supervisor"]:
            break
        if runtime == "nspawn" and parts[length : length + 1] == ["payload"]:
            length += 1
        if runtime:
            group = b"/".join(path.strip(b"/").split(b"/")[:length])
            pod = _pod(parts[: depth + 1])
            return GroupNames(unit, _user(above), _as_id(name), runtime, pod[:MAX_NAME], group)
    return GroupNames(unit=unit, user=_user(parts))


def _split(path: bytes) -> list[str]:
    """The parts of a path as text, the outermost first; none of a path that leads out of what we see."""
    parts = path.strip(b"/").split(b"/", _MAX_PARTS)[:_MAX_PARTS]
    return [] if b".." in parts else [one.decode("utf-8", "backslashreplace") for one in parts]


def _unit(parts: Sequence[str]) -> tuple[str, int | None]:
    """The innermost unit that systemd, or the manager of a user, made; and in whose slice that is."""
    unit = ""
    for depth, part in enumerate(parts):
        if part.endswith(".slice"):
            continue
        name = _without_underscore(part)
        unit = name[:MAX_NAME] if _UNIT.fullmatch(name) else unit
        if not _MANAGER.fullmatch(part) or any(_MANAGER.fullmatch(one) for one in parts[:depth]):
            break
    return unit, _user(parts) if unit else None


def _user(parts: Sequence[str]) -> int | None:
    found = (int(one[1] or one[2]) for one in map(_USER.fullmatch, parts) if one)
    return next((user for user in found if user <= MAX_USER), None)


def _container(part: str, above: Sequence[str]) -> tuple[str, str]:
    """The runtime and the id or name of the container that this group is; two empty texts if it is none."""
    found = _PREFIXED.fullmatch(part) or _COLONS.fullmatch(part)
    if found:
        return _OF_PREFIX[found["prefix"]], found["id"]
    if _BARE.fullmatch(part):
        return _runtime_of_bare(above), part
    lxc = _LXC.fullmatch(part)
    if lxc or (part and above and above[-1] in {"lxc", "lxc.payload"}):
        return "lxc", lxc["name"] if lxc else part
    nspawn = _NSPAWN.fullmatch(part)
    return _machine(unescaped(nspawn["name"] or nspawn["machine"])) if nspawn else ("", "")


def _runtime_of_bare(above: Sequence[str]) -> str:
    if any(one.startswith("kubepods") for one in above):
        return "containerd"
    return _OF_FOLDER.get(above[-1], "unknown") if above else "unknown"


def _machine(name: str) -> tuple[str, str]:
    """Of what is registered with systemd-machined: virtual machines are no containers."""
    libvirt = _LIBVIRT.fullmatch(name)
    if libvirt is None:
        return "nspawn", name
    return ("lxc", libvirt["name"]) if libvirt["kind"] == "lxc" else ("", "")


def _pod(parts: Sequence[str]) -> str:
    """The pod among the groups down to the container, the innermost one."""
    return next(_pods(parts), "")


def _pods(parts: Sequence[str]) -> Iterator[str]:
    in_kubernetes = any(one.startswith("kubepods") for one in parts)
    for part in reversed(parts):
        colons = _COLONS.fullmatch(part)
        systemd = _KUBERNETES.fullmatch(colons["slice"] if colons else part)
        plain = _KUBERNETES_PLAIN.fullmatch(part) if in_kubernetes else None
        podman = _PODMAN_POD.fullmatch(part)
        if systemd:
            yield systemd["uid"].replace("_", "-")  # a `-` in the name of a slice would be another slice
        elif plain:
            yield plain["uid"]
        elif podman:
            yield podman["id"]


def unescaped(name: str) -> str:
    r"""A name as it was before systemd wrote it into a unit's: `my\x2dweb` is `my-web`."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode("utf-8", "replace"), name)


def _without_underscore(part: str) -> str:
    """The name of the unit: a `_` stands before one that the kernel could take for a file of its own."""
    return part[1:] if part.startswith(("__", "_.", "_cgroup.", "_tasks", "_notify_on_release")) else part


def _as_id(name: str) -> str:
    """The name with only such characters as ids have; the group says which one it is."""
    return _UNKNOWN.sub("_", name[:MAX_NAME])
