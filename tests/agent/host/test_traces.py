"""What may still keep the bytes of a file: each doubt is told, where there is reason for it."""

import os

import pytest

from stanch.agent.host import traces
from stanch.agent.host.mounts import Mount
from stanch.agent.host.traces import caveats_of


@pytest.fixture
def file(tmp_path):
    """A descriptor of a small file."""
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    opened = os.open(tmp_path / "file", os.O_PATH)
    yield opened
    os.close(opened)


@pytest.fixture
def told(file, monkeypatch, tmp_path):
    """What is told of the file if it were on such a mount and such a disk."""

    def tell(mount, **disk):
        status = os.fstat(file)
        folder = tmp_path / "sys" / f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        for name, text in disk.items():
            one = folder / name.replace("__", "/")
            one.parent.mkdir(parents=True, exist_ok=True)
            one.write_text(text)
        monkeypatch.setattr(traces, "DEVICES", tmp_path / "sys")
        monkeypatch.setattr(traces, "mount_of", lambda _descriptor: mount)
        return " ".join(caveats_of(file))

    return tell


EXT4 = Mount("ext4", "/dev/none", frozenset({"rw"}))


def test_a_plain_disk_leaves_only_what_is_always_true(told):
    """Something that turns, with a file system that overwrites in place: copies elsewhere remain a doubt."""
    assert told(EXT4, queue__rotational="1\n").startswith("Backups")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("btrfs", "snapshots keep them"),
        ("zfs", "snapshots keep them"),
        ("f2fs", "another place"),
        ("overlay", "lower layer"),
        ("nfs4", "server"),
        ("cifs", "server"),
        ("fuse.sshfs", "a program provides"),
        ("tmpfs", "swap space"),
        ("", "cannot be told"),
    ],
)
def test_each_kind_of_file_system_has_its_own_doubt(told, kind, word):
    """What it does with new bytes is said in plain words."""
    assert word in told(Mount(kind), queue__rotational="1")


def test_a_journal_of_data_is_told(told):
    """ext4 with data=journal writes everything twice."""
    mount = Mount("ext4", "/dev/none", frozenset({"data=journal"}))
    assert "journals data" in told(mount, queue__rotational="1")
    assert "journals data" not in told(EXT4, queue__rotational="1")


def test_flash_is_told(told):
    """What does not turn writes where it likes."""
    assert "flash or virtual" in told(EXT4, queue__rotational="0\n")


def test_a_partition_is_asked_for_its_disk(file, monkeypatch, tmp_path):
    """Only the whole disk says whether it turns."""
    status = os.fstat(file)
    disk = tmp_path / "devices" / "sda"
    (disk / "queue").mkdir(parents=True)
    (disk / "queue" / "rotational").write_text("0")
    (disk / "sda1").mkdir()
    (disk / "sda1" / "partition").write_text("1")
    (tmp_path / f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}").symlink_to(disk / "sda1")
    monkeypatch.setattr(traces, "DEVICES", tmp_path)
    monkeypatch.setattr(traces, "mount_of", lambda _descriptor: EXT4)
    assert any("The disk (sda) is flash" in one for one in caveats_of(file))


def test_volumes_and_images_are_told(told):
    """Below a logical volume or a loop device there is more that keeps bytes."""
    text = told(EXT4, queue__rotational="1", dm__name="vg-data", loop__backing_file="/srv/disk.img\n")
    assert "logical volume" in text
    assert "/srv/disk.img" in text


def test_a_disk_that_cannot_be_told_is_a_doubt(told):
    """No answer is not a good answer."""
    assert "Which disk it is on cannot be told" in told(EXT4)


def test_shared_blocks_are_told(told, monkeypatch):
    """Whether in the first or a later piece that the kernel tells."""
    answers = {0: [(0, 0, 4096, 0)], 4096: [(4096, 0, 4096, 0x2001)]}
    monkeypatch.setattr(traces, "_mapped", lambda _opened, start: answers[start])
    assert "reflink" in told(EXT4, queue__rotational="1")


def test_a_map_that_never_ends_is_left(monkeypatch):
    """A file system that lies makes nobody wait."""
    monkeypatch.setattr(traces, "_mapped", lambda _opened, _start: [(0, 0, 0, 0)])
    assert traces._is_shared(0) is False
