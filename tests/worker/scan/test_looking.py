"""The worker over real folders: what it finds, what it leaves out and says so, whatever lies there."""

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.core.scan_wire import AT_SLOT
from stanch.core.scanning import Finding
from tests.worker.scan.driving import scan, worker

NOT_ROOT = 12_345


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_it_finds_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    """Of many files the one with the string, with place and offset; the tally counts all of them."""
    evil = put(tmp_path / "a/b/c/evil")
    for n in range(200):
        put(tmp_path / f"clean/{n}", b"nothing")
    done = scan(tmp_path)
    assert done.found == {("Evil", str(evil))}
    assert (done.tally["files"], done.tally["findings"], done.tally["complete"]) == (201, 1, True)
    assert done.findings[0]["why"][0]["text"] == "$a at 0x5, 7 bytes"
    assert not done.skips


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"\x1b[31m", "ü".encode(), b" ", b"a" * 255, b"\\x41"])
def test_names_are_any_bytes(tmp_path: Path, name: bytes) -> None:
    """The path of a find leads to the file, whatever its name is."""
    raw = os.fsencode(tmp_path) + b"/" + name
    with open(raw, "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"E-V-I-L")
    path = Finding.model_validate(scan(tmp_path).findings[0]).objects[0].path
    assert path is not None
    assert path.raw == raw


def test_pipes_sockets_and_links_are_never_opened(tmp_path: Path) -> None:
    """They are told, links apart, and the scan ends: a pipe without a writer would keep it for ever."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("/etc/passwd")
    done = scan(tmp_path)
    assert done.skipped == {(str(tmp_path / one), "not-regular") for one in ("fifo", "socket")}
    assert done.tally["files"] == 0


def test_a_large_file_is_skipped_and_told(tmp_path: Path) -> None:
    """A sparse file of four gigabytes costs nothing."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(4 * 2**30)
    put(tmp_path / "evil")
    done = scan(tmp_path)
    assert done.skipped == {(str(tmp_path / "sparse"), "too-large")}
    assert done.tally["bytes"] < 1000
    assert done.found == {("Evil", str(tmp_path / "evil"))}


def test_a_file_with_several_names_is_read_once(tmp_path: Path) -> None:
    """Its content counts for each of its names."""
    put(tmp_path / "0", b"x" * 1000)
    for n in range(1, 20):
        (tmp_path / str(n)).hardlink_to(tmp_path / "0")
    done = scan(tmp_path, threads=1)
    assert (done.tally["files"], done.tally["bytes"]) == (20, 1000)


def test_all_names_of_a_bad_file_are_found(tmp_path: Path) -> None:
    """A find is told for each name: all of them have to go."""
    put(tmp_path / "one")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert scan(tmp_path).found == {("Evil", str(tmp_path / one)) for one in ("one", "two")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up a right")
def test_it_works_without_any_right(tmp_path: Path) -> None:
    """It sees what its user may, tells what it may not, and how it is confined."""
    evil = put(tmp_path / "evil")
    secret = put(tmp_path / "secret")
    secret.chmod(0o600)
    os.chown(secret, NOT_ROOT, NOT_ROOT)
    done = scan(tmp_path, prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert done.found == {("Evil", str(evil))}
    assert done.skipped == {(str(secret), "unreadable")}
    assert done.tally["confined"]["seccomp"] == "yes"


def test_a_file_that_is_written_all_the_time_is_told(tmp_path: Path) -> None:
    """What is found in it counts; that nothing was found is not sure."""
    victim = put(tmp_path / "log", bytes(24 * 2**20))
    program = "import os,sys\nf=os.open(sys.argv[1],os.O_WRONLY)\nprint(flush=True)\nwhile True: os.pwrite(f,b'x',0)"
    with subprocess.Popen([sys.executable, "-c", program, victim], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            done = scan(tmp_path)
        finally:
            writer.kill()
    assert done.skipped == {(str(victim), "changed")}


OPEN_IOC = b"""<ioc xmlns="http://schemas.mandiant.com/2010/ioc" id="i"><definition><Indicator operator="OR" id="a">
<IndicatorItem id="b" condition="contains"><Context document="FileItem" search="FileItem/FileName" type="mir"/>
<Content type="string">evil</Content></IndicatorItem></Indicator></definition></ioc>"""


@pytest.mark.parametrize("size", [20, 5 * 2**20, 33 * 2**20])
def test_a_find_tells_the_content(tmp_path: Path, size: int) -> None:
    """Whoever quarantines it can see to it that it is this content: read at once, in memory of its own, or mapped."""
    content = b"E-V-I-L".ljust(size, b"x")
    put(tmp_path / "evil", content)
    (about,) = scan(tmp_path).findings[0]["objects"]
    assert (about["sha256"], about["size"]) == (hashlib.sha256(content).hexdigest(), size)


@pytest.mark.parametrize("kind", ["md5", "ioc"])
def test_a_find_by_less_than_the_content_tells_it_too(tmp_path: Path, kind: str) -> None:
    """By another hash, or by a name."""
    put(tmp_path / "evil", b"content")
    md5 = hashlib.md5(b"content", usedforsecurity=False).hexdigest()
    material = {"md5": ("hashes", "list", md5.encode()), "ioc": ("openioc", "one.ioc", OPEN_IOC)}[kind]
    with worker([material]) as driver:
        driver.targets(tmp_path)
        (found,) = driver.finish().findings
    (about,) = found["objects"]
    assert (about["sha256"], about["size"]) == (hashlib.sha256(b"content").hexdigest(), 7)


def deep(folder: Path, levels: int) -> None:
    """A file below so many folders with long names: no path that the kernel takes leads there."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 250, dir_fd=at)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    file = os.open("evil", os.O_WRONLY | os.O_CREAT, dir_fd=at)
    os.write(file, b"E-V-I-L")
    os.close(file)
    os.close(at)


def test_a_path_that_is_too_long_to_be_asked_for(tmp_path: Path) -> None:
    """The file is found, and told without a path: one that does not fit would end the whole scan."""
    deep(tmp_path, 40)
    found = Finding.model_validate(scan(tmp_path).findings[0])
    assert found.objects[0].path is None
    assert found.objects[0].name.startswith(str(tmp_path))


def test_what_killed_an_earlier_worker_is_known_by_the_start_of_its_name(tmp_path: Path) -> None:
    """A longer one was told as far as it fits."""
    deep(tmp_path, 40)
    name = os.fsdecode(os.fsencode(f"{tmp_path}/{'/'.join(['d' * 250] * 40)}/evil")[: AT_SLOT - 2])
    assert scan(tmp_path, skip=[name]).findings == []


def test_what_is_skipped_does_not_count_as_looked_at(tmp_path: Path) -> None:
    """Files that there are = looked at + skipped."""
    put(tmp_path / "large", bytes(100))
    put(tmp_path / "small", b"x")
    done = scan(tmp_path, max_size=10)
    assert (done.tally["files"], done.tally["skipped"]) == (1, {"too-large": 1})
