"""Is a machine brought down once, told of in the next boot, and not while that would break it?"""

import asyncio

import pytest

from stanch.actions.reboot import Reboot, Shutdown, reboot, shutdown
from stanch.core.action import AfterCrash, Concurrency, Irreversible, Risk, Verdict
from stanch.core.errors import ActionFailed, Expired, Invalid, Protected, Unsupported
from stanch.core.machine import Ending, Hindrance
from stanch.core.types import hours, minutes, seconds
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice
from tests.fakes.waiting import eventually

UPDATE = Hindrance("dpkg is changing packages", grave=True)
MILD = Hindrance("a film is shown", grave=False)


@pytest.fixture
def endpoint():
    return FakeEndpoint()


async def verdict(endpoint, params=None, result=None):
    """What `verify` sees."""
    assert reboot.verify is not None
    return (await reboot.verify(endpoint.host, params or Reboot(), result)).verdict


@pytest.mark.parametrize(
    ("action", "params", "ending"), [(reboot, Reboot(), Ending.REBOOT), (shutdown, Shutdown(), Ending.SHUTDOWN)]
)
async def test_init_is_asked_once_and_the_next_boot_is_told(endpoint, action, params, ending):
    """Both boots are named; the wait for the end is bounded."""
    result = await action(endpoint.host, params)
    assert endpoint.machine.brought_down == [ending]
    assert (result.boot_before, result.boot_now) == ("boot-1", "boot-2")
    assert endpoint.machine.waited == [minutes(2)]
    assert (await action.verify(endpoint.host, params, result)).verdict is Verdict.IN_PLACE


@pytest.mark.parametrize("action", [reboot, shutdown])
def test_it_must_be_typed(action):
    """It is destructive, nothing takes it back, and other tasks do not wait for it."""
    assert action.typed
    assert action.risk is Risk.DESTRUCTIVE
    assert action.after_crash is AfterCrash.VERIFY_THEN_FINISH
    assert action.concurrency is Concurrency.SHARED
    assert isinstance(action.undo, Irreversible)


async def test_the_boot_is_on_the_disk_before_init_is_asked(endpoint):
    """And that it is being asked, right before."""
    await reboot(endpoint.host, Reboot(message="Soon."))
    assert endpoint.life.steps == ["journal.record", "users.tell", "journal.record", "machine.bring_down reboot"]
    assert [one["boot"] for one in endpoint.journal.records] == ["boot-1", "boot-1"]
    assert [one.get("asked", False) for one in endpoint.journal.records] == [False, True]


async def test_people_are_told_if_there_is_something_to_tell(endpoint):
    """Nobody is warned of what is to surprise."""
    endpoint.users.logged_in = 2
    assert (await reboot(endpoint.host, Reboot(message="Save your work."))).told == 2
    assert endpoint.users.told == ["Save your work."]
    endpoint.next_task("tsk_2")
    assert (await reboot(endpoint.host, Reboot())).told == 0
    assert endpoint.users.told == ["Save your work."]


@pytest.mark.parametrize("params", [Reboot(), Reboot(even_if=True)])
async def test_a_container_is_not_brought_down(endpoint, params):
    """It says why, in a dry run as well, and writes nothing down."""
    endpoint.machine.container = "this is a container"
    assert reboot.plan is not None
    for call in (reboot, reboot.plan):
        with pytest.raises(Unsupported, match="this is a container"):
            await call(endpoint.host, params)
    assert endpoint.life.steps == []


async def test_an_update_is_not_interrupted_unless_it_is_said(endpoint):
    """Then it is told what it was done in spite of; what only disturbs is no reason."""
    endpoint.machine.hindered_by = (MILD, UPDATE)
    with pytest.raises(Protected, match=r"dpkg.*even-if"):
        await reboot(endpoint.host, Reboot())
    assert endpoint.machine.brought_down == []
    result = await reboot(endpoint.host, Reboot(even_if=True))
    assert result.hindrances == (MILD.what, UPDATE.what)
    endpoint.machine.hindered_by = (MILD,)
    endpoint.next_task("tsk_2")
    await reboot(endpoint.host, Reboot())
    assert len(endpoint.machine.brought_down) == 2


async def test_an_update_that_began_meanwhile_is_not_interrupted(endpoint):
    """It is looked for again after the wait."""
    looks = iter([(), (UPDATE,)])

    async def hindrances():
        return next(looks)

    endpoint.machine.hindrances = hindrances
    with pytest.raises(Protected, match="dpkg"):
        await reboot(endpoint.host, Reboot())
    assert endpoint.machine.brought_down == []


async def test_an_init_that_does_nothing_is_a_failure(endpoint):
    """The same boot, two minutes later: somebody has to look."""
    endpoint.machine.deaf = True
    with pytest.raises(ActionFailed, match="still up"):
        await reboot(endpoint.host, Reboot())


async def test_a_dry_run_says_who_is_disturbed(endpoint):
    """It brings nothing down."""
    endpoint.machine.hindered_by = (MILD,)
    endpoint.accounts.log_in("alice", 300)
    assert reboot.plan is not None
    plan = await reboot.plan(endpoint.host, Reboot(message="Soon.", delay=minutes(5)))
    assert plan.changes
    assert [one.target for one in plan.steps] == ["Soon.", "boot-1"]
    assert "in 5m" in plan.steps[1].what
    assert plan.warnings == (MILD.what, "Logged in: alice")
    assert endpoint.life.steps == []


@pytest.mark.parametrize(("delay", "good"), [("1s", True), ("1h", True), ("61m", False)])
def test_a_delay_is_an_hour_at_most(delay, good):
    """Longer is what a calendar is for."""
    if good:
        assert reboot.parse({"delay": delay}).delay
    else:
        with pytest.raises(Invalid, match="delay"):
            reboot.parse({"delay": delay})


async def test_while_it_waits_a_cancel_stops_it(endpoint):
    """Nothing was asked of init, and that is what is seen afterwards."""
    waits = asyncio.create_task(reboot(endpoint.host, Reboot(delay=minutes(5))))
    await eventually(lambda: endpoint.progress.told)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    endpoint.journal.restart()
    assert endpoint.machine.brought_down == []
    assert await verdict(endpoint) is Verdict.ABSENT


async def test_after_the_wait_it_is_brought_down(endpoint):
    """As if there had been none."""
    result = await reboot(endpoint.host, Reboot.model_construct(message="", delay=seconds(0.01), even_if=False))
    assert result.boot_now == "boot-2"


async def test_a_cancel_that_comes_too_late_is_not_believed(endpoint):
    """Init goes on, whatever is said to the agent: it counts as done, and is told in the next boot."""
    endpoint.machine.deaf = True
    with pytest.raises(ActionFailed):
        await reboot(endpoint.host, Reboot())
    endpoint.journal.restart()
    assert await verdict(endpoint) is Verdict.IN_PLACE
    endpoint.machine.boot += 1
    result = await reboot(endpoint.host, Reboot())
    assert (result.boot_before, result.boot_now) == ("boot-1", "boot-2")
    assert endpoint.machine.brought_down == [Ending.REBOOT]


async def test_wherever_the_agent_is_killed_there_is_one_more_boot():
    """It is brought down again only if it is still the boot that was to end."""

    async def fresh():
        return FakeEndpoint()

    for endpoint in [
        *await killed_at_every_step(fresh, reboot, Reboot()),
        *await killed_twice(fresh, reboot, Reboot()),
    ]:
        result = await reboot(endpoint.host, Reboot())
        assert (result.boot_before, result.boot_now) == ("boot-1", "boot-2")
        assert endpoint.machine.brought_down == [Ending.REBOOT]


async def test_nothing_was_begun(endpoint):
    """Killed before the first record, nothing can be in place."""
    assert await verdict(endpoint) is Verdict.ABSENT


async def stopped_while_it_waits(endpoint, params):
    """The agent is stopped during the delay, and starts again later."""
    waits = asyncio.create_task(reboot(endpoint.host, params))
    await eventually(lambda: endpoint.progress.told)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    endpoint.journal.restart()


async def test_an_agent_that_starts_days_later_does_not_bring_the_machine_down_by_surprise(endpoint):
    """The boot is still the same, but nobody expects it any more; it is told, and nobody is warned of it."""
    params = Reboot(delay=minutes(5), message="Soon.")
    await stopped_while_it_waits(endpoint, params)
    endpoint.machine.up += hours(72)
    with pytest.raises(Expired, match=r"not brought down.*3d"):
        await reboot(endpoint.host, params)
    assert endpoint.machine.brought_down == []
    assert endpoint.users.told == ["Soon."]


async def test_a_machine_that_slept_through_the_delay_is_not_brought_down_when_it_wakes(endpoint, monkeypatch):
    """The wait itself does not count the time in suspend."""

    async def sleep(_seconds):
        endpoint.machine.up += hours(72)

    monkeypatch.setattr("stanch.actions.reboot.asyncio.sleep", sleep)
    with pytest.raises(Expired, match="not brought down"):
        await reboot(endpoint.host, Reboot(delay=minutes(5)))
    assert endpoint.machine.brought_down == []


async def test_an_agent_that_is_back_at_once_waits_only_for_what_is_left(endpoint, monkeypatch):
    """Each restart would put it off else."""
    params, slept = Reboot(delay=minutes(5)), []
    await stopped_while_it_waits(endpoint, params)
    endpoint.machine.up += minutes(4)

    async def sleep(how_long):
        slept.append(how_long)

    monkeypatch.setattr("stanch.actions.reboot.asyncio.sleep", sleep)
    await reboot(endpoint.host, params)
    assert slept == [60]
    assert endpoint.machine.brought_down == [Ending.REBOOT]


async def test_init_that_was_asked_days_ago_is_not_asked_again(endpoint):
    """A machine that is still up then has a failure to be looked at."""
    endpoint.machine.deaf = True
    with pytest.raises(ActionFailed):
        await reboot(endpoint.host, Reboot())
    endpoint.journal.restart()
    endpoint.machine.up += hours(72)
    with pytest.raises(ActionFailed, match="still up"):
        await reboot(endpoint.host, Reboot())
    assert endpoint.machine.brought_down == [Ending.REBOOT]
