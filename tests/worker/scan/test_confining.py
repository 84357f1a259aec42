"""What a worker that scans can no longer do: tried in a real process, confined as it is."""

import os
import platform
from pathlib import Path

import pytest

from stanch.worker.confinement import DONE
from stanch.worker.sandbox_filter import SCANNING
from tests.worker.confined import tried_in

FILTERED = platform.machine() in SCANNING
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")


def tried(what: str, *, memory: bool = False, clamd: bool = False, before: str = "") -> tuple[dict[str, str], str]:
    """What came of some Python in a process that was confined as a scan is."""
    confine = f"stanch.worker.scan.confining.confine_scan(memory={memory}, clamd={clamd})"
    return tried_in(confine, what, before=before)


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
        told, came = tried(what, before=broken)
        assert told["seccomp"] == "none"
        assert came in {"OSError", "PermissionError"}  # a read-only mount, or no right


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


WITH_HANDS = {
    **{name: what for name, what in FORBIDDEN.items() if name not in {"talks to a socket", "starts a child"}},
    "kills its parent": "os.kill(os.getppid(), 0)",
    "becomes readable by others": "assert libc.prctl(4, 1, 0, 0, 0) == 0",
    "makes a namespace": "assert libc.unshare(0x10000000) == 0",
}
ALL_ARE_REFUSED = f"""
for name, what in {WITH_HANDS!r}.items():
    try:
        exec(what, globals())
    except (PermissionError, AssertionError, RuntimeError):
        continue
    raise KeyError(name)
"""
IN_CHILD = """
def in_child(what):
    pid = os.fork()
    if pid == 0:
        try:
            exec(what, globals())
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""
"""Whoever fails there makes its parent fail."""
STAGES = ("{}", "in_child({!r})", "confining.seal()\n{}", "in_child('confining.seal()\\n' + {!r})")
"""Of a worker with other processes: before it and they are sealed, and afterwards."""


def tried_with_hands(stage: str, what: str) -> str:
    """What came of some Python in a worker that may fork, until it is sealed."""
    confine = "stanch.worker.scan.confining.confine_scan(memory=False, clamd=False, hands=True)"
    return tried_in(confine, stage.format(what), before=IN_CHILD)[1]


@pytest.mark.skipif(not FILTERED, reason="no filter for this kind of machine")
@pytest.mark.parametrize("stage", STAGES)
def test_hands_can_change_nothing_and_reach_nobody_either(stage: str) -> None:
    """Neither before they are sealed nor afterwards."""
    assert tried_with_hands(stage, ALL_ARE_REFUSED) == "done"
    assert tried_with_hands(stage, "pair[0].send(b'x')") == "done"
    assert tried_with_hands(stage, "raise KeyError") != "done"


@pytest.mark.skipif(not FILTERED, reason="no filter for this kind of machine")
@pytest.mark.parametrize("what", ["in_child('pass')", "assert libc.prctl(1, 9, 0, 0, 0) == 0"])
def test_whoever_is_sealed_forks_no_more(what: str) -> None:
    """The worker and its hands alike; until then they may, and end with their parents."""
    came = [tried_with_hands(stage, what) == "done" for stage in STAGES]
    assert came == [True, True, False, False]


def test_the_program_of_another_machine_is_well_formed() -> None:
    """Each jump of the filter leads forward, to an instruction that is there."""
    from stanch.worker.sandbox_filter import MACHINES, scanning_program

    for name, scanning in SCANNING.items():
        for forks in (False, True):
            code = scanning_program(MACHINES[name], scanning, messages=True, forks=forks)
            count = len(code) // 8
            for n in range(count):
                operation, yes, no = int.from_bytes(code[8 * n : 8 * n + 2], "little"), code[8 * n + 2], code[8 * n + 3]
                if operation & 7 == 5:  # a jump
                    assert n + 1 + max(yes, no) < count
            assert code[-8:-6] == b"\x06\0"
