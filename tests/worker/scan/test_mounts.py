"""What is mounted: met once, by whatever path; left out by kind; and a file system that never answers ends nothing."""

import os
from pathlib import Path

import pytest

from stanch.worker.scan.mounts import FileSystems, Origin, read_mounts
from tests.mounts import bind, inside, overlay, silent, tmpfs
from tests.worker.scan.driving import FIND_EVIL, scan, worker

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for mounts")]


def evil(folder: Path) -> Path:
    """A bad file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evil").write_bytes(b"E-V-I-L")
    return folder / "evil"


def test_a_bind_mount_is_walked_once(tmp_path: Path) -> None:
    """Whichever of its two paths comes first."""

    @inside
    def work() -> None:
        evil(tmp_path / "m/real")
        for name in ("a", "z"):
            (tmp_path / "m" / name).mkdir()
            bind(tmp_path / "m/real", tmp_path / "m" / name)
        done = scan(tmp_path / "m")
        assert (done.tally["files"], len(done.findings)) == (1, 1)

    work()


def test_a_mount_below_itself_ends(tmp_path: Path) -> None:
    """A folder that is mounted in itself is a loop."""

    @inside
    def work() -> None:
        evil(tmp_path / "m")
        (tmp_path / "m/again").mkdir()
        bind(tmp_path / "m", tmp_path / "m/again")
        assert scan(tmp_path / "m").tally["files"] == 1

    work()


def test_only_one_file_system_if_that_is_asked(tmp_path: Path) -> None:
    """What is mounted below is told, and left out."""

    @inside
    def work() -> None:
        kept = evil(tmp_path / "m")
        evil(tmpfs(tmp_path / "m/other"))
        done = scan(tmp_path / "m", one_file_system=True)
        assert done.found == {("Evil", str(kept))}
        assert done.skipped == {(str(tmp_path / "m/other"), "other")}
        assert len(scan(tmp_path / "m").findings) == 2

    work()


def test_overlays_are_looked_at_like_any_other(tmp_path: Path) -> None:
    """As containers have them."""

    @inside
    def work() -> None:
        evil(tmp_path / "lower")
        merged = overlay(tmp_path / "over", tmp_path / "lower")
        assert scan(merged).found == {("Evil", str(merged / "evil"))}

    work()


def test_names_of_namespaces_are_the_kernels(tmp_path: Path) -> None:
    """Files on which one is mounted are no files that a scan has failed to read; known ones or not."""

    @inside
    def work() -> None:
        kept = evil(tmp_path / "names")
        name = tmp_path / "names/net"
        name.touch()
        bind(Path("/proc/self/ns/net"), name)
        done = scan(tmp_path)
        assert done.found == {("Evil", str(kept))}
        assert done.skipped == {(str(name), "kernel")}
        assert done.tally["complete"]

    work()


def test_what_may_hang_is_not_touched(tmp_path: Path) -> None:
    """FUSE counts as the network's: named, and never waited for."""

    @inside
    def work() -> None:
        device = silent(tmp_path / "silent")
        kept = evil(tmp_path / "local")
        try:
            done = scan(tmp_path)
        finally:
            os.close(device)
        assert done.found == {("Evil", str(kept))}
        assert done.skipped == {(str(tmp_path / "silent"), "network")}
        assert done.tally["complete"]

    work()


def test_a_file_system_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """Asked for all the same, it is named after a while; everything else is looked at, and the scan ends.

    How long rules may take for an object does not count: none is asked while folders are listed.
    """

    @inside
    def work() -> None:
        device = silent(tmp_path / "silent")
        kept = evil(tmp_path / "local")
        try:
            with worker([("yara", "e", FIND_EVIL)], network=True, patience=0.5, per_object=600) as driver:
                driver.targets(tmp_path)
                done = driver.finish()
        finally:
            os.close(device)
        assert done.found == {("Evil", str(kept))}
        assert done.skipped == {(str(tmp_path / "silent"), "hangs")}
        assert not done.tally["complete"]

    work()


def test_kinds_of_file_systems_by_their_number(tmp_path: Path) -> None:
    """What is mounted after the table was read is known once it is open."""
    for path, origin in (("/proc", Origin.KERNEL), (str(tmp_path), Origin.LOCAL)):
        file = os.open(path, os.O_RDONLY)
        assert FileSystems().of(file).origin is origin
        os.close(file)


def test_the_table_of_mounts(tmp_path: Path) -> None:
    """Blanks in names are octal; what was mounted last counts; a torn line says nothing."""
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"2 1 0:5 / /a\\040b rw shared:1 - nfs4 server:/x rw\n"
        b"3 1 0:6 / /proc rw - proc proc rw\n"
        b"4 1 0:7 / /home/u/drive rw - fuse.sshfs u@h: rw\n"
        b"5 1 0:8 / /proc rw - tmpfs tmpfs rw\n"
        b"6 1 torn\n"
    )
    assert read_mounts(table) == {
        b"/": Origin.LOCAL,
        b"/a b": Origin.NETWORK,
        b"/proc": Origin.LOCAL,
        b"/home/u/drive": Origin.NETWORK,
    }
    assert read_mounts(tmp_path / "gone") == {}
