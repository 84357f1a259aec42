"""The shell: opened as ordered, written down before it begins, and closed only when nothing of it runs."""

import pytest

from stanch.actions.shell import ClosedShell, OpenShell, shell
from stanch.core.action import Irreversible, Risk, Verdict
from stanch.core.errors import Invalid, Unavailable
from stanch.core.processes import ProcessId
from stanch.core.terminal import Closed, Why
from stanch.core.types import hours, minutes
from tests.fakes.host import FakeEndpoint
from tests.fakes.life import AgentKilled


def params(**more) -> OpenShell:
    return shell.parse(more)


def test_it_is_declared_as_what_it_is():
    """Destructive, switched on by the owner only, for one endpoint at a time, and not to be undone."""
    assert shell.risk is Risk.DESTRUCTIVE
    assert shell.opt_in
    assert shell.interactive
    assert isinstance(shell.undo, Irreversible)


async def test_the_order_reaches_the_terminal():
    """Every parameter is what the terminal is asked for."""
    end = FakeEndpoint()
    closed = Closed(why=Why.EXIT, code=3, pid=4711, sent=42, received=5)
    end.terminals.closes = closed
    order = params(user="www", program="/bin/bash", folder="/srv", columns=100, rows=30, idle="5m", lasts="1h")
    result = await shell(end.host, order)
    (opened,) = end.terminals.opened
    assert (opened.user, opened.program, opened.folder) == ("www", "/bin/bash", "/srv")
    assert (opened.columns, opened.rows, opened.idle, opened.lasts) == (100, 30, minutes(5), hours(1))
    assert result == ClosedShell(why=Why.EXIT, code=3, process=ProcessId(pid=4711, started=1), sent=42, received=5)


async def test_the_defaults_are_root_with_its_own_shell():
    """Nothing said means root's login shell, and limits that end it."""
    end = FakeEndpoint()
    await shell(end.host, params())
    (opened,) = end.terminals.opened
    assert (opened.user, opened.program, opened.folder) == (None, None, None)
    assert (opened.idle, opened.lasts) == (minutes(15), hours(8))


@pytest.mark.parametrize(
    "wrong", [{"columns": 0}, {"rows": 1001}, {"idle": "0s"}, {"program": "bash"}, {"user": ""}, {"lasts": "24h"}]
)
def test_what_no_terminal_can_be_is_invalid(wrong):
    """Sizes, limits and paths are checked before anything is sent."""
    with pytest.raises(Invalid):
        params(**wrong)


async def test_its_process_is_written_down_before_it_begins():
    """If the agent dies as the shell begins, the record says which process that was."""
    end = FakeEndpoint()
    end.life.ends_at = 3  # started, recorded, and dead before it runs
    with pytest.raises(AgentKilled):
        await shell(end.host, params())
    assert end.life.steps == ["terminals.start", "journal.record"]
    assert end.journal.records == [{"shell": {"pid": 4711, "started": 1}}]


async def test_a_server_that_cannot_be_joined_is_the_answer():
    """The error is told as it is, and nothing was written down."""
    end = FakeEndpoint()
    end.terminals.fails = Unavailable("nobody there")
    with pytest.raises(Unavailable):
        await shell(end.host, params())
    assert end.journal.records == []


async def test_verify_sees_what_still_runs():
    """Closed means that neither the shell nor anything that it started runs."""
    end = FakeEndpoint()
    result = await shell(end.host, params())
    assert (await shell.verify(end.host, params(), result)).verdict is Verdict.IN_PLACE
    job = end.processes.add(500)
    end.processes.started_by[job.pid] = end.task
    check = await shell.verify(end.host, params(), result)
    assert check.verdict is Verdict.ABSENT
    assert "500" in check.detail


async def test_verify_after_a_crash_goes_by_the_record():
    """The record tells which process to look for; another one with its number is not it."""
    end = FakeEndpoint()
    assert (await shell.verify(end.host, params(), None)).detail == "no shell was started"
    one = end.processes.add(4711)
    end.journal.earlier = {"shell": one.model_dump()}
    assert (await shell.verify(end.host, params(), None)).verdict is Verdict.ABSENT
    end.processes.add(4711)
    assert (await shell.verify(end.host, params(), None)).verdict is Verdict.IN_PLACE


async def test_the_dry_run_says_that_it_is_recorded_and_what_would_fail():
    """Before saying yes, a person knows what is kept, and whether it could work."""
    end = FakeEndpoint()
    plan = await shell.plan(end.host, params(program="/bin/bash", user="www"))
    assert plan.changes
    assert (plan.steps[0].what, plan.steps[0].target) == ("Open a terminal as www with", "/bin/bash")
    assert any("recorded" in one for one in plan.warnings)
    end.terminals.refusal = "There is no such user"
    plan = await shell.plan(end.host, params())
    assert not plan.changes
    assert plan.warnings[0] == "Will fail: There is no such user"
    assert end.life.steps == []
