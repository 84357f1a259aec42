"""The keeper's own process: it runs Stanch's code and the standard library, whatever lies about."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from stanch.agent.host import pty
from stanch.agent.host.terminal_keeper import main

HERE = Path(__file__).parent


def keeper(folder: Path, *, first: bytes | None, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run one to its end; the agent says so much and hangs up."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    master, slave = os.openpty()
    try:
        if first is not None:
            ours.send(first)
        ours.close()
        return subprocess.run(
            [sys.executable, "-I", "-S", str(pty.KEEPER), "tsk_test_keeper"],
            stdin=theirs,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=folder,
            check=False,
            timeout=20,
        )
    finally:
        theirs.close()
        for one in (master, slave):
            os.close(one)


def test_nothing_that_lies_about_is_imported(tmp_path):
    """Neither the folder that it is started in nor the environment can put another module in the place of one."""
    for name in ("json", "socket", "stanch", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("import os\nos._exit(99)\n")
    ended = keeper(tmp_path, first=None, environment={"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "json.py"})
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_it_is_started_as_a_script_only():
    """Importing it does nothing; its work is behind `main`."""
    assert callable(main)
    assert pty.KEEPER.name == "terminal_keeper.py"
