"""What the worker can no longer do once it is confined: tried in a real process."""

import os
import platform

import pytest

from stanch.worker.confinement import DONE
from stanch.worker.sandbox_filter import MACHINES
from tests.worker.confined import tried_in

FILTERED = platform.machine() in MACHINES


def tried(what: str, *, without: str = "", before: str = "") -> tuple[dict[str, str], str]:
    """What came of a line of Python in a process that was confined."""
    return tried_in("stanch.worker.confinement.confine()", what, without=without, before=before)


FORBIDDEN = {
    "opens a file": "os.open('/etc/passwd', os.O_RDONLY)",
    "makes a file": "os.open('/tmp/made-by-the-worker', os.O_CREAT | os.O_WRONLY)",
    "lists a folder": "os.listdir('/')",
    "looks at a file": "os.stat('/etc/passwd')",
    "makes a socket": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "makes a local socket": "socket.socketpair()",
    "starts a program": "os.execv('/bin/true', ['/bin/true'])",
    "starts a child": "os.fork()",
    "starts a thread": "threading.Thread(target=print).start()",
    "signals another process": "os.kill(1, 0)",
    "takes its rights back": "os.setuid(0)",
    "makes executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    "opens a descriptor": "os.pipe()",
}


@pytest.mark.skipif(not FILTERED, reason="no filter for this kind of machine")
@pytest.mark.parametrize("what", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_confined_process_can_do_nothing(what: str) -> None:
    """Files, sockets, programs, children, signals: all of it is refused, and the process lives to tell."""
    assert tried(what)[1] in {"PermissionError", "RuntimeError"}


def test_what_it_still_can() -> None:
    """Compute, take memory and give it back."""
    assert tried("assert len(bytes(2**24).hex()) == 2**25")[1] == "done"


def test_every_measure_is_told() -> None:
    """What was done, and what was not, comes with each answer."""
    told, _ = tried("pass")
    assert set(told) == {
        *("network", "user", "dies_with_parent", "no_new_privileges", "landlock", "limits", "seccomp"),
    }
    assert told["no_new_privileges"] == told["limits"] == DONE


def landlocked() -> bool:
    """Has this kernel Landlock?"""
    return tried("pass")[0]["landlock"] == DONE


@pytest.mark.parametrize("what", ["opens a file", "makes a file", "lists a folder"])
def test_landlock_alone_keeps_files_shut(what: str) -> None:
    """Where the filter of system calls fails, no file can be opened all the same."""
    if not landlocked():
        pytest.skip("no Landlock in this kernel")
    assert tried(FORBIDDEN[what], without="_filter_calls _limit")[1] == "PermissionError"


def test_limits_alone_keep_descriptors_and_memory_short() -> None:
    """Without the filter, the limits hold by themselves."""
    alone = "_filter_calls _forbid_files"
    assert tried("os.open('/dev/null', os.O_RDONLY)", without=alone)[1] == "OSError"
    assert tried("bytes(2**30)", without=alone)[1] == "MemoryError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_a_limit_that_is_tighter_already_does_not_loosen_the_others() -> None:
    """As under a unit that bounds the memory of the server: the limits behind it hold, too."""
    before = "import resource; resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20, 400 * 2**20))"
    told, came = tried("os.dup(0)", without="_filter_calls _forbid_files", before=before)
    assert (told["limits"], came) == (DONE, "OSError")


def test_root_becomes_nobody_without_a_network() -> None:
    """It has another user, no groups, and a network in which nothing is."""
    alone = "_filter_calls _limit _forbid_files"
    assert tried("assert os.getresuid() == (65534,) * 3 and os.getgroups() == []", without=alone)[1] == "done"
    assert tried("assert [n for _, n in socket.if_nameindex()] == ['lo']", without=alone)[1] == "done"


def test_a_measure_that_fails_is_told_and_the_next_one_taken() -> None:
    """A kernel that lacks one of them is no reason to leave out the others."""
    lacking = "confining._call = lambda *_: (_ for _ in ()).throw(OSError(38, 'not there'))"
    told, _ = tried("pass", before=lacking)
    assert told["landlock"] == "not there"
    assert told["limits"] == DONE
