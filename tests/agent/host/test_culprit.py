"""Who changed something: described while it is there, bounded, and without what a terminal would obey."""

import os
import signal
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import culprit
from stanch.agent.host.culprit import MAX_NAME, MAX_PARENTS, describe, plain


def test_this_process_is_described():
    """Program, pid, account and parents are there."""
    text = describe(os.getpid())
    assert f"(pid {os.getpid()}, " in text
    assert f"(uid {os.getuid()})" in text or f"uid {os.getuid()}" in text
    assert os.path.realpath(sys.executable) in text
    assert "started by" in text
    assert text.count("started by") <= MAX_PARENTS


def test_a_process_that_is_gone_is_nobody():
    """The number of an ended process, and no number at all, say nothing."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert describe(child.pid) == ""
    assert describe(0) == ""
    assert describe(-1) == ""


def test_a_process_that_has_just_ended_keeps_its_name():
    """A zombie has no program any more, but a name, an account, and a parent."""
    child = subprocess.Popen(["sleep", "100"])
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    text = describe(child.pid)
    child.wait()
    assert text.startswith(f"sleep (pid {child.pid}, ")
    assert f"(pid {os.getpid()})" in text


def test_who_logged_in_is_told(tmp_path):
    """The account of the login, whatever the process has become since; an account without a name by its number."""
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "stat").write_text("7 (ev\nil) S 0 " + "0 " * 60)
    (folder / "loginuid").write_text("4000000000")
    assert describe(7, tmp_path).startswith("ev?il (pid 7, ")
    assert "logged in as uid 4000000000" in describe(7, tmp_path)
    (folder / "loginuid").write_text("4294967295")
    assert "logged in" not in describe(7, tmp_path)
    (folder / "stat").write_text("nonsense")
    assert describe(7, tmp_path) == ""


@given(st.binary(max_size=1000))
def test_what_a_process_chose_is_one_bounded_line(raw):
    """No control character and no line break comes through."""
    text = plain(raw)
    assert len(text) <= MAX_NAME
    assert text.isprintable()


def test_an_account_is_looked_for_in_the_local_file_alone(tmp_path, monkeypatch):
    """The system's library may wait a minute for a directory server that an isolated machine cannot reach."""
    monkeypatch.setattr("pwd.getpwuid", None)
    monkeypatch.setattr(culprit, "PASSWD", tmp_path / "passwd")
    (tmp_path / "passwd").write_text(f"broken\nev\x1bil:x:{os.getuid()}:0::/:/bin/sh\n")
    assert f"ev?il (uid {os.getuid()})" in describe(os.getpid())
    (tmp_path / "passwd").write_bytes(b"\xff" * 100)
    assert f", uid {os.getuid()}" in describe(os.getpid())
