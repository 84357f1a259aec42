"""Is a file opened that is one, read as it is, and everything else refused with a reason, untouched?"""

import asyncio
import hashlib
import os
import socket
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.agent.host import files as module
from stanch.agent.host.files import MAX_READ, LinuxFiles
from stanch.core.errors import ActionFailed, TargetGone, TooLarge, Unsupported
from stanch.core.types import EndpointPath
from tests.fakes.waiting import eventually

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path):
    """A file with known content."""
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return file


def opening(path):
    return LinuxFiles().open(EndpointPath.of(os.fsencode(path)))


async def read(path, offset=0, length=MAX_READ):
    async with opening(path) as file:
        return await file.read(offset, length)


def is_held(path):
    """Has this process a descriptor of the file?"""
    held = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            held.add(link.readlink())
    return path in held


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_reads_content_and_tells_about_the_file(path):
    """Content, size, mode, owner, time and inode are those on the disk."""
    path.chmod(0o4640)
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    found = path.stat()
    async with opening(path) as file:
        assert await file.read(0, MAX_READ) == CONTENT
        assert file.info.size == len(CONTENT)
        assert (file.info.mode, file.info.inode) == (0o4640, found.st_ino)
        assert file.info.modified == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
        assert file.info.user in {"root", str(found.st_uid)} or os.geteuid() != 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.integers(0, len(CONTENT) + 100), st.integers(0, len(CONTENT) + 100))
def test_any_piece_is_the_piece_of_the_content(path, offset, length):
    """A read is a slice, shorter only at the end."""
    assert asyncio.run(read(path, offset, length)) == CONTENT[offset : offset + length]


async def test_a_read_is_completed_though_the_kernel_gives_a_little_at_a_time(path, monkeypatch):
    """A short pread is not the end of the file."""
    pread = os.pread
    monkeypatch.setattr(module.os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))
    assert await read(path, 1, 100) == CONTENT[1:101]


@pytest.mark.parametrize("length", [-1, MAX_READ + 1])
async def test_a_read_is_bounded(path, length):
    """Nobody makes the agent hold any amount of memory."""
    with pytest.raises(TooLarge):
        await read(path, 0, length)


async def test_the_name_may_change_meanwhile(path):
    """What was opened stays what is read, wherever its name leads by then."""
    async with opening(path) as file:
        path.rename(path.with_name("elsewhere"))
        path.symlink_to("/etc/hostname")
        assert await file.read(0, MAX_READ) == CONTENT


async def test_follows_links_and_odd_names(tmp_path):
    """A link leads to its file, and a name that is no UTF-8 is a name."""
    odd = tmp_path / os.fsdecode(b"\xff\n\\x41")
    odd.write_bytes(CONTENT)
    (tmp_path / "link").symlink_to(odd)
    assert await read(odd) == CONTENT
    assert await read(tmp_path / "link") == CONTENT


@pytest.mark.root
async def test_the_access_time_stays(path):
    """Taking evidence leaves no trace in it."""
    os.utime(path, (1, 2))
    assert hashlib.sha256(await read(path)).digest() == hashlib.sha256(CONTENT).digest()
    assert path.stat().st_atime == 1


# --- refusing --------------------------------------------------------------------------------------------------------


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fspath(path))


@pytest.mark.parametrize(
    ("make", "what"),
    [(os.mkdir, "a folder"), (os.mkfifo, "a FIFO"), (make_socket, "a socket")],
)
async def test_what_is_no_regular_file_is_refused(tmp_path, monkeypatch, make, what):
    """The answer names what it is and what to do, and comes without waiting for a writer."""
    monkeypatch.chdir(tmp_path)
    make("odd")
    with pytest.raises(Unsupported, match=f"got {what}, expected a regular file") as refused:
        await read(tmp_path / "odd")
    assert refused.value.hint


async def test_a_device_is_not_even_opened(monkeypatch):
    """Opening a device is an act: only O_PATH touches it."""
    opened, real = [], os.open

    def noted(path, flags, *rest, **named):
        opened.append(flags)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(module.os, "open", noted)
    with pytest.raises(Unsupported, match="a character device"):
        await read("/dev/zero")
    assert all(flags & os.O_PATH for flags in opened)


async def test_a_file_that_the_kernel_makes_up_is_refused():
    """It shows size 0 and is endless or not, so that no evidence of it can be complete."""
    with pytest.raises(Unsupported, match="made up by the kernel"):
        await read("/proc/self/status")


@pytest.mark.parametrize("name", ["missing", "file/below", "dangling"])
async def test_what_is_not_there_is_gone(tmp_path, path, name):
    """A missing file, folder or link target is TargetGone."""
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(TargetGone, match="There is no file"):
        await read(tmp_path / name)


async def test_a_circle_of_links_is_an_error(tmp_path):
    """The message says that it is the links."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ActionFailed, match="lead in a circle"):
        await read(tmp_path / "a")


async def test_a_name_that_is_too_long_is_an_error(tmp_path):
    """Linux allows 255 bytes."""
    with pytest.raises(ActionFailed, match="longer than"):
        await read(tmp_path / ("x" * 256))


async def test_a_file_that_may_not_be_read_is_an_error(path, monkeypatch):
    """Root is refused, too: by a network file system or a security module."""

    def refuse(_pinned):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_reopen", refuse)
    with pytest.raises(ActionFailed, match="may not read"):
        await read(path)


async def test_a_disk_that_fails_is_an_error(path, monkeypatch):
    """An I/O error while reading comes out with its reason."""

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.os, "pread", fail)
    with pytest.raises(ActionFailed, match="Input/output error"):
        await read(path)


# --- letting go ------------------------------------------------------------------------------------------------------


async def test_a_cancelled_read_keeps_its_descriptor_until_it_is_done(path, monkeypatch):
    """Closing waits for the thread, lest it read another file that gets the number."""
    begun, go_on = threading.Event(), threading.Event()
    pread = os.pread

    def slow(fd, length, offset):
        begun.set()
        assert go_on.wait(20)
        return pread(fd, length, offset)

    monkeypatch.setattr(module.os, "pread", slow)
    reading = asyncio.create_task(read(path))
    await asyncio.to_thread(begun.wait, 20)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert is_held(path)
    go_on.set()
    await eventually(lambda: not is_held(path))


async def test_a_cancelled_open_closes_what_it_opened(path, monkeypatch):
    """A file that opens when nobody waits any more is closed."""
    begun, go_on = threading.Event(), threading.Event()
    reopen = module._reopen

    def slow(pinned):
        descriptor = reopen(pinned)
        begun.set()
        assert go_on.wait(20)
        return descriptor

    monkeypatch.setattr(module, "_reopen", slow)
    reading = asyncio.create_task(read(path))
    await asyncio.to_thread(begun.wait, 20)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    go_on.set()
    await eventually(lambda: not is_held(path))


async def test_a_closed_file_cannot_be_read(path):
    """Reading after the end of the `with` is an error, not another file's content."""
    async with opening(path) as file:
        assert stat.S_IMODE(file.info.mode)
    with pytest.raises(ActionFailed, match="closed"):
        await file.read(0, 1)
