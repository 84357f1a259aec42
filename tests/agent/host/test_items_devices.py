"""ModuleItem, DiskItem and VolumeItem: what is planted below /proc and /sys is found, in the words of the terms."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import items_devices as module
from stanch.agent.host.items import Parts
from stanch.agent.host.items_devices import parse_modules, parse_volumes
from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.autorun_root import Root
from tests.agent.host.below_world import found, one, parts_of
from tests.agent.host.made_module import made, signed
from tests.agent.host.test_module_signature import KEY, MESSAGE

FOLDER = "/lib/modules/6.1.0"
SAID = ("license=GPL", "alias=a*", "alias=b", "depends=one,two", "vermagic=6.1.0 SMP ", "retpoline=Y")
EVIL = signed(made(*SAID), MESSAGE)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A machine with modules, disks and mounts."""
    made_root = Root(tmp_path)
    made_root.write("/proc/sys/kernel/osrelease", "6.1.0\n")
    made_root.write(
        "/proc/modules", "dash_ed 16384 2 one,two, Live 0xffffffffc0123000 (OE)\nplain 100 0 - Loading 0x0\n"
    )
    made_root.write(f"{FOLDER}/modules.dep", "kernel/x/dash-ed.ko: kernel/y.ko\n/opt/plain.ko.xz:\nnothing\n")
    made_root.write(f"{FOLDER}/kernel/x/dash-ed.ko", EVIL)
    made_root.write("/sys/module/dash_ed/srcversion", "S1\n")
    made_root.write("/sys/module/dash_ed/initstate", "live\n")
    made_root.write("/sys/module/dash_ed/parameters/debug", "1\n")
    made_root.write("/sys/module/builtin/parameters/x", "1\n")
    return made_root


def test_a_module_is_known(root: Root) -> None:
    """By the kernel and by its file."""
    values = one("ModuleItem", parts_of(root.folder), "dash_ed")
    assert values["Module"] == values["ModuleName"] == ("dash_ed",)
    assert values["Size"] == values["ModuleSize"] == (16384,)
    assert values["Status"] == ("Live",)
    assert values["Address"] == ("0xffffffffc0123000",)
    assert values["UsedByList/Module"] == ("one", "two")
    assert values["Filename"] == values["ModulePath"] == (f"{FOLDER}/kernel/x/dash-ed.ko",)
    assert (values["License"], values["Vermagic"]) == (("GPL",), ("6.1.0 SMP",))
    assert values["AliasList/Alias/Name"] == ("a*", "b")
    assert values["DependsList/Depends/Module"] == ("one", "two")
    assert (values["Intree"], values["Retpoline"], values["Signat"]) == ((False,), (True,), ("PKCS#7",))
    assert (values["Signer"], values["SigHashAlgorithm"]) == (("Build key",), ("sha256",))
    assert values["SigKey"] == (KEY, ":".join(KEY[n : n + 2] for n in range(0, len(KEY), 2)))
    assert (values["SrcVersion"], values["ParmList/Parm/Name"]) == (("S1",), ("debug",))
    assert values["Sha256sum"] == (hashlib.sha256(EVIL).hexdigest(),)
    assert set(values) == set(DOCUMENTS["ModuleItem"])


def test_what_is_not_known_of_a_module_is_left_out(root: Root) -> None:
    """An address that the kernel keeps secret, and what stands in a file that is not there."""
    values = one("ModuleItem", parts_of(root.folder), "plain")
    assert not {"Address", "License", "Intree", "SrcVersion"} & set(values)
    assert (values["Filename"], values["Md5sum"]) == (("/opt/plain.ko.xz",), ())


def test_a_module_that_hides_is_found(root: Root) -> None:
    """In /sys only; what is built into the kernel is no module."""
    root.write("/sys/module/rootkit/initstate", "live\n")
    root.write("/sys/module/rootkit/coresize", "4096\n")
    values = one("ModuleItem", parts_of(root.folder), "rootkit", "Module", "Size", "Status", "Filename")
    assert values == {"Module": ("rootkit",), "Size": (4096,), "Status": ("Live", "hidden"), "Filename": ()}
    assert len(found("ModuleItem", parts_of(root.folder))) == 3


def test_without_a_list_of_files_no_file_is_known(root: Root) -> None:
    """A kernel whose modules are elsewhere."""
    root.at(f"{FOLDER}/modules.dep").unlink()
    assert one("ModuleItem", parts_of(root.folder), "plain", "Filename", "Md5sum", "Size") == {"Size": (100,)}


def test_no_file_is_read_for_a_name(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one hashed."""

    def never(*_arguments: object, **_more: object) -> None:
        raise AssertionError("a module was read")

    monkeypatch.setattr(module, "unpacked", never)
    monkeypatch.setattr("stanch.agent.host.autorun_tree.Tree.hashes", never)
    assert len(found("ModuleItem", parts_of(root.folder), "Module", "Filename", "Size")) == 2


# --- disks ---


def disk(root: Root, name: str, way: str, **attributes: str) -> str:
    """A disk in /sys, where its bus is."""
    folder = f"/sys/devices/{way}/block/{name}"
    for attribute, value in attributes.items():
        root.write(f"{folder}/{attribute.replace('__', '/')}", f"{value}\n")
    root.link(f"/sys/block/{name}", f"../devices/{way}/block/{name}")
    return folder


def test_a_disk_is_known(root: Root) -> None:
    """With its partitions; their types are those that udev has written down."""
    folder = disk(root, "sda", "pci0/usb1/1-1/host0", size="1000", removable="1", queue__rotational="0", dev="8:0")
    for number, begin in ((1, 8), (2, 108)):
        part = f"{folder}/sda{number}"
        for name, value in {"partition": number, "start": begin, "size": 100, "dev": f"8:{number}"}.items():
            root.write(f"{part}/{name}", f"{value}\n")
        root.write(f"/run/udev/data/b8:{number}", f"S:disk\nE:ID_PART_ENTRY_TYPE=0x8{number}\n")
    assert one("DiskItem", parts_of(root.folder), "sda") == {
        "DiskName": ("sda",),
        "DiskSize": (512_000,),
        "DevicePath": ("/dev/sda",),
        "DiskConnection": ("usb",),
        "Type": ("removable", "solid-state"),
        "PartitionList/Partition/PartitionNumber": (1, 2),
        "PartitionList/Partition/PartitionOffset": (4096, 55_296),
        "PartitionList/Partition/PartitionLength": (51_200,),
        "PartitionList/Partition/PartitionType": ("0x81", "0x82"),
    }


def test_disks_without_size_are_none(root: Root) -> None:
    """A loop device that nothing is on."""
    disk(root, "loop0", "virtual", size="0", removable="0")
    disk(root, "nvme0n1", "pci0/nvme/nvme0", size="8", removable="0")
    (item,) = found("DiskItem", parts_of(root.folder))
    assert item.values["DiskConnection"] == ("nvme",)
    assert item.values["Type"] == ("fixed",)
    assert item.values["PartitionList/Partition/PartitionNumber"] == ()


# --- volumes ---

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:40 / /mnt/a\040b ro - nfs4 server.example:/x\040y rw,vers=4.2
24 22 0:41 / /mnt/c rw - cifs //192.0.2.1/share rw
25 22 0:42 / /mnt/d rw - fuse.sshfs alice@[2001:db8::1]:/ rw
26 22 0:21 / /proc rw - proc proc rw
broken
"""


def test_what_is_mounted_is_known(root: Root) -> None:
    """Where, from where, how, and what udev has written down of it."""
    root.write("/proc/self/mountinfo", MOUNTS)
    root.write("/run/udev/data/b8:1", "E:ID_FS_LABEL=root\nE:ID_FS_UUID=1-2\n")
    root.write("/sys/dev/block/removable", "0\n")
    root.at("/sys/dev/block/8:1").mkdir()
    values = one("VolumeItem", parts_of(root.folder), "/")
    assert (values["MountPoint"], values["DevicePath"], values["DeviceID"]) == (("/",), ("/dev/sda1",), ("8:1",))
    assert values["FileSystemName"] == ("ext4",)
    assert values["FileSystemFlags"] == ("rw", "relatime", "errors=remount-ro")
    assert (values["IsMounted"], values["RemoteFS"], values["RemoteAddress"]) == ((True,), (False,), ())
    assert (values["Flags/ReadOnly"], values["Flags/Removable"]) == ((False,), (False,))
    assert (values["VolumeName"], values["VolumeID"]) == (("root",), ("1-2",))


def test_what_is_mounted_from_the_network(root: Root) -> None:
    """From which machine; a sign that the kernel escaped is itself again."""
    root.write("/proc/self/mountinfo", MOUNTS)
    values = one("VolumeItem", parts_of(root.folder), "/mnt/a b")
    assert (values["RemoteFS"], values["RemoteAddress"]) == ((True,), ("server.example",))
    assert (values["Flags/ReadOnly"], values["DevicePath"], values["VolumeName"]) == ((True,), (), ())
    assert one("VolumeItem", parts_of(root.folder), "/mnt/c", "RemoteAddress") == {"RemoteAddress": ("192.0.2.1",)}
    assert one("VolumeItem", parts_of(root.folder), "/mnt/d", "RemoteAddress") == {"RemoteAddress": ("2001:db8::1",)}


def test_only_file_systems_that_answer_are_asked_for_their_size(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a server nor a FUSE program: they may never answer."""
    asked = list[str]()

    def space(_tree: object, path: str) -> None:
        asked.append(path)

    monkeypatch.setattr("stanch.agent.host.autorun_tree.Tree.space", space)
    root.write("/proc/self/mountinfo", MOUNTS)
    found("VolumeItem", parts_of(root.folder), "TotalSize")
    assert asked == ["/"]


def test_of_this_machine() -> None:
    """The size of its root is that of statvfs; all items are within the catalogue."""
    volumes = [item for item in found("VolumeItem", Parts()) if item.name == "/" and "TotalSize" in item.values]
    space = os.statvfs("/")
    assert all(item.values["TotalSize"] == (space.f_blocks * space.f_frsize,) for item in volumes)
    found("DiskItem", Parts())
    found("ModuleItem", Parts(), "Module", "Size", "Filename")


@given(st.text("a 0:/-,\\1\n.@[]", max_size=200))
def test_no_text_raises(text: str) -> None:
    """What the kernel shows has names that somebody gave."""
    assert all(len(one.options) == len(set(one.options)) for one in parse_volumes(text))
    assert all(isinstance(one.address, str) for one in parse_volumes(text))
    assert all(one.name for one in parse_modules(text))


def test_nothing_there_is_no_item(tmp_path: Path) -> None:
    """A machine without /proc and /sys."""
    for document in ("ModuleItem", "DiskItem", "VolumeItem"):
        assert found(document, parts_of(tmp_path)) == []
