"""Is what a process may choose about itself read as bytes, bounded, and never mistaken for the kernel's own fields?"""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.cgroup_names import GroupNames
from stanch.agent.host.procfs import (
    MAX_ARGUMENTS,
    parse_inner_pid,
    parse_stat,
    pids,
    read_outline,
    read_process,
    read_stat,
    read_threads,
    readable,
)
from stanch.core.errors import ActionFailed
from tests.fakes.programs import MAIN_THREAD_ENDS
from tests.fakes.waiting import wait_until

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


def test_a_file_that_is_only_called_deleted_is_not(child, tmp_path):
    """The kernel's remark can be a part of a name: the file is asked, not its name."""
    program = tmp_path / "x (deleted)"
    shutil.copy("/bin/cat", program)
    found = read_process(child(None, command=[program]).pid, account)
    assert (found.executable, found.deleted) == (str(program), False)


@pytest.mark.parametrize("after", ["gone", "another", "named", "whole"])
def test_a_program_that_is_not_at_its_place_is_deleted(child, tmp_path, after):
    """Removed, removed while it has another name, replaced by another file: what runs is not what lies there."""
    program, other = tmp_path / "gone", tmp_path / "other"
    shutil.copy("/bin/cat", program)
    other.hardlink_to(program)
    process = child(None, command=[program])
    if after != "named":
        other.unlink()
    if after != "whole":
        program.unlink()
    if after == "another":
        shutil.copy("/bin/cat", program)
    assert read_process(process.pid, account).deleted is (after != "whole")


def test_a_program_too_deep_down_has_no_path_and_hides_nobody(tmp_path):
    """The kernel tells no path that is longer than a page: the process is told without."""
    process = None
    before, name = Path.cwd(), "d" * 250
    os.chdir(tmp_path)
    try:
        for _ in range(17):
            Path(name).mkdir()
            os.chdir(name)
        shutil.copy("/bin/cat", "deep")
        process = subprocess.Popen(["./deep"], stdin=subprocess.PIPE)
        wait_until(Path(f"/proc/{process.pid}/cmdline").read_bytes)  # it has none until it has begun to run
        found = read_process(process.pid, account)
        assert (found.executable, found.arguments, found.deleted) == (None, "./deep", False)
    finally:
        os.chdir(before)
        if process is not None:
            process.communicate(b"", timeout=20)


def test_unit_and_container_come_from_the_control_groups(child):
    """The text of the kernel is handed over as it is; what it means, another file knows."""
    process, given_text = child(None, command=["/bin/cat"]), []

    def names(text):
        given_text.append(text)
        return GroupNames(unit="x.service", container="4f")

    found = read_process(process.pid, account, names)
    assert (found.unit, found.container) == ("x.service", "4f")
    assert given_text == [Path(f"/proc/{process.pid}/cgroup").read_bytes()]


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        (b"NSpid:\t4711\n", 0),
        (b"NSpid:\t4711\t7\n", 7),
        (b"NSpid:\t4711\t30\t1\n", 1),
        (b"", 0),  # before Linux 4.1
        (b"NSpid:\n", 0),
        (b"NSpid:\t4711\t99999999999999999999\n", 0),
        (b"NSpid:\t4711\t9999999\n", 0),
    ],
)
def test_the_inner_pid_is_the_last_of_several(line, pid):
    """One number for each namespace, from ours inwards."""
    assert parse_inner_pid(b"Name:\tNSpid:\nNgid:\t0\n%sVmPeak:\t1 kB\n" % line) == pid


@given(st.binary(max_size=200))
def test_garbage_has_no_inner_pid_or_a_small_one(raw):
    """No bytes make the parser fail."""
    assert 0 <= parse_inner_pid(raw) <= NOBODY


def test_the_outline_asks_nothing_of_the_process(child):
    """What the kernel says by itself is the same; the rest is empty, and the note is ours."""
    process = child(None, command=["/bin/cat"], until=lambda pid: read_stat(pid).state == "S")
    whole, outline = read_process(process.pid, account), read_outline(process.pid, "why")
    assert outline.id == whole.id
    assert (outline.parent, outline.name, outline.state) == (whole.parent, whole.name, whole.state)
    assert (outline.user, outline.note) == (str(os.geteuid()), "why")
    assert (outline.executable, outline.arguments) == (whole.executable, "")
    assert (outline.unit, outline.container) == (whole.unit, whole.container)
    assert read_outline(NOBODY, "why") is None
