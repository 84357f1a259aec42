"""What a worker that scans can no longer do: tried in a real process, confined as it is."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.worker.confinement import DONE
from stanch.worker.sandbox_filter import SCANNING

FILTERED = platform.machine() in SCANNING
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")


def tried(what: str, *, memory: bool = False, clamd: bool = False, without: str = "") -> tuple[dict[str, str], str]:
    """How a fresh process was confined, and what came of some Python in it afterwards."""
    lines = "\n    ".join(what.splitlines())
    program = f"""
import ctypes, fcntl, json, mmap, os, signal, socket, sys, threading
from stanch.worker.scan import confining
for name in {without.split()!r}:
    setattr(confining, name, lambda *_, **__: None)
libc = ctypes.CDLL(None, use_errno=True)
pair = socket.socketpair()
told = confining.confine_scan(memory={memory}, clamd={clamd})
try:
    {lines}
    came = "done"
except BaseException as error:
    came = type(error).__name__
os.write(1, json.dumps([told, came]).encode())
os._exit(0)
"""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", program], env={}, cwd="/", capture_output=True, check=False, timeout=30
    )
    assert ended.returncode == 0, (ended.returncode, ended.stderr)
    told, came = json.loads(ended.stdout)
    return told, came


FORBIDDEN = {
    "writes a file": "os.open('/tmp/scanned', os.O_WRONLY)",
    "makes a file": "os.open('/tmp/made-by-the-scanner', os.O_CREAT | os.O_RDWR)",
    "makes a file without a name": "os.open('/tmp', os.O_TMPFILE | os.O_RDWR)",
    "empties a file": "os.open('/etc/hostname', os.O_RDONLY | os.O_TRUNC)",
    "cuts a file": "os.truncate('/etc/hostname', 0)",
    "removes a file": "os.unlink('/tmp/scanned')",
    "renames a file": "os.rename('/tmp/scanned', '/tmp/other')",
    "changes rights": "os.chmod('/tmp', 0o777)",
    "changes an owner": "os.chown('/tmp', 0, 0)",
    "changes times": "os.utime('/tmp')",
    "sets an attribute": "os.setxattr('/tmp', 'user.x', b'x')",
    "makes a folder": "os.mkdir('/tmp/made-by-the-scanner')",
    "makes a socket": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "makes a local socket": "socket.socketpair()",
    "talks to a socket": "pair[0].send(b'x')",
    "starts a program": "os.execv('/bin/true', ['/bin/true'])",
    "starts a child": "os.fork()",
    "signals another process": "os.kill(1, 0)",
    "has signals sent": "fcntl.fcntl(0, fcntl.F_SETOWN, 1)",
    "takes its rights back": "os.setuid(0)",
    "makes executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    "watches another process": "assert libc.ptrace(16, 1, 0, 0) == 0",
    "mounts": "assert libc.mount(None, b'/tmp', b'tmpfs', 0, None) == 0",
}


@pytest.mark.skipif(not FILTERED, reason="no filter for this kind of machine")
@pytest.mark.parametrize("what", FORBIDDEN.values(), ids=FORBIDDEN)
def test_it_can_change_nothing_and_reach_nobody(what: str) -> None:
    """All of it is refused, and the process lives to tell."""
    assert tried(what)[1] in {"PermissionError", "AssertionError", "RuntimeError"}


def test_what_it_still_can() -> None:
    """List and read files, start threads, take memory, wait."""
    what = """
import time
os.read(os.open('/etc/passwd', os.O_RDONLY | os.O_NOFOLLOW), 10)
assert os.listdir('/etc') and os.stat('/etc').st_size
thread = threading.Thread(target=time.sleep, args=(0.001,)); thread.start(); thread.join()
assert len(bytes(2**24).hex()) == 2**25
mmap.mmap(os.open('/etc/passwd', os.O_RDONLY), 0, prot=mmap.PROT_READ)
"""
    assert tried(what)[1] == "done"


@root
def test_root_reads_everything_as_nobody(tmp_path: Path) -> None:
    """It is nobody, with the right to read what is closed to others, and not to touch access times."""
    closed = tmp_path / "closed"
    closed.write_bytes(b"secret")
    closed.chmod(0)
    told, came = tried(
        f"assert os.geteuid() == 65534\nassert os.read(os.open({str(closed)!r}, os.O_RDONLY | os.O_NOATIME), 6)"
    )
    assert came == "done"
    assert {one for one, how in told.items() if how == DONE} >= {"user", "network", "limits", "seccomp"}


@root
def test_without_the_filter_rights_are_gone_all_the_same(tmp_path: Path) -> None:
    """Landlock and the user alone: nothing is written, and what takes the filter to be harmless is not kept."""
    (tmp_path / "mine").write_bytes(b"")
    tmp_path.chmod(0o777)
    attempts = (f"os.open({str(tmp_path / 'mine')!r}, os.O_WRONLY)", f"os.chmod({str(tmp_path / 'mine')!r}, 0o777)")
    broken = "confining.install = lambda *_: (_ for _ in ()).throw(OSError(38, 'none'))"
    for what in attempts:
        program = f"""
import json, os
from stanch.worker.scan import confining
{broken}
told = confining.confine_scan(memory=False, clamd=False)
try:
    {what}
    print("done")
except OSError:
    print(told["seccomp"])
"""
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
        assert ended.stdout == "none\n", ended.stderr


@root
def test_devices_cannot_be_opened() -> None:
    """Not even for reading, and whoever names them: to open some of them changes the machine."""
    told, came = tried("os.open('/dev/null', os.O_RDONLY)", memory=True)
    assert (told["mounts"], came) == (DONE, "PermissionError")


def test_only_who_asks_clamd_may_talk() -> None:
    """To the socket that it was given."""
    assert tried("pair[0].send(b'x')", clamd=True)[1] == "done"


def test_each_measure_is_told() -> None:
    """Landlock would forbid to look into processes: then it is left out, and that is said."""
    names = {"network", "mounts", "user", "dies_with_parent", "no_new_privileges", "landlock", "limits", "seccomp"}
    told = tried("pass", memory=True)[0]
    assert set(told) == names
    assert "processes" in told["landlock"]


def test_the_program_of_another_machine_is_well_formed() -> None:
    """Each jump of the filter leads forward, to an instruction that is there."""
    from stanch.worker.sandbox_filter import MACHINES, scanning_program

    for name, scanning in SCANNING.items():
        code = scanning_program(MACHINES[name], scanning, messages=True)
        count = len(code) // 8
        for n in range(count):
            operation, yes, no = int.from_bytes(code[8 * n : 8 * n + 2], "little"), code[8 * n + 2], code[8 * n + 3]
            if operation & 7 == 5:  # a jump
                assert n + 1 + max(yes, no) < count
        assert code[-8:-6] == b"\x06\0"
