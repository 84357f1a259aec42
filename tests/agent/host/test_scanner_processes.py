"""What runs: programs, libraries, deleted programs, and whose memory is looked into."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.agent.host.patience import Patience
from stanch.agent.host.scanner_processes import memory_of, ours, running
from stanch.core.scanning import SkipReason


@contextmanager
def started(*line: str):
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def looked():
    found = running(ours(), Patience("test", seconds=30))
    try:
        yield found
    finally:
        found.close()


def test_programs_and_libraries_are_told_once(tmp_path):
    """Each file has one place in the list, however many processes have it mapped."""
    program = tmp_path / "sleeper"
    shutil.copy("/bin/sleep", program)
    with started(str(program), "100"), started(str(program), "100"), looked() as found:
        assert found.paths.count(str(program)) == 1
        assert len(found.paths) == len(set(found.paths))
        assert any(".so" in one for one in found.paths)


def test_a_deleted_program_is_held_open(tmp_path):
    """It has no path any more, and its bytes are read through the process that runs it."""
    program = tmp_path / "gone now"
    shutil.copy("/bin/sleep", program)
    with started(str(program), "100") as process:
        program.unlink()
        with looked() as found:
            (one,) = [one for one in found.opened if one["pid"] == process.pid]
            assert os.pread(one["fd"], 4, 0) == b"\x7fELF"
            assert "gone now" in one["name"]
            with pytest.raises(OSError):
                os.write(one["fd"], b"x")


def test_a_program_without_a_file_is_held_open():
    """Memfd: what never was on a disk is found, too."""
    code = (
        "import os,sys; f=os.memfd_create('hidden'); os.write(f, open('/bin/sleep','rb').read());"
        "os.execve(f, ['sleep', '100'], {})"
    )
    with started(sys.executable, "-c", code) as process:
        link = Path(f"/proc/{process.pid}/exe")
        while "memfd" not in str(link.readlink()):
            assert process.poll() is None
        with looked() as found:
            assert [one["pid"] for one in found.opened if "memfd:hidden" in one["name"]] == [process.pid]


def test_a_deleted_library_is_told(tmp_path):
    """It is mapped, and there is no file to be looked at: memory shows it."""
    libc = next(
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "libc.so" in line or "libc-" in line
    )
    copy = tmp_path / "lib evil.so"
    shutil.copy(libc, copy)
    code = f"import ctypes,os; ctypes.CDLL({str(copy)!r}); os.unlink({str(copy)!r}); print(flush=True); input()"
    with started(sys.executable, "-c", code) as process:
        process.stdout.readline()
        with looked() as found:
            (skip,) = [one for one in found.skips if "lib evil.so" in one.name]
    assert skip.reason is SkipReason.GONE


def test_memory_of_named_processes_only(tmp_path):
    """By number and by name; the kernel's threads have no memory of their own."""
    program = tmp_path / "odd-name"
    shutil.copy("/bin/sleep", program)
    with started(str(program), "100") as process, started("/bin/sleep", "100") as other:
        by_number, skips = memory_of([process.pid], (), ours())
        assert [(one["pid"], one["name"], one["path"]) for one in by_number] == [
            (process.pid, "odd-name", str(program))
        ]
        assert by_number[0]["started"] > 0
        assert skips == []
        by_name, _ = memory_of((), ["odd-name"], ours())
        assert [one["pid"] for one in by_name] == [process.pid]
        everybody, _ = memory_of((), (), ours([other.pid]))
        pids = {one["pid"] for one in everybody}
        assert process.pid in pids
        assert not pids & {os.getpid(), other.pid, 2}


def test_a_process_that_is_not_there_is_told():
    """Whoever named it hears that nothing was looked into."""
    found, skips = memory_of([4_194_303, os.getpid()], (), ours())
    assert found == []
    assert {one.reason for one in skips} == {SkipReason.GONE, SkipReason.OTHER}


def test_a_name_that_nobody_has_is_told(tmp_path):
    """Also beside one that somebody has: a typing error is no clean bill."""
    program = tmp_path / "odd-name"
    shutil.copy("/bin/sleep", program)
    with started(str(program), "100") as process:
        found, skips = memory_of((), ["odd-name", "odd-nmae"], ours())
    assert [one["pid"] for one in found] == [process.pid]
    assert [(one.name, one.reason) for one in skips] == [("process odd-nmae", SkipReason.GONE)]
