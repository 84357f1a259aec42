"""Is a unit file read as systemd reads it, and any other text without harm?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import autorun_unit_files as module
from stanch.agent.host.autorun_unit_files import (
    assignments,
    command_of,
    drop_in_folders,
    plain,
    pulled,
    settings,
    started_by,
    starts,
    template_of,
)

KEYS = st.sampled_from(["ExecStart", "ExecStartPre", "Wants", "User", "Environment"])
VALUES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=20), st.booleans())
def test_what_is_written_is_read(pairs, continued):
    """In order, with the number of the line in which it begins, be it broken or not."""
    sign = "=\\\n  " if continued else "="
    text = "[Service]\n# comment\n" + "".join(f"{key}{sign}{value}\n" for key, value in pairs)
    found = list(assignments(text))
    assert [(one.section, one.key, one.value) for one in found] == [("Service", *pair) for pair in pairs]
    assert [one.number for one in found] == [3 + n * (2 if continued else 1) for n in range(len(pairs))]


@given(st.text(max_size=500))
def test_any_text_is_read(text):
    """No text is an error, and no assignment has more than stands there."""
    assert all(len(one.value) <= len(text) for one in assignments(text))
    settings([text])


def test_comments_between_lines_that_go_on_are_left_out():
    """As systemd has it."""
    text = "[Service]\nExecStart=/bin/a \\\n# not this\n; nor this\n  --b\n"
    assert [one.value for one in assignments(text)] == ["/bin/a    --b"]


def test_far_too_many_assignments_are_bounded(monkeypatch):
    """The rest is not looked at."""
    monkeypatch.setattr(module, "MAX_ASSIGNMENTS", 3)
    assert len(list(assignments("a=b\n" * 10))) == 3


def test_a_drop_in_adds_and_an_empty_value_takes_back():
    """A list grows, until it is emptied; what there is one of is replaced."""
    unit = "[Service]\nExecStart=/bin/a\nExecStartPre=/bin/pre\nUser=a\n"
    assert settings([unit, "[Service]\nExecStart=\nExecStart=/bin/b\nUser=b\n"]) == {
        "ExecStart": ["/bin/b"],
        "ExecStartPre": ["/bin/pre"],
        "User": ["b"],
    }


def test_all_that_a_service_starts_is_told_the_main_thing_first():
    """Without the signs before a command."""
    unit = settings(["ExecStopPost=-/bin/c\nExecStartPre=+/bin/b x\nExecStart=@/bin/a a0\n"])
    assert starts(unit) == [
        ("ExecStart", "/bin/a a0"),
        ("ExecStartPre", "/bin/b x"),
        ("ExecStopPost", "/bin/c"),
    ]
    assert command_of("x.service", unit) == "/bin/a a0; ExecStartPre=/bin/b x; ExecStopPost=/bin/c"
    assert plain("-!!/bin/a") == "/bin/a"


@pytest.mark.parametrize(
    ("name", "text", "command", "follower"),
    [
        ("x.timer", "OnCalendar=daily\nOnBootSec=5", "OnBootSec=5; OnCalendar=daily; starts x.service", "x.service"),
        ("x.timer", "Unit=y.target", "starts y.target", "y.target"),
        ("x.socket", "ListenStream=22\nService=y.service", "ListenStream=22; starts y.service", "y.service"),
        ("x.path", "PathExists=/a", "PathExists=/a; starts x.service", "x.service"),
        ("x.mount", "What=/dev/a\nWhere=/b", "What=/dev/a; Where=/b", ""),
        ("x.service", "Type=oneshot", "", ""),
    ],
)
def test_an_occasion_is_told_with_what_it_starts(name, text, command, follower):
    """Timers, sockets and paths start a unit of their own name, unless they say another."""
    unit = settings([text])
    assert (command_of(name, unit), started_by(name, unit)) == (command, follower)


def test_a_unit_pulls_in_others():
    """What it wants, and what it waits for on behalf of."""
    unit = settings(["Wants=a.service b.service\nRequires=c.service\nAfter=d.service"])
    assert set(pulled("x.socket", unit)) == {"a.service", "b.service", "c.service", "x.service"}


def test_templates_and_drop_ins_have_their_names():
    """From the general ones to the unit's own."""
    assert template_of("getty@tty1.service") == "getty@.service"
    assert (template_of("getty@.service"), template_of("x.service")) == ("", "")
    assert drop_in_folders("a-b@c.service") == ["service.d", "a-.service.d", "a-b@.service.d", "a-b@c.service.d"]
