"""Two actions of the kinds that Stanch does not have yet: what must not be repeated, and what must be taken back."""

from stanch.core.action import AfterCrash, Check, Concurrency, Irreversible, Params, Plan, Result, Risk, action
from stanch.core.host import Host

EVERY = {
    "version": 1,
    "risk": Risk.DISRUPTIVE,
    "concurrency": Concurrency.EXCLUSIVE,
    "undo": Irreversible("It is an example."),
    "examples": ("web-01",),
}


class Nothing(Params):
    """Nothing to say."""


class Counted(Result):
    """What was hit."""

    pids: tuple[int, ...]
    """Processes, in order."""


async def _plan(_host: Host, _params: Nothing) -> Plan:
    return Plan(changes=True)


async def _verify(host: Host, _params: Nothing, _result: Counted | None) -> Check:
    found = await host.processes.find(101)
    return Check.of(found is None, "looked for 101")


async def _hit(host: Host) -> Counted:
    await host.journal.record({"begun": True})
    for pid in (100, 101):
        found = await host.processes.find(pid)
        assert found is not None, f"{pid} was hit twice"
        await host.processes.kill(found.id)
    return Counted(pids=(100, 101))


@action("hit_once", after_crash=AfterCrash.UNKNOWN, plan=_plan, verify=_verify, **EVERY)  # type: ignore[arg-type]  # a table
async def hit_once(host: Host, _params: Nothing) -> Counted:
    """Do what must not be done twice."""
    return await _hit(host)


@action("hit_and_revert", after_crash=AfterCrash.REVERT, plan=_plan, verify=_verify, **EVERY)  # type: ignore[arg-type]  # a table
async def hit_and_revert(host: Host, _params: Nothing) -> Counted:
    """Do what has to be taken back when it was cut short."""
    return await _hit(host)
