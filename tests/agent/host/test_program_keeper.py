"""Is a keeper started by its own file alone?"""

import subprocess
import sys

from stanch.agent.host.marks import KEEPER_FILES
from stanch.agent.host.program_launch import KEEPER


def test_the_file_is_the_one_that_marks_know():
    """A keeper is recognised by its command line."""
    assert KEEPER.name.encode() in KEEPER_FILES
    assert KEEPER.is_file()


def test_it_ends_where_it_is_given_no_socket():
    """Whoever starts it by hand gets no process that stays."""
    command = [sys.executable, "-I", "-S", str(KEEPER), "tsk_none"]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    assert ended.returncode != 0
