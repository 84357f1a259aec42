"""Is everybody told who may do things as somebody else?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.autorun_sudo import Rule, SudoReader, parse_rule
from stanch.core.autoruns import disabled_line
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("root ALL=(ALL:ALL) ALL", Rule("root", "ALL", "ALL", without_password=False)),
        ("%sudo\tALL=(ALL) NOPASSWD: ALL", Rule("%sudo", "ALL", "ALL", without_password=True)),
        ("a, b host=(www) /bin/x -y, /bin/z", Rule("a, b", "www", "/bin/x -y, /bin/z", without_password=False)),
        ("alice ALL = NOPASSWD:SETENV: /opt/x", Rule("alice", "root", "/opt/x", without_password=True)),
        ("alice ALL=(:disk) /opt/x", Rule("alice", "alice", "/opt/x", without_password=False)),
        ("Defaults env_reset", None),
        ("Defaults:alice !authenticate", None),
        ("User_Alias ADMINS = a, b", None),
        ("@includedir /etc/sudoers.d", None),
        ("#includedir /etc/sudoers.d", None),
        ("# root ALL=(ALL) ALL", None),
        ("#1000 ALL=(ALL) ALL", Rule("#1000", "ALL", "ALL", without_password=False)),
        ("#1000", None),
        ("", None),
    ],
)
def test_a_line_of_sudoers_is_read(text, rule):
    """Who, as whom, what, and whether without a password."""
    assert parse_rule(text) == rule


WORD = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(WORD, WORD, WORD, st.booleans())
def test_what_is_written_is_read(who, as_whom, program, quiet):
    """With any names."""
    tag = "NOPASSWD: " if quiet else ""
    found = parse_rule(f"{who} ALL=({as_whom}) {tag}/opt/{program}")
    assert found == Rule(who, as_whom, f"/opt/{program}", without_password=quiet)


@given(st.text(max_size=300))
def test_any_text_is_a_rule_or_none(text):
    """A rule has somebody."""
    found = parse_rule(text)
    assert found is None or found.who


def told(root):
    return {one.name: (one.path, one.line, one.user, one.enabled, one.notes) for one in root.items(SudoReader())}


def test_sudoers_is_read_with_what_it_includes(root):
    """Files and folders, wherever they are below the root; names with a dot are passed over; circles end."""
    root.write("/etc/sudoers", "#1000 ALL=(ALL) ALL\na ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n#include /opt/more\n")
    root.write("/etc/sudoers.d/x", "b ALL=(ALL) NOPASSWD: \\\n  /opt/x\n@include /etc/sudoers\n")
    root.write("/etc/sudoers.d/old.bak", "c ALL=(ALL) ALL\n")
    root.write("/opt/more", disabled_line("tsk_1", "d ALL=(ALL) ALL") + "\n@include more\n")
    assert told(root) == {
        "#1000": ("/etc/sudoers", 1, "ALL", True, ()),
        "a": ("/etc/sudoers", 2, "ALL", True, ()),
        "b": ("/etc/sudoers.d/x", 1, "ALL", True, ("without a password",)),
        "d": ("/opt/more", 1, "ALL", False, ()),
    }


def test_what_nobody_includes_is_not_enabled(root):
    """A folder that sudoers does not name, and an include that Stanch commented out."""
    root.write("/etc/sudoers", disabled_line("tsk_1", "@include /opt/more"))
    root.write("/etc/sudoers.d/x", "b ALL=(ALL) ALL\n")
    root.write("/opt/more", "c ALL=(ALL) ALL\n")
    assert told(root) == {"b": ("/etc/sudoers.d/x", 1, "ALL", False, ())}


def test_defaults_that_give_away_rights_and_doas_are_told(root):
    """Ordinary defaults are not."""
    root.write("/etc/sudoers", "Defaults env_reset\nDefaults:alice !authenticate\n")
    root.write("/etc/doas.conf", "permit nopass alice as root\n# c\n")
    assert [(one.path, one.line, one.notes) for one in root.items(SudoReader())] == [
        ("/etc/sudoers", 2, ()),
        ("/etc/doas.conf", 1, ("without a password",)),
    ]


def test_hostile_sudoers_end(root):
    """A pipe is told, odd bytes are names, an include leads nowhere out of the root."""
    root.fifo("/etc/sudoers.d/pipe")
    root.write("/etc/sudoers", b"\xff ALL=(ALL) ALL\n@include /../../../../etc/shadow\n@includedir /etc/sudoers.d\n")
    items, unread = root.read(SudoReader())
    assert [one.name for one in items] == ["\udcff"]
    assert [one.path for one in unread] == ["/etc/sudoers.d/pipe"]
