"""Recovery: what had begun when the agent died ends as its action's after_crash says; deliveries and crashes at random.

Death is simulated here by an agent whose journal and script stop working at once; `killing/` does it with SIGKILL.
"""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stanch.agent.recovery import MAX_ATTEMPTS, recover
from stanch.core.errors import Unavailable
from stanch.core.frames import Report
from stanch.core.host import Host
from stanch.core.task import ANSWER_OF, State, transition
from stanch.core.types import hours
from tests.fakes.agent import Agent, Hold, Machine, Script, order_of, scripted
from tests.fakes.waiting import eventually


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def machine(tmp_path: Path, script: Script) -> Machine:
    return Machine(tmp_path, scripted(script))


@asynccontextmanager
async def dying(machine: Machine) -> AsyncIterator[Agent]:
    """An agent that dies at the end: from then on nothing that it does reaches the disk."""
    async with machine.agent() as agent:
        try:
            yield agent
        finally:
            kill(agent)


def kill(agent: Agent) -> None:
    """End it as far as the disk is concerned."""

    def dead(*_unit: object) -> None:
        raise Unavailable("The agent is dead")

    agent.journal._commit = dead  # type: ignore[assignment]  # this is the crash
    agent.journal._staged = {}


async def begin(agent: Agent, machine: Machine, script: Script, action: str, *, effect: bool = False) -> None:
    """Let a task begin, record, and hang, before or after its effect."""
    hold = Hold()

    async def behave(host: Host) -> None:
        if effect:
            script.effects.append("a")
        await hold(host)

    script.behave["a"] = behave
    await agent.executor.accept(machine.server.order("tsk_1", action))
    await hold.inside.wait()
    script.behave.clear()


CRASHES = {
    # action, was the effect in place?: how it ends, how often it began in all
    ("read", False): (State.DONE, 2),
    ("act", False): (State.DONE, 2),
    ("act", True): (State.DONE, 2),
    ("once", False): (State.UNKNOWN, 1),
    ("once", True): (State.UNKNOWN, 1),
    ("back", False): (State.UNKNOWN, 1),
}


@pytest.mark.parametrize(("action", "effect"), CRASHES)
async def test_a_task_that_had_begun(machine: Machine, script: Script, action: str, effect: bool) -> None:  # noqa: FBT001 - a table
    """Each kind of action ends as its declaration promises, once, even if its order has expired meanwhile."""
    state, times = CRASHES[action, effect]
    async with dying(machine) as agent:
        await begin(agent, machine, script, action, effect=effect)
    machine.endpoint.clock.advance(hours(48))
    async with machine.agent() as agent:
        assert await agent.state("tsk_1") is state
        await agent.executor.accept(machine.server.order("tsk_1", action))
        assert await agent.state("tsk_1") is state
    assert script.begun == ["tsk_1"] * times
    assert len(script.effects) <= 1


async def test_a_full_disk_keeps_no_agent_from_starting(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written down at the start can wait; what is in force cannot."""
    async with machine.agent(recovers=False) as agent:

        async def full(*_arguments: object) -> None:
            raise Unavailable("The agent's journal cannot be written")

        with monkeypatch.context() as patch:
            patch.setattr(agent.journal, "write", full)
            assert await recover(agent.executor) == 0


async def test_what_cannot_be_told_is_unknown(machine: Machine, script: Script) -> None:
    """When verify is blind after a crash, the task is unknown and not run again."""
    async with dying(machine) as agent:
        await begin(agent, machine, script, "act")
    script.blind.add("a")
    async with machine.agent() as agent:
        report = await agent.ended("tsk_1")
        assert (report.state, report.error and report.error.code) == (State.UNKNOWN, "interrupted")
    assert script.begun == ["tsk_1"]


async def test_the_record_of_the_earlier_run_is_shown(machine: Machine, script: Script) -> None:
    """An action that runs again sees what the killed run wrote down, and a first run sees nothing."""
    seen: list[object] = []

    async def look(host: Host) -> None:
        seen.append(host.journal.recorded())

    async with dying(machine) as agent:
        await begin(agent, machine, script, "act")
    script.behave["a"] = look
    async with machine.agent() as agent:
        await agent.ended("tsk_1")
        await agent.executor.accept(machine.server.order("tsk_2", "act"))
        await agent.ended("tsk_2")
    assert seen == [{"key": "a"}, None]


async def test_a_task_that_only_waited_is_judged_anew(machine: Machine, script: Script) -> None:
    """A task that was accepted but had not begun runs after a crash if it is still valid, and is refused if not."""
    async with dying(machine) as agent:
        await begin(agent, machine, script, "once")
        await agent.executor.accept(machine.server.order("tsk_2", "once", valid_for=10**6))
        await agent.executor.accept(machine.server.order("tsk_3", "once", valid_for=60))
    machine.endpoint.clock.advance(hours(1))
    async with machine.agent() as agent:
        assert await agent.state("tsk_2") is State.DONE
        assert await agent.state("tsk_3") is State.REFUSED
    assert script.begun == ["tsk_1", "tsk_2"]


async def test_a_cancel_survives_the_crash(machine: Machine, script: Script) -> None:
    """A task that was being cancelled when the agent died is not run again; if it had begun, a part may be left."""
    hold = script.behave["a"] = Hold(stubborn=True)
    async with dying(machine) as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await hold.inside.wait()
        await agent.executor.accept(machine.server.order("tsk_2", "act"))
        kept = agent.executor._carrier.running["tsk_2"]
        kept.cut_short = lambda: None  # type: ignore[method-assign]  # it dies before it hears of it
        await agent.executor.accept(machine.server.cancel("tsk_2"))
        await agent.executor.accept(machine.server.cancel("tsk_1"))
        kill(agent)
        hold.free.set()
    script.behave.clear()
    script.effects.clear()
    async with machine.agent() as agent:
        assert await agent.state("tsk_1") is State.UNKNOWN
        assert await agent.state("tsk_2") is State.CANCELLED
    assert script.begun == ["tsk_1"]


async def test_a_task_that_kills_the_agent_is_given_up(machine: Machine, script: Script) -> None:
    """A task that was interrupted again and again is unknown in the end, instead of ending the agent for ever."""
    async with dying(machine) as agent:
        await begin(agent, machine, script, "act")
    for _ in range(MAX_ATTEMPTS - 1):
        hold = script.behave["a"] = Hold()
        async with dying(machine) as agent:
            await hold.inside.wait()
    script.behave.clear()
    async with machine.agent() as agent:
        report = await agent.ended("tsk_1")
        assert (report.state, report.error and report.error.code) == (State.UNKNOWN, "interrupted")
    assert len(script.begun) == MAX_ATTEMPTS


async def test_clean_stops_are_no_attempts(machine: Machine, script: Script) -> None:
    """Upgrading the agent ten times does not make a long task suspicious."""
    for _ in range(MAX_ATTEMPTS + 1):
        hold = script.behave["a"] = Hold()
        async with machine.agent() as agent:
            await agent.executor.accept(machine.server.order("tsk_1", "read"))
            await hold.inside.wait()
    script.behave.clear()
    async with machine.agent() as agent:
        assert await agent.state("tsk_1") is State.DONE


async def test_an_action_that_is_gone_after_an_upgrade(machine: Machine, script: Script) -> None:
    """A task whose action the new agent does not know is unknown if it had begun, refused if not."""
    async with dying(machine) as agent:
        await begin(agent, machine, script, "act")
        await agent.executor.accept(machine.server.order("tsk_2", "act"))
    machine.registry = type(machine.registry)([machine.registry["read"]])
    async with machine.agent() as agent:
        assert await agent.state("tsk_1") is State.UNKNOWN
        assert await agent.state("tsk_2") is State.REFUSED


async def test_a_lift_that_was_cut_short_is_told_once(machine: Machine, script: Script) -> None:
    """A lift that had lifted, but not said so, when the agent died says so at the next start."""
    hold = Hold()
    async with dying(machine) as agent:

        async def drop_and_hang(host: Host) -> None:
            await host.effects.drop("e")
            await hold(host)

        script.behave["a"] = drop_and_hang
        await agent.effects.hold(order_of("tsk_0"), "e", lift_action="act", lift_params={}, detail={}, lasts=hours(1))
        machine.endpoint.clock.advance(hours(2))
        async with asyncio.TaskGroup() as group:
            (effect,) = agent.effects.active()
            lifting = group.create_task(agent.executor.lift(effect))
            await hold.inside.wait()
            kill(agent)
            lifting.cancel()
    script.behave.clear()
    async with machine.agent() as agent:
        await eventually(lambda: not agent.executor._carrier.running)
        (notice,) = await agent.notices()
        assert (notice.kind, notice.detail["effect"]) == ("effect-lifted", "e")


# --- at random -------------------------------------------------------------------------------------------------------

TASKS = [f"tsk_{n}" for n in range(4)]
ACTIONS = ["act", "once", "read", "bulk"]


class Deliveries(RuleBasedStateMachine):
    """A server that delivers, cancels, acknowledges; an agent that dies and starts again. The task machine judges."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="stanch-deliveries-"))
        self.script = Script()
        self.machine = Machine(self.folder, scripted(self.script))
        self.states: dict[str, State] = {}
        self.actions: dict[str, str] = {}
        self.deaths = 0
        self.holds: dict[str, Hold] = {}
        self.start()

    def start(self) -> None:
        self.context = self.machine.agent()
        self.agent: Agent = self.loop.run_until_complete(self.context.__aenter__())
        self.settle()

    def do(self, token: str) -> None:
        self.loop.run_until_complete(self.agent.executor.accept(token))
        self.settle()

    def settle(self) -> None:
        """Let everything go on that can: until each open task waits, or waits for one that does."""
        running = self.agent.executor._carrier.running

        def stuck(task: str) -> bool:
            beside = [one for one in running if self.actions[one] in _beside(self.actions[task])]
            stopping = any(one.cancelled for one in running.values())
            return not stopping and any(self.holds[one].inside.is_set() for one in beside)

        self.loop.run_until_complete(eventually(lambda: all(map(stuck, list(running)))))

    @rule(task=st.sampled_from(TASKS), action=st.sampled_from(ACTIONS), hangs=st.booleans())
    def deliver(self, task: str, action: str, hangs: bool) -> None:  # noqa: FBT001 - drawn
        """Deliver a task, new or again: a task has one action for good."""
        action = self.actions.setdefault(task, action)
        if task not in self.holds:
            self.holds[task] = self.script.behave[task] = Hold()
            if not hangs:
                self.holds[task].free.set()
        if task not in self.states or not self.states[task].final:
            self.states.setdefault(task, State.SENT)
            self.do(self.machine.server.order(task, action, params={"key": task}))

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a task that was sent."""
        self.do(self.machine.server.cancel(data.draw(st.sampled_from(sorted(self.states)))))

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        """Let a task that hangs go on."""
        self.holds[data.draw(st.sampled_from(sorted(self.holds)))].free.set()
        self.settle()

    @rule()
    def read_spool(self) -> None:
        """Commit and acknowledge what waits, as the server does."""
        for frame in self.loop.run_until_complete(self.agent.spool.pending(1000)):
            if isinstance(frame, Report):
                self.commit(frame)
            self.loop.run_until_complete(self.agent.spool.ack([frame.seq]))

    def commit(self, report: Report) -> None:
        state = self.states[report.task]
        if report.state is not state:
            # Raises IllegalTransition if the agent contradicts itself.
            self.states[report.task] = transition(state, ANSWER_OF[report.state])

    @rule()
    def die(self) -> None:
        """Kill the agent and start it again."""
        kill(self.agent)
        self.deaths += 1
        self.loop.run_until_complete(self.context.__aexit__(None, None, None))
        self.start()

    @invariant()
    def nothing_twice(self) -> None:
        """What must not be repeated began once; anything else once more per death at most; each effect came once."""
        for task, times in Counter(self.script.begun).items():
            assert times <= (1 if self.actions[task] == "once" else 1 + self.deaths)
        assert len(self.script.effects) == len(set(self.script.effects))

    def teardown(self) -> None:
        for hold in self.holds.values():
            hold.free.set()
        self.settle()
        for task, state in list(self.states.items()):
            if not state.final:
                self.do(self.machine.server.order(task, self.actions[task], params={"key": task}))
        self.read_spool()
        self.loop.run_until_complete(self.context.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)
        self.nothing_lost()

    def nothing_lost(self) -> None:
        """In the end every task that was sent has a final state that tells the truth about its effect."""
        for task, state in self.states.items():
            assert state.final
            changes = self.actions[task] in {"act", "once"}
            if state is State.DONE:
                assert task in self.script.effects
            if state is State.CANCELLED and changes:
                assert task not in self.script.effects


def _beside(action: str) -> set[str]:
    """The actions of the same lane."""
    return {"act", "once"} if action in {"act", "once"} else {action}


Deliveries.TestCase.settings = settings(max_examples=30, stateful_step_count=15)
TestDeliveries = Deliveries.TestCase
