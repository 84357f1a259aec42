"""The release code at the endpoint: the right one opens, whoever types it; guessing is counted, whatever happens."""

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions import load
from stanch.actions.isolate import EFFECT
from stanch.agent.clock import AgentClock
from stanch.agent.journal import Journal
from stanch.agent.release_code import IN_ALL, PER_ACCOUNT, WITHIN_SECONDS, Attempts, ReleaseDoor
from stanch.core.errors import Conflict, Denied, Invalid, NotFound, TooManyRequests, Unavailable
from stanch.core.isolation import CODE_ALPHABET, ReleaseCode, plain_code, show_code
from stanch.core.task import State
from tests.fakes.agent import Agent, Machine

CODE = "7KQ29XTRM4WB0ZHD"
WRONG = "7KQ29XTRM4WB0ZHE"
USER = 1000
SALT = bytes(range(16))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An endpoint in memory, with the real actions."""
    return Machine(tmp_path, load())


def recognising(code: str) -> dict[str, object]:
    """What an order carries for this code."""
    return ReleaseCode.of(code, SALT, iterations=1).model_dump()


async def isolate(machine: Machine, agent: Agent, task: str = "tsk_1", *, code: str | None = CODE) -> None:
    """Isolate the endpoint by an order of the server, with this code."""
    more = {} if code is None else {"release_code": recognising(code)}
    await agent.executor.accept(machine.server.order(task, "isolate", **more))
    assert await agent.state(task) is State.DONE


def door(agent: Agent, *, account: Callable[[int], str] = "user-{}".format) -> ReleaseDoor:
    """The door of this agent."""

    async def lift(requested_by: str) -> bool:
        outcome = await agent.executor.run_own("release", {}, requested_by=requested_by)
        assert outcome.state is State.DONE
        return bool(outcome.result and outcome.result["changed"])

    attempts = Attempts(agent.journal, agent.clock)
    return ReleaseDoor(attempts=attempts, effects=agent.effects, spool=agent.spool, lift=lift, account=account)


async def guess(agent: Agent, times: int, *, uid: int = USER) -> None:
    """Type a wrong code so often."""
    for _ in range(times):
        with pytest.raises(Denied):
            await door(agent).enter(WRONG, uid)


# --- the right code ---


async def test_the_right_code_lifts_and_is_told(machine):
    """The isolation is over, and the server hears who typed the code of which task."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        done = await door(agent).enter(CODE, USER)
        assert (done["changed"], done["task"]) == (True, "tsk_1")
        assert agent.effects.current(EFFECT) is None
        (used,) = await agent.notices("release-code-used")
        assert used.detail == {"task": "tsk_1", "uid": USER, "account": "user-1000"}
        (order,) = await agent.notices("local-order")
        assert order.detail["state"] == "done"
    assert not machine.endpoint.firewall.in_force


@given(st.data())
def test_any_spelling_of_the_code_opens(data):
    """Small letters, spaces, dashes, and letters that look like digits are the same code."""
    code = "".join(data.draw(st.lists(st.sampled_from(CODE_ALPHABET), min_size=16, max_size=16)))
    looks = {"0": "0Oo", "1": "1IiLl", "V": "VvUu"}
    spelled = "".join(
        data.draw(st.sampled_from(["", " ", "-", "\t", "."]))
        + data.draw(st.sampled_from(looks.get(one, one + one.lower())))
        for one in code
    )
    assert ReleaseCode.of(code, SALT, iterations=1).opens(spelled)


@given(st.text(max_size=40) | st.text(CODE_ALPHABET, min_size=16, max_size=16))
def test_nothing_else_opens(typed):
    """Whatever is not the same sixteen characters is refused."""
    assert ReleaseCode.of(CODE, SALT, iterations=1).opens(typed) is (plain_code(typed) == CODE)


@given(st.integers(0, 15), st.sampled_from(CODE_ALPHABET))
def test_one_wrong_character_does_not_open(at, other):
    """Close is not enough."""
    changed = CODE[:at] + other + CODE[at + 1 :]
    assert ReleaseCode.of(CODE, SALT, iterations=1).opens(show_code(changed)) is (changed == CODE)


async def test_the_code_dies_with_its_effect(machine):
    """A later isolation has another task and another code: the old one does not open it."""
    async with machine.agent() as agent:
        await isolate(machine, agent, "tsk_1")
        await door(agent).enter(CODE, USER)
        await isolate(machine, agent, "tsk_2", code="0123456789ABCDEF")
        with pytest.raises(Denied, match="tsk_2"):
            await door(agent).enter(CODE, USER)
        assert agent.effects.current(EFFECT) is not None
        assert (await door(agent).enter("0123456789abcdef", USER))["task"] == "tsk_2"


async def test_a_code_does_not_open_what_came_while_it_was_judged(machine, monkeypatch):
    """Between the judgement and the lift the isolation may be replaced by one that this code is not for."""
    async with machine.agent() as agent:
        await isolate(machine, agent, "tsk_1")
        entrance = door(agent)
        real = agent.effects.current(EFFECT)
        seen = iter([real])
        monkeypatch.setattr(
            agent.effects, "current", lambda _name: next(seen, real.model_copy(update={"task": "tsk_2"}))
        )
        with pytest.raises(Conflict, match="Meanwhile"):
            await entrance.enter(CODE, USER)
    assert machine.endpoint.firewall.in_force


async def test_nothing_to_lift_is_said(machine):
    """Not isolated, or isolated by the machine itself without a code: an error that says which, and no attempt."""
    async with machine.agent() as agent:
        with pytest.raises(NotFound, match="not isolated"):
            await door(agent).enter(CODE, USER)
        await isolate(machine, agent, code=None)
        with pytest.raises(NotFound, match="no release code"):
            await door(agent).enter(CODE, USER)
        assert Attempts(agent.journal, agent.clock).recent() == ()


@pytest.mark.parametrize("typed", ["", "7KQ2", CODE + "7", "ä" * 16, "7" * 10_000])
async def test_a_slip_of_the_hand_costs_no_attempt(machine, typed):
    """What can be no code is not judged."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        for _ in range(IN_ALL + 1):
            with pytest.raises(Invalid):
                await door(agent).enter(typed, USER)
        assert Attempts(agent.journal, agent.clock).recent() == ()


async def test_a_name_service_that_hangs_keeps_nobody_in(machine, monkeypatch):
    """The isolation is lifted, and told with the number of the account."""
    monkeypatch.setattr("stanch.agent.release_code.NAME_WITHIN", 0.0)
    async with machine.agent() as agent:
        await isolate(machine, agent)
        assert (await door(agent).enter(CODE, USER))["changed"]
        (used,) = await agent.notices("release-code-used")
        assert used.detail["account"] == "1000"


# --- wrong codes ---


async def test_an_account_has_five_attempts(machine):
    """The sixth is not even judged, right or not, and the answer says how long to wait; another account may try."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        await guess(agent, PER_ACCOUNT)
        with pytest.raises(TooManyRequests, match="Wait 15m"):
            await door(agent).enter(CODE, USER)
        assert (await door(agent).enter(CODE, USER + 1))["changed"]


async def test_root_is_counted_too(machine):
    """Root need not guess."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        await guess(agent, PER_ACCOUNT, uid=0)
        with pytest.raises(TooManyRequests):
            await door(agent).enter(CODE, 0)


async def test_all_accounts_together_have_twenty(machine):
    """Making accounts makes no attempts."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        for uid in range(USER, USER + IN_ALL):
            await guess(agent, 1, uid=uid)
        with pytest.raises(TooManyRequests):
            await door(agent).enter(CODE, 1)


async def test_attempts_are_forgiven_by_time_alone(machine):
    """The machine's clock may say what it likes: boot time counts."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        await guess(agent, PER_ACCOUNT)
        machine.endpoint.clock.time += timedelta(seconds=WITHIN_SECONDS - 1)
        with pytest.raises(TooManyRequests, match="Wait 1s"):
            await door(agent).enter(CODE, USER)
        machine.endpoint.clock.time += timedelta(seconds=2)
        assert (await door(agent).enter(CODE, USER))["changed"]


async def test_a_right_code_is_no_attempt(machine):
    """Whoever isolates a machine and lets it back ten times a day is not locked out."""
    async with machine.agent() as agent:
        for number in range(PER_ACCOUNT + 1):
            await isolate(machine, agent, f"tsk_{number}")
            assert (await door(agent).enter(CODE, USER))["changed"]


async def test_restarts_and_reboots_forget_nothing(machine):
    """After a reboot nobody knows how long ago it was: the time begins anew."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        await guess(agent, PER_ACCOUNT)
    async with machine.agent() as agent:
        with pytest.raises(TooManyRequests):
            await door(agent).enter(CODE, USER)
    machine.reboot()
    async with machine.agent() as agent:
        with pytest.raises(TooManyRequests, match="Wait 15m"):
            Attempts(agent.journal, agent.clock)._check(Attempts(agent.journal, agent.clock).recent(), PER_ACCOUNT)
        machine.endpoint.clock.time += timedelta(seconds=WITHIN_SECONDS + 1)
        assert Attempts(agent.journal, agent.clock).recent() == ()


async def test_many_at_once_are_judged_one_by_one(machine):
    """A hundred connections do not get a hundred attempts."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        entrance = door(agent)
        ends = await asyncio.gather(*(entrance.enter(WRONG, USER) for _ in range(40)), return_exceptions=True)
    kinds = [type(one) for one in ends]
    assert (kinds.count(Denied), kinds.count(TooManyRequests)) == (PER_ACCOUNT, 40 - PER_ACCOUNT)


async def test_the_server_hears_of_the_first_and_every_fifth(machine):
    """Guessing is told, and cannot fill the spool."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        for uid in (1, 2):
            await guess(agent, PER_ACCOUNT, uid=uid)
        told = [one.detail["attempts"] for one in await agent.notices("release-code-refused")]
    assert told == [1, 5, 10]


@pytest.mark.parametrize("kept", [[], {"boot_id": 1}, {"boot_id": "b", "attempts": [{"uid": "x"}]}, "x"])
async def test_a_damaged_entry_counts_nothing(machine, kept):
    """It is ours alone to write; what cannot be read must not keep the right code out."""
    async with machine.agent() as agent:
        await agent.journal.put({"release-attempts": kept})
        assert Attempts(agent.journal, agent.clock).recent() == ()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 600)), max_size=60))
def test_nobody_gets_more_than_the_limit_in_any_window(tmp_path_factory, tries):
    """Whoever tries whenever: in no 15 minutes more than 5 of one account are judged, or 20 of all."""
    folder = tmp_path_factory.mktemp("attempts")
    asyncio.run(_try_all(folder / "journal.db", tries))


async def _try_all(path: Path, tries: list[tuple[int, int]]) -> None:
    journal, now, judged = Journal(path), 0.0, list[tuple[float, int]]()
    attempts = Attempts(journal, AgentClock(journal, lambda: now, "boot"))
    try:
        for uid, pause in tries:
            now += pause
            try:
                await attempts.begin(uid)
            except TooManyRequests:
                continue
            judged.append((now, uid))
            window = [who for at, who in judged if at > now - WITHIN_SECONDS]
            assert len(window) <= IN_ALL
            assert window.count(uid) <= PER_ACCOUNT
    finally:
        await journal.close()


# --- kill -9 ---


def _guess_and_die(path: Path, step: str) -> None:
    """Begin an attempt in this process, and be killed at a step of the journal."""

    def die(at: str) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    async def begin() -> None:
        journal = Journal(path, step=die)
        await Attempts(journal, AgentClock(journal, lambda: 100.0, "boot")).begin(USER)

    asyncio.run(begin())


@pytest.mark.parametrize(("step", "counted"), [("before commit: entries", 0), ("after commit: entries", 1)])
def test_kill_9_wins_no_attempt(tmp_path, step, counted):
    """Killed before the attempt is on the disk: it was not judged. Killed after: it counts, judged or not."""
    path = tmp_path / "journal.db"
    asyncio.run(Journal(path).close())
    child = os.fork()
    if child == 0:
        try:
            _guess_and_die(path, step)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL

    async def recent() -> int:
        journal = Journal(path)
        try:
            return len(Attempts(journal, AgentClock(journal, lambda: 101.0, "boot")).recent())
        finally:
            await journal.close()

    assert asyncio.run(recent()) == counted


async def test_the_attempt_is_on_the_disk_before_it_is_judged(machine, monkeypatch):
    """Whoever watches the judge sees that the journal holds the attempt already."""
    seen: list[int] = []

    def opens(_self: ReleaseCode, _typed: str) -> bool:
        other = Journal(machine.folder / "journal.db")
        seen.append(len(other.get("release-attempts")["attempts"]))
        asyncio.run(other.close())
        return False

    async with machine.agent() as agent:
        await isolate(machine, agent)
        monkeypatch.setattr(ReleaseCode, "opens", opens)
        with pytest.raises(Denied):
            await door(agent).enter(WRONG, USER)
    assert seen == [1]


async def test_a_disk_that_takes_nothing_more_does_not_keep_in_who_has_the_code(machine, monkeypatch):
    """The attempt was written down; that it was a right one, and the notice, may be lost."""
    async with machine.agent() as agent:
        await isolate(machine, agent)
        one = door(agent)

        async def full(*_arguments: object) -> None:
            raise Unavailable("The agent's journal cannot be written")

        monkeypatch.setattr(one._attempts, "forgive", full)
        monkeypatch.setattr(one._spool, "put", full)
        assert (await one.enter(CODE, USER))["changed"]
        assert agent.effects.current(EFFECT) is None


async def test_an_attempt_that_cannot_be_written_down_is_not_judged(machine, monkeypatch):
    """Else a full disk would be a licence to guess."""
    async with machine.agent() as agent:
        await isolate(machine, agent)

        async def full(*_arguments: object) -> None:
            raise Unavailable("The agent's journal cannot be written")

        with monkeypatch.context() as patch:
            patch.setattr(agent.journal, "write", full)
            patch.setattr(ReleaseCode, "opens", None)
            with pytest.raises(Unavailable):
                await door(agent).enter(CODE, USER)
