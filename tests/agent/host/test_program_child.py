"""Does a child tell why it could not become the program?"""

import errno

import pytest

from stanch.agent.host import programs
from stanch.agent.host.program_child import prctl, write
from stanch.agent.host.program_file import not_executed
from stanch.core.errors import ActionFailed, Unsupported
from stanch.core.types import EndpointPath
from tests.agent.host.run_programs import new_world, shell


def test_the_kernel_says_no():
    """As an error, with its number."""
    with pytest.raises(OSError, match="Invalid argument"):
        prctl(999_999, 0)


def test_a_file_of_the_kernel_is_written(tmp_path):
    """It must exist."""
    (tmp_path / "file").write_text("")
    write(f"{tmp_path}/file", b"1")
    assert (tmp_path / "file").read_text() == "1"
    with pytest.raises(FileNotFoundError):
        write(f"{tmp_path}/none", b"1")


async def test_a_group_that_is_gone_is_told(tmp_path, monkeypatch):
    """It never runs outside of the group in which it was to be."""
    monkeypatch.setattr(programs, "make_group", lambda *_: tmp_path / "gone")
    with new_world(tmp_path) as world:
        with pytest.raises(ActionFailed, match="could not be started") as raised:
            await world.run(shell("true"))
        assert "(group)" in raised.value.got


def test_an_agent_that_is_not_root_says_what_it_needs():
    """Another user cannot be had."""
    error = not_executed("user", errno.EPERM, EndpointPath("/bin/true"))
    assert isinstance(error, Unsupported)
    assert "CAP_SETUID" in error.hint
