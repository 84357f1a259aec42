"""The values that say what to run, and how it ended."""

import pytest
from pydantic import ValidationError

from stanch.core.programs import Exit, Program, Resources
from stanch.core.types import EndpointPath


def test_any_limit_is_a_limit() -> None:
    """Also the smallest."""
    assert not Resources().limited
    assert all(one.limited for one in (Resources(memory=0), Resources(cpu_percent=0), Resources(processes=0)))


def test_a_program_gets_little_by_default() -> None:
    """Ten MiB of each stream, no user but the agent's, nothing that outlives it."""
    one = Program(path=EndpointPath("/bin/true"))
    assert (one.keep, one.user, one.outlives, one.resources.limited) == (10 * 1024 * 1024, None, False, False)


@pytest.mark.parametrize("wrong", [{"code": 256}, {"code": -1}, {"signal": "x" * 21}, {"seconds": -1}])
def test_an_end_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    """The kernel knows no others."""
    with pytest.raises(ValidationError):
        Exit.model_validate(wrong)
