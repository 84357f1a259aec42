"""Mount namespaces for tests: whatever is mounted in one is seen by nobody else, and goes with it. Needs root.

Code runs inside by moving one fresh thread there; programs that it starts are inside too, the rest of the test is not.
"""

import ctypes
import functools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_CLONE_NEWNS = 0x20000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_LIBC = ctypes.CDLL(None, use_errno=True)


def inside(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a mount namespace of its own."""

    @functools.wraps(test)
    def wrapped(*arguments: Any, **more: Any) -> None:
        failed: list[BaseException] = []

        def work() -> None:
            try:
                _check(_LIBC.unshare(_CLONE_NEWNS))
                _check(_LIBC.mount(None, b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None))
                test(*arguments, **more)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    return wrapped


def tmpfs(folder: Path, options: str = "") -> Path:
    """A new, empty file system in memory."""
    return _mounted(folder, "-t", "tmpfs", *(("-o", options) if options else ()), "tmpfs")


def silent(folder: Path) -> int:
    """A FUSE file system that nobody answers for; whoever touches it waits until the descriptor is closed."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("no FUSE here")
    folder.mkdir()
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if _LIBC.mount(b"silent", os.fsencode(folder), b"fuse.silent", ctypes.c_ulong(0), options) != 0:
        os.close(device)
        pytest.skip("FUSE cannot be mounted here")
    return device


def bind(source: Path, target: Path) -> None:
    """The same files a second time, over what is there."""
    _run("mount", "--bind", source, target)


def read_only(folder: Path) -> None:
    """Mount what is mounted there read-only."""
    _run("mount", "-o", "remount,ro,bind", folder)


def image(folder: Path, kind: str) -> Path:
    """A file system of this kind on a small image, which goes with the namespace; skips where it cannot be made."""
    program = shutil.which(f"mkfs.{kind}")
    if program is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    file = folder.parent / f"{folder.name}.image"
    with file.open("wb") as opened:
        opened.truncate((320 if kind == "xfs" else 16) * 1_048_576)
    _run(program, "-q", file)
    return _mounted(folder, "-o", "loop", file)


def overlay(base: Path, lower: Path, options: str = "") -> Path:
    """An overlay over `lower`, whose changes go to a file system of their own."""
    changes = tmpfs(base / "changes")
    upper, work = changes / "upper", changes / "work"
    upper.mkdir()
    work.mkdir()
    more = f",{options}" if options else ""
    return _mounted(
        base / "merged", "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}{more}", "overlay"
    )


def _mounted(folder: Path, *arguments: str | Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", *arguments, folder)
    return folder


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
