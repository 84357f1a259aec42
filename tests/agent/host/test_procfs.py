"""Is what a process may choose about itself read as bytes, bounded, and never mistaken for the kernel's own fields?"""

import os
import shutil
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.procfs import MAX_ARGUMENTS, parse_stat, pids, read_process, read_stat, read_threads, readable
from stanch.core.errors import ActionFailed
from tests.fakes.programs import MAIN_THREAD_ENDS

FIELDS = "S 7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 121702 9932800 50 18446744073709551615 0"
NOBODY = 4_194_304


def account(uid):
    return f"uid-{uid}"


@given(st.binary(max_size=64), st.integers(1, NOBODY))
def test_any_name_is_read_back(name, pid):
    """Parentheses, spaces, newlines and odd bytes in a name do not move the fields behind it."""
    stat = parse_stat(b"%d (%s) %s\n" % (pid, name, FIELDS.encode()))
    assert (stat.pid, stat.name, stat.state, stat.parent, stat.started) == (pid, name, "S", 7, 121702)
    assert (stat.threads, stat.memory, stat.kernel_thread) == (3, 50 * os.sysconf("SC_PAGE_SIZE"), False)


def test_a_kernel_thread_is_known_by_its_flag():
    """PF_KTHREAD among the flags tells, not the name or the parent."""
    assert parse_stat(b"9 (kworker/0:1) " + FIELDS.replace("4194560", "69238880").encode()).kernel_thread


@pytest.mark.parametrize("raw", [b"", b"1", b"1 (x", b"x (x) " + FIELDS.encode(), b"1 (x) S 1", b"1 (x) S one 2 3"])
def test_what_is_no_stat_line_is_an_error(raw):
    """The message shows what was found."""
    with pytest.raises(ActionFailed, match="form that we do not know"):
        parse_stat(raw)


@given(st.binary(max_size=300))
def test_garbage_is_read_or_refused_and_nothing_else(raw):
    """No bytes make the parser fail in another way."""
    with suppress(ActionFailed):
        assert parse_stat(raw).state


@given(st.binary(max_size=100))
def test_readable_text_can_be_sent(raw):
    """Whatever the bytes, the text has a UTF-8 form."""
    assert len(readable(raw).encode("utf-8")) >= len(raw)


def test_reads_itself():
    """The test's own process is found, with its parent, and all its threads."""
    mine = read_process(os.getpid(), account)
    assert mine is not None
    assert (mine.pid, mine.parent, mine.user) == (os.getpid(), os.getppid(), f"uid-{os.geteuid()}")
    assert mine.memory > 1_000_000
    assert os.getpid() in pids()
    assert os.getpid() in [thread.pid for thread in read_threads(os.getpid())]


def test_nobody_is_none():
    """A pid that nobody has is no error."""
    assert read_process(NOBODY, account) is None
    assert read_stat(NOBODY) is None
    assert list(read_threads(NOBODY)) == []


def test_a_thread_that_lives_on_shows_the_program(child):
    """A process whose main thread has ended looks like a zombie; its program and arguments are shown all the same."""
    hidden = child(
        MAIN_THREAD_ENDS,
        until=lambda pid: read_stat(pid).state == "Z",
    )
    shown = read_process(hidden.pid, account)
    assert shown.state in "RS"
    assert "python" in shown.executable
    assert "threading" in shown.arguments


def test_a_long_command_line_is_cut(child):
    """What is shown is bounded, and the cut can be seen."""
    long = child("print('ready', flush=True); input()", "x" * 100_000)
    shown = read_process(long.pid, account).arguments
    assert len(shown) == MAX_ARGUMENTS
    assert shown.endswith("x…")


def test_odd_bytes_and_blanks_in_arguments_are_quoted(child):
    """Arguments look as they would be typed; bytes that are no text are escaped."""
    odd = child("print('ready', flush=True); input()", b"\xff\xfe", "", "two words")
    assert read_process(odd.pid, account).arguments.endswith(r" '\xff\xfe' '' 'two words'")


def test_a_hostile_name_changes_no_other_field(child):
    """A process that names itself like a stat line is still shown with its own parent."""
    name = rb"x) R 1 1 (\n"
    liar = child(f"import ctypes; ctypes.CDLL(None).prctl(15, {name!r}); print('ready', flush=True); input()")
    shown = read_process(liar.pid, account)
    assert (shown.name, shown.parent) == (name.decode(), os.getpid())


def test_a_deleted_program_says_so(child, tmp_path):
    """Running a file and removing it is a habit of malware: the kernel's remark stays."""
    program = tmp_path / "gone"
    shutil.copy("/bin/cat", program)
    process = child(None, command=[program])
    program.unlink()
    assert read_process(process.pid, account).executable == f"{program} (deleted)"
