"""ModuleItem, DiskItem and VolumeItem: modules of the kernel, disks and what is mounted, by /proc, /sys and udev."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Final

from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_below import Hashes, Known, collector, item, some
from stanch.agent.host.module_info import MAX_MODULE, Fields, fields, unpacked
from stanch.agent.host.module_signature import signature_of
from stanch.agent.host.patience import Patience
from stanch.core.filesystems import MADE_UP, NETWORK
from stanch.core.ioc.items import Item

MAX_MODULES: Final = 5000
MAX_DISKS: Final = 5000
MAX_PARTITIONS: Final = 1000
MAX_MOUNTS: Final = 20_000
MAX_SIZES: Final = 500
"""Mounts that are asked for their size."""
MAX_TEXT: Final = 16 * 2**20
"""Bytes of a table of the kernel."""
PATIENCE: Final = 3.0
"""Seconds that a file system may take to tell its size."""

_SECTOR: Final = 512
"""Bytes of a sector in /sys, whatever the disk has."""
_MAX_ATTRIBUTE: Final = 65_536
_MAX_UDEV: Final = 1_048_576


def module_items(parts: Parts) -> Collector:
    """Every module that is loaded, by /proc/modules and by /sys/module: what only the latter has hides itself."""
    return collector(parts, partial(_modules, parts.proc, parts.sys))


def disk_items(parts: Parts) -> Collector:
    """Every block device that is a whole, and has a size."""
    return collector(parts, partial(_disks, parts.sys))


def volume_items(parts: Parts) -> Collector:
    """Everything that is mounted, as the agent sees it."""
    return collector(parts, partial(_volumes, parts.proc, parts.sys))


def _text(path: Path, most: int = _MAX_ATTRIBUTE) -> str | None:
    """A text that the kernel makes; None if there is none."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(most).decode("utf-8", "surrogateescape").strip("\n")
    return None


def _names(folder: Path) -> list[str]:
    with suppress(OSError):
        return sorted(one.name for one in folder.iterdir())
    return []


# --- modules ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module that is loaded."""

    name: str
    size: int | None = None
    used_by: Sequence[str] | None = None
    status: Sequence[str] = ()
    address: str = ""


_STATES: Final[Mapping[str, str]] = {"live": "Live", "coming": "Loading", "going": "Unloading"}
_MODULE: Final = re.compile(r"(\S{1,100}) (\d{1,15}) (?:\d{1,10}|-) (\S+) (\S{1,20}) (0x[0-9a-f]{1,16})(?: .*)?")
_FILE: Final = re.compile(r"(.+?)\.ko(?:\.(?:gz|xz|zst))?")
_OF_FILE: Final = frozenset(
    {
        *("License", "AliasList/Alias/Name", "DependsList/Depends/Module", "Vermagic", "Intree", "Retpoline"),
        *("Signat", "Signer", "SigKey", "SigHashAlgorithm"),
    }
)
_HASHES: Final = {"Md5sum": "md5", "Sha1sum": "sha1", "Sha256sum": "sha256"}


def parse_modules(text: str) -> Iterator[Module]:
    """The lines of /proc/modules."""
    for line in text.split("\n"):
        found = _MODULE.fullmatch(line)
        if found:
            users = [one for one in found[3].split(",") if one not in {"", "-", "[permanent]"}]
            address = found[5] if found[5].strip("0x") else ""
            yield Module(name=found[1], size=int(found[2]), used_by=users, status=(found[4],), address=address)


def loaded_modules(proc: Path, sys: Path) -> Sequence[Module]:
    """Those of /proc/modules, and those that only /sys/module tells of."""
    found = {one.name: one for one in parse_modules(_text(proc / "modules", MAX_TEXT) or "")}
    for name in _names(sys / "module"):
        state = _text(sys / "module" / name / "initstate") if name not in found else None
        if state is not None:  # what is built into the kernel has none
            size = _text(sys / "module" / name / "coresize") or ""
            found[name] = Module(
                name=name,
                size=int(size) if size.isascii() and size.isdigit() else None,
                used_by=_names(sys / "module" / name / "holders"),
                status=(_STATES.get(state, state), "hidden"),
            )
    return list(found.values())[:MAX_MODULES]


@dataclass
class _ModuleLook:
    """One walk over all modules."""

    tree: Tree
    proc: Path
    sys: Path
    wanted: frozenset[str]

    def __post_init__(self) -> None:
        self.hashes = Hashes(self.tree, _HASHES, self.wanted)

    @cached_property
    def files(self) -> Mapping[str, str] | None:
        """Module to its file, by what the kernel's own loader goes by; None if that is not there."""
        release = _text(self.proc / "sys/kernel/osrelease") or ""
        folder = f"/lib/modules/{release}"
        listed = self.tree.read(f"{folder}/modules.dep", most=MAX_TEXT) if release and "/" not in release else None
        if listed is None:
            return None
        found: dict[str, str] = {}
        for line in listed.decode("utf-8", "surrogateescape").split("\n"):
            path = line.partition(":")[0]
            name = _FILE.fullmatch(path.rpartition("/")[2])
            if name:
                found.setdefault(name[1].replace("-", "_"), path if path.startswith("/") else f"{folder}/{path}")
        return found

    def item(self, module: Module) -> Item:
        """All of one."""
        path = None if self.files is None else self.files.get(module.name, "")
        attributes = self.sys / "module" / module.name
        source = _text(attributes / "srcversion")
        values: Known = {
            **dict.fromkeys(("Module", "ModuleName"), (module.name,)),
            **dict.fromkeys(("Size", "ModuleSize"), None if module.size is None else (module.size,)),
            "Status": module.status or None,
            "Address": (module.address,) if module.address else None,
            "UsedByList/Module": module.used_by,
            **dict.fromkeys(("Filename", "ModulePath"), None if path is None else some(path)),
            "SrcVersion": some(source or "") if attributes.is_dir() else None,
            "ParmList/Parm/Name": _names(attributes / "parameters") if attributes.is_dir() else None,
            **(self._of_file(path) if path and self.wanted & _OF_FILE else {}),
            **({} if path is None else self.hashes.of(path)),
        }
        return item("ModuleItem", module.name, values, self.wanted, about={"path": path or ""})

    def _of_file(self, path: str) -> Known:
        raw = self.tree.read(path, most=MAX_MODULE)
        module = None if raw is None else unpacked(raw)
        said = None if module is None else fields(module)
        if module is None or said is None:
            return {}
        return {**_said(said), **_signed(module)}


def _said(said: Fields) -> Known:
    return {
        "License": said.get("license", ()),
        "AliasList/Alias/Name": said.get("alias", ()),
        "DependsList/Depends/Module": [one for line in said.get("depends", ()) for one in line.split(",") if one],
        "Vermagic": [one.strip() for one in said.get("vermagic", ())],
        "Intree": ("Y" in said.get("intree", ()),),
        "Retpoline": ("Y" in said.get("retpoline", ()),),
    }


def _signed(module: bytes) -> Known:
    """What cannot be read of a signature is not known; without one there is nothing."""
    found = signature_of(module)
    if found is None:
        return dict.fromkeys(("Signat", "Signer", "SigKey", "SigHashAlgorithm"), ())
    colons = ":".join(found.key[n : n + 2] for n in range(0, len(found.key), 2))
    return {
        "Signat": some(found.kind),
        "Signer": some(found.signer) or None,
        "SigKey": [found.key, colons] if found.key else None,
        "SigHashAlgorithm": some(found.digest) or None,
    }


def _modules(proc: Path, sys: Path, tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
    look = _ModuleLook(tree, proc, sys, wanted)
    return map(look.item, loaded_modules(proc, sys))


# --- disks -----------------------------------------------------------------------------------------------------------

_CONNECTIONS: Final = (
    *(("/usb", "usb"), ("/ata", "ata"), ("/nvme", "nvme"), ("/virtio", "virtio"), ("/mmc", "mmc"), ("/host", "scsi")),
    *(("/virtual/", "virtual"), ("/vbd", "xen")),
)


def _disks(sys: Path, tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
    for name in _names(sys / "block")[:MAX_DISKS]:
        folder = sys / "block" / name
        size = _number(folder / "size")
        if size:
            values: Known = {
                "DiskName": (name,),
                "DiskSize": (size * _SECTOR,),
                "DevicePath": (f"/dev/{name.replace('!', '/')}",),
                "DiskConnection": _connection(folder),
                "Type": _type(folder),
                **_partitions(tree, folder, name),
            }
            yield item("DiskItem", name, values, wanted)


def _number(path: Path) -> int | None:
    text = (_text(path) or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None  # noqa: PLR2004 - of 64 bits


def _connection(folder: Path) -> tuple[str, ...] | None:
    """By the buses that the device is behind, as the link in /sys names them."""
    with suppress(OSError):
        way = f"{folder.readlink()}/"
        return next(((name,) for sign, name in _CONNECTIONS if sign in way), ())
    return None


def _type(folder: Path) -> list[str] | None:
    removable, rotating = _number(folder / "removable"), _number(folder / "queue/rotational")
    if removable is None:
        return None
    kinds = ["removable" if removable else "fixed"]
    return kinds if rotating is None else [*kinds, "rotating" if rotating else "solid-state"]


def _partitions(tree: Tree, folder: Path, disk: str) -> Known:
    found = [folder / one for one in _names(folder) if one.startswith(disk) and (folder / one / "partition").is_file()]
    found = found[:MAX_PARTITIONS]
    types = [_udev(tree, _text(one / "dev") or "").get("ID_PART_ENTRY_TYPE") for one in found]

    def numbers(name: str, unit: int = 1) -> list[int]:
        return [value * unit for one in found if (value := _number(one / name)) is not None]

    return {
        "PartitionList/Partition/PartitionNumber": numbers("partition"),
        "PartitionList/Partition/PartitionOffset": numbers("start", _SECTOR),
        "PartitionList/Partition/PartitionLength": numbers("size", _SECTOR),
        "PartitionList/Partition/PartitionType": None if None in types else [one for one in types if one],
    }


def _udev(tree: Tree, device: str) -> Mapping[str, str]:
    """What udev has written down of a block device, by its numbers."""
    if not re.fullmatch(r"\d{1,10}:\d{1,10}", device, re.ASCII):
        return {}
    lines = (tree.read(f"/run/udev/data/b{device}", most=_MAX_UDEV) or b"").decode("utf-8", "surrogateescape")
    return dict(one[2:].split("=", 1) for one in lines.split("\n") if one.startswith("E:") and "=" in one)


# --- volumes ---------------------------------------------------------------------------------------------------------

_REMOTE: Final = NETWORK | {
    *("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.davfs", "fuse.cephfs", "fuse.juicefs"),
}
_ANSWERING: Final = frozenset(
    {
        *(
            "ext2",
            "ext3",
            "ext4",
            "xfs",
            "btrfs",
            "f2fs",
            "jfs",
            "reiserfs",
            "vfat",
            "exfat",
            "ntfs3",
            "iso9660",
            "udf",
        ),
        *("squashfs", "erofs", "tmpfs", "devtmpfs", "ramfs", "zfs", "bcachefs", "overlay"),
    }
)
"""File systems that a question for their size does not wait for anybody else: neither a server nor a FUSE program."""
_OCTAL: Final = re.compile(r"\\([0-3][0-7]{2})")
_ADDRESS: Final = re.compile(r"//([^/]+)/.*|(?:[^@/]*@)?(\[[^\]]+\]|[^:/\[]+):.*", re.DOTALL)
_SIDES: Final = 2
_LEFT: Final = 6
_RIGHT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A line of mountinfo. Texts may hold surrogates."""

    device: str
    """Its numbers."""
    point: str
    kind: str
    source: str
    options: Sequence[str]

    @property
    def is_remote(self) -> bool:
        """Is it from the network?"""
        return self.kind in _REMOTE

    @property
    def address(self) -> str:
        """The machine that it is from, if its source names one."""
        found = _ADDRESS.fullmatch(self.source)
        return (found[1] or found[2]).strip("[]") if found else self.source


def parse_volumes(text: str) -> Iterator[Volume]:
    """The lines of mountinfo that are whole."""
    for line in text.split("\n"):
        sides = [one.split(" ") for one in line.split(" - ", 1)]
        if len(sides) != _SIDES or len(sides[0]) < _LEFT or len(sides[1]) < _RIGHT:
            continue
        left, right = sides
        options = dict.fromkeys((*left[5].split(","), *(right[2].split(",") if len(right) > _RIGHT else ())))
        yield Volume(
            device=left[2],
            point=_unescaped(left[4]),
            kind=_unescaped(right[0]),
            source=_unescaped(right[1]),
            options=tuple(_unescaped(one) for one in options if one),
        )


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def _volumes(proc: Path, sys: Path, tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
    volumes = list(islice(parse_volumes(_text(proc / "self/mountinfo", MAX_TEXT) or ""), MAX_MOUNTS))
    sizes = _sizes(tree, volumes) if wanted & {"TotalSize", "FreeSize"} else {}
    for one in volumes:
        size = sizes.get(one.point)
        values: Known = {
            "MountPoint": (one.point,),
            "DevicePath": some(one.source) if one.source.startswith("/dev/") else (),
            "DeviceID": (one.device,),
            "FileSystemName": (one.kind,),
            "FileSystemFlags": one.options,
            "IsMounted": (True,),
            "RemoteFS": (one.is_remote,),
            "RemoteAddress": some(one.address) if one.is_remote else (),
            "Flags/ReadOnly": ("ro" in one.options,),
            "TotalSize": None if size is None else (size[0],),
            "FreeSize": None if size is None else (size[1],),
            **(_of_device(tree, sys, one) if wanted & {"VolumeName", "VolumeID", "Flags/Removable"} else {}),
        }
        yield item("VolumeItem", one.point, values, wanted, about={"path": one.point})


def _of_device(tree: Tree, sys: Path, volume: Volume) -> Known:
    if volume.is_remote or volume.kind in MADE_UP or volume.device.startswith("0:"):
        return {"VolumeName": (), "VolumeID": (), "Flags/Removable": (False,)}
    known = _udev(tree, volume.device)
    return {
        "VolumeName": some(known.get("ID_FS_LABEL", "")) if known else None,
        "VolumeID": some(known.get("ID_FS_UUID", "")) if known else None,
        "Flags/Removable": _removable(sys / "dev/block" / volume.device),
    }


def _removable(device: Path) -> tuple[bool] | None:
    """Of the disk, which is above a partition."""
    found = _number(device / "removable")
    found = _number(device / "../removable") if found is None else found
    return None if found is None else (bool(found),)


def _sizes(tree: Tree, volumes: Sequence[Volume]) -> Mapping[str, tuple[int, int]]:
    """Mount point to the bytes that it has and that are free; of several at one place, of the one that is seen.

    Even the way to a file system that answers may lead through one that does not: nobody waits for long.
    """
    seen = {one.point: one for one in volumes}
    asked = [point for point, one in seen.items() if one.kind in _ANSWERING][:MAX_SIZES]

    def size(point: str, _sign: Callable[[], None]) -> tuple[int, int] | None:
        found = tree.space(point)
        return None if found is None or found[0].kind != seen[point].kind else found[1]

    done = Patience[str]("volumes", seconds=PATIENCE).each(asked, size, stop=threading.Event())
    return {point: found for point, found in done.values.items() if found is not None}
