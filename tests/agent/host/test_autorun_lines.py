"""Entries that are commented out and come back: any bytes, any place in the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.autorun_lines import (
    before,
    commented,
    entry_at,
    find,
    same_entries,
    uncommented,
    why_not_in_block,
    why_not_in_pam,
    why_not_in_shell,
)
from stanch.core.autoruns import MAX_ENTRY, Place
from stanch.core.errors import Conflict, StanchError, TooLarge, Unsupported

TASK = "tsk_1"
MARK = b"# stanch-disabled tsk_1: "

line_bytes = st.one_of(
    st.binary(max_size=30).map(lambda one: one.replace(b"\n", b"")),
    st.sampled_from([b"* * * * * root /tmp/x", b"a", b" a ", b"a\r", b"a \\", b"", b"# c", MARK + b"a", b"\xff\xfe"]),
)
texts = st.lists(line_bytes, max_size=12).map(b"\n".join)
places = st.sampled_from([Place.CRON, Place.SSH_KEY, Place.SUDO, Place.PAM])


def chosen(content: bytes, number: int, place: Place = Place.CRON) -> list[bytes]:
    """What is disabled if this line is chosen."""
    return same_entries(content, entry_at(content, number, place), place)


@given(content=texts, number=st.integers(1, 12), place=places)
def test_what_is_commented_out_comes_back_byte_for_byte(content: bytes, number: int, place: Place) -> None:
    """Whatever the text is, commenting out any entry of it and taking that back gives the very same bytes."""
    try:
        entries = chosen(content, number, place)
    except StanchError:
        return
    if b"\n" + MARK in b"\n" + content:
        return  # another entry of the same task: see below
    changed = commented(content, entries, TASK, place)
    assert changed != content
    assert before(changed, TASK) == content
    assert uncommented(changed, entries, TASK, place) == content
    assert commented(changed, entries, TASK, place) == changed
    assert find(changed, entries, TASK, place).live == ()


@given(content=texts, above=texts, below=texts)
def test_what_changed_meanwhile_stays(content: bytes, above: bytes, below: bytes) -> None:
    """An entry comes back where its mark is, and what others have written around it stays."""
    if b"stanch" in content + above + below:
        return
    try:
        entries = chosen(content, 1)
    except StanchError:
        return
    now = b"\n".join((above, commented(content, entries, TASK, Place.CRON), below))
    assert uncommented(now, entries, TASK, Place.CRON) == b"\n".join((above, content, below))


def test_only_the_chosen_entry_is_commented_out() -> None:
    """Every other line stays, also one that only begins like it."""
    content = b"a\nab\n\nb a"
    assert commented(content, chosen(content, 1), TASK, Place.CRON) == MARK + b"a\nab\n\nb a"


def test_a_line_that_is_there_twice_does_not_go_on_by_its_twin() -> None:
    """The same line, with other spaces around it too, is one autorun: all of them are commented out."""
    content = b"a\n x \nx\nx\r\n"
    changed = commented(content, chosen(content, 3), TASK, Place.CRON)
    assert changed == b"a\n" + MARK + b" x \n" + MARK + b"x\n" + MARK + b"x\r\n"
    assert uncommented(changed, chosen(content, 3), TASK, Place.CRON) == content


def test_an_entry_of_several_lines_is_one() -> None:
    """Where a backslash continues a line, all of its lines are commented out, and come back; and not in a crontab."""
    content = b"u ALL = /bin/a, \\\n  /bin/b\nv ALL = ALL"
    changed = commented(content, chosen(content, 1, Place.SUDO), TASK, Place.SUDO)
    assert changed == MARK + b"u ALL = /bin/a, \\\n" + MARK + b"  /bin/b\nv ALL = ALL"
    assert chosen(content, 1, Place.CRON) == [b"u ALL = /bin/a, \\"]


def test_the_same_words_within_another_entry_stay() -> None:
    """A line that says the same, but goes on from the one above it, is neither commented out nor brought back."""
    content = b"u ALL = a, \\\nb\nb"
    changed = commented(content, chosen(content, 3, Place.SUDO), TASK, Place.SUDO)
    assert changed == b"u ALL = a, \\\nb\n" + MARK + b"b"
    both = commented(changed, chosen(content, 1, Place.SUDO), TASK, Place.SUDO)
    assert uncommented(both, [b"b"], TASK, Place.SUDO) == MARK + b"u ALL = a, \\\n" + MARK + b"b\nb"


def test_the_middle_of_an_entry_is_none() -> None:
    """A line that belongs to the one above it cannot be taken alone."""
    with pytest.raises(Unsupported, match="part of a longer one"):
        entry_at(b"u ALL = a, \\\n b", 2, Place.SUDO)


@pytest.mark.parametrize(("content", "number"), [(b"", 1), (b"a\n\n", 2), (b"a", 2), (b"a", 0)])
def test_a_line_that_is_not_there(content: bytes, number: int) -> None:
    """An empty line, or one behind the end, is a conflict: the file is another one by now."""
    with pytest.raises(Conflict, match="not there any more"):
        entry_at(content, number, Place.CRON)


def test_a_line_is_disabled_once() -> None:
    """What another task commented out is not commented out again."""
    with pytest.raises(Conflict, match="already"):
        entry_at(b"# stanch-disabled tsk_0: a", 1, Place.CRON)


def test_a_line_has_a_bound() -> None:
    """A line longer than an effect can hold is refused."""
    with pytest.raises(TooLarge):
        entry_at(b"x" * (MAX_ENTRY + 1), 1, Place.CRON)


def test_two_entries_of_one_task_come_back_one_by_one() -> None:
    """Of two entries that one task commented out, enabling one leaves the other disabled."""
    content = b"a\nb"
    both = commented(commented(content, [b"a"], TASK, Place.CRON), [b"b"], TASK, Place.CRON)
    assert before(both, TASK) == content
    assert uncommented(both, [b"b"], TASK, Place.CRON) == MARK + b"a\nb"


@pytest.mark.parametrize(
    ("script", "number", "why"),
    [
        (b"curl x | sh", 1, None),
        (b"PATH=/bin\n/tmp/x &\nexport PATH", 2, None),
        (b"if true; then\n/tmp/x\nfi", 1, "a part of a block"),
        (b"if true; then\n/tmp/x\nfi", 2, "all that a block"),
        (b"if true; then\n/tmp/x\n/tmp/y\nfi", 2, None),
        (b"if true; then\n# a\n/tmp/x\n\nfi", 3, "all that a block"),
        (b"f() {\n/tmp/x\n}", 2, "all that a block"),
        (b"true &&\n/tmp/x", 2, "all that a block"),
        (b"cat <<EOF\nx\nEOF", 1, "a part of a block"),
    ],
)
def test_a_script_stays_a_script(script: bytes, number: int, why: str | None) -> None:
    """A line is not commented out where the rest would be no script any more."""
    found = why_not_in_shell(script, number)
    assert found is None if why is None else found is not None and why in found


@pytest.mark.parametrize(("number", "stays"), [(1, True), (2, False), (3, True), (4, False)])
def test_a_block_in_braces_stays_one(number: int, *, stays: bool) -> None:
    """The lines that open and close a block of apt.conf cannot be commented out alone; those within can."""
    content = b'DPkg::Post-Invoke {\n  "/tmp/x";\n};\nAPT::Update::Pre-Invoke {"/tmp/x"};'
    assert (why_not_in_block(content, number) is not None) is stays


PAM = b"""auth\t[success=2 default=ignore]\tpam_unix.so
auth optional pam_evil.so
auth requisite pam_deny.so
auth required pam_permit.so
session optional pam_exec.so /tmp/x
-auth optional pam_cap.so
"""


@pytest.mark.parametrize(("number", "jumped"), [(1, False), (2, True), (3, True), (4, False), (5, False), (6, False)])
def test_nobody_jumps_further_in_pam(number: int, *, jumped: bool) -> None:
    """A module over which another one jumps cannot be commented out: one more would be left out."""
    assert (why_not_in_pam(PAM, number) is not None) is jumped
