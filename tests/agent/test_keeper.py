"""The keeper: what is written down is in the kernel, whoever changes the kernel."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import pytest

from stanch import actions
from stanch.actions.isolate import EFFECT
from stanch.agent.host.tables_watch import Addresses, Change, Devices, Foreign, Lost
from stanch.agent.keeper import TELL_EVERY, Keeper, OneAtATime
from stanch.core.errors import ActionFailed, Invalid, TargetGone
from stanch.core.isolation import Phase
from stanch.core.network import IsolationState, Peer, Resolved
from stanch.core.types import hours, seconds
from tests.fakes.agent import Agent, Machine
from tests.fakes.host import SERVER, FakeFirewall, FakeNames, socket_to
from tests.fakes.waiting import eventually

FLUSH = Foreign(what="table inet stanch deleted", pid=4711, name="nft", who="nft by root")
MOVED = Peer(address=ip_address("192.0.2.99"), port=8443)


@dataclass
class WatchedFake(FakeFirewall):
    """A fake firewall whose changes a test makes."""

    changes: asyncio.Queue[Change] = field(default_factory=asyncio.Queue)
    applied: int = 0
    blocks_applied: int = 0
    missing_groups: set[str] = field(default_factory=set)

    async def watch(self) -> AsyncIterator[Change]:
        """Whatever a test puts into the queue."""
        while True:
            yield await self.changes.get()

    async def isolate(self, rules, **options):
        """Counted; TargetGone for a control group that is missing."""
        if self.missing_groups & {one.cgroup for one in rules.allow}:
            raise TargetGone("There is no such control group")
        await super().isolate(rules, **options)
        self.applied += 1

    async def block(self, *arguments, **options):
        """Counted."""
        await super().block(*arguments, **options)
        self.blocks_applied += 1

    def flush(self) -> None:
        """Somebody removes everything."""
        self.rules = self.until = None
        self.blocked = ()
        self.changes.put_nowait(FLUSH)


@dataclass
class Kept:
    """An agent with its keeper."""

    machine: Machine
    agent: Agent
    keeper: Keeper
    firewall: WatchedFake

    async def order(self, action: str, **params: object) -> None:
        """Have an order done."""
        task = f"tsk_{action}_{len(params)}_{self.firewall.applied}_{self.firewall.blocks_applied}"
        await self.agent.executor.accept(self.machine.server.order(task, action, params=params))
        assert (await self.agent.state(task)).value == "done"


@pytest.fixture
def machine(tmp_path):
    """An endpoint whose firewall can be watched."""
    made = Machine(tmp_path, actions.load())
    one = made.endpoint
    one.firewall = WatchedFake(life=one.life, clock=one.clock)
    return made


@asynccontextmanager
async def kept(
    machine: Machine, *, runs: bool = True, mark: Callable[[bool], None] = lambda _on: None
) -> AsyncIterator[Kept]:
    """The agent runs, and its keeper."""
    one = machine.endpoint
    turn = OneAtATime(one.firewall)
    real, one.firewall = one.firewall, turn
    try:
        async with machine.agent() as agent:
            one.firewall = turn
            keeper = Keeper(
                firewall=real,
                turn=turn.lock,
                names=one.names,
                server=one.server,
                effects=agent.effects,
                spool=agent.spool,
                clock=agent.clock,
                mark=mark,
            )
            machine.endpoint.firewall = turn
            running = asyncio.create_task(keeper.run()) if runs else None
            yield Kept(machine, agent, keeper, real)
            if running is not None:
                running.cancel()
    finally:
        one.firewall = real


async def test_a_flush_by_others_is_repaired_and_told(machine):
    """The rules are back, and the server hears who did it."""
    async with kept(machine) as one:
        await one.order("isolate")
        before = one.firewall.applied
        one.firewall.flush()
        await eventually(lambda: one.firewall.in_force and one.firewall.applied > before)
        await eventually(one.agent.spool.changed.is_set)
        (notice,) = await one.agent.notices("isolation-tampered")
        assert notice.detail["who"] == "nft by root"
        assert (notice.detail["pid"], notice.detail["repaired"]) == (4711, True)
        told = await one.keeper.status()
        assert told.state is IsolationState.ISOLATED
        assert told.tampered.what == FLUSH.what


async def test_the_deadline_is_not_moved_by_a_repair(machine):
    """What is put back lasts as long as what was removed would have."""
    async with kept(machine) as one:
        await one.order("isolate", duration="2h")
        until = one.firewall.until
        machine.endpoint.clock.advance(hours(1))
        one.firewall.flush()
        await eventually(lambda: one.firewall.in_force)
        assert one.firewall.until == until


async def test_a_flush_after_the_release_is_nobodys_business(machine):
    """Nothing is put back, nothing is told."""
    async with kept(machine) as one:
        await one.order("isolate")
        await one.order("release")
        applied = one.firewall.applied
        one.firewall.flush()
        one.firewall.changes.put_nowait(Devices())
        await eventually(one.firewall.changes.empty)
        await one.keeper.look_again()
        assert one.firewall.applied == applied
        assert not one.firewall.in_force
        assert not await one.agent.notices("isolation-tampered")


async def test_somebody_who_flushes_in_a_loop_does_not_fill_the_spool(machine):
    """Each flush is repaired; one notice in ten seconds tells how many there were."""
    async with kept(machine) as one:
        await one.order("isolate")
        for number in range(20):
            one.firewall.flush()
            await eventually(lambda number=number: one.firewall.applied >= 3 + number)
        await eventually(one.firewall.changes.empty)
        assert len(await one.agent.notices("isolation-tampered")) == 1
        machine.endpoint.clock.advance(TELL_EVERY)
        one.firewall.flush()
        await eventually(lambda: one.firewall.applied >= 23)
        await eventually(lambda: one.keeper._untold == 0)
        last = (await one.agent.notices("isolation-tampered"))[-1]
        assert last.detail["more_before"] == 19


@pytest.mark.parametrize("change", [Devices(), Lost()])
async def test_a_new_device_is_covered_without_a_detection(machine, change):
    """The rules are applied again, for the devices that there are now; nobody is accused."""
    async with kept(machine) as one:
        await one.order("isolate")
        before = one.firewall.applied
        one.firewall.changes.put_nowait(change)
        await eventually(lambda: one.firewall.applied > before)
        assert not await one.agent.notices("isolation-tampered")


async def test_rules_that_were_removed_while_the_agent_was_dead_come_back(machine):
    """The next agent finds them gone, puts them back before anything else, and says that it does not know who."""
    async with kept(machine) as one:
        await one.order("isolate")
    machine.endpoint.firewall.rules = None
    async with kept(machine) as one:
        await eventually(lambda: one.firewall.in_force)
        await eventually(lambda: one.keeper._tampered is not None)
        (notice,) = await one.agent.notices("isolation-tampered")
        assert notice.detail["who"] == "unknown"


async def test_after_a_restart_of_the_machine_nobody_is_accused(machine):
    """The kernel's tables are gone with the kernel; the isolation goes on for what is left of it."""
    async with kept(machine) as one:
        await one.order("isolate", duration="2h")
        machine.endpoint.clock.advance(hours(1))
        await one.agent.effects.remember()
    machine.endpoint.firewall.rules = None
    machine.reboot()
    async with kept(machine) as one:
        await eventually(lambda: one.firewall.in_force)
        assert one.firewall.until == machine.endpoint.clock.time + hours(1)
        assert not await one.agent.notices("isolation-tampered")


async def test_the_server_moves(machine):
    """Its new address is opened, its old one is shut, and the deadline stays."""
    async with kept(machine) as one:
        await one.order("isolate", duration="2h")
        until = one.firewall.until
        machine.endpoint.server.known = (MOVED,)
        one.keeper.moved.set()
        await eventually(lambda: one.firewall.rules.servers == (MOVED,))
        assert one.firewall.until == until
        held = one.agent.effects.current(EFFECT)
        assert held.private["rules"]["servers"] == [{"address": "192.0.2.99", "port": 8443}]


async def test_a_name_gets_another_address(machine):
    """An exclusion by name follows the name; what it no longer means is shut, and cut."""
    machine.endpoint.names.hosts["time.example.com"] = ("203.0.113.1",)
    async with kept(machine) as one:
        await one.order("isolate", allow=["out udp time.example.com remote 123"])
        machine.endpoint.names.hosts["time.example.com"] = ("203.0.113.2",)
        one.keeper.moved.set()
        await eventually(lambda: one.firewall.rules.allow[0].network == ip_network("203.0.113.2"))
        machine.endpoint.names.hosts.clear()
        one.firewall.changes.put_nowait(Addresses())
        await eventually(lambda: not one.firewall.rules.allow)
        assert "time.example.com" in (await one.keeper.status()).not_open[0]


async def test_what_cannot_be_repaired_is_told_as_tampered(machine):
    """The state is the kernel's, not the wish."""
    async with kept(machine) as one:
        await one.order("isolate")
        one.firewall.fails = ActionFailed("nft is gone")
        one.firewall.flush()
        await eventually(lambda: one.keeper._tampered is not None)
        told = await one.keeper.status()
        assert told.state is IsolationState.TAMPERED
        assert not told.tampered.repaired
        one.firewall.fails = None
        await one.keeper.look_again()
        assert (await one.keeper.status()).state is IsolationState.ISOLATED


async def test_a_release_and_a_repair_at_once_end_released(machine):
    """Whoever comes first: what was released is not put back."""
    async with kept(machine) as one:
        for _ in range(20):
            await one.order("isolate")
            one.firewall.flush()
            await one.order("release")
            await eventually(one.firewall.changes.empty)
            async with one.keeper._turn:
                assert not one.firewall.in_force
            machine.endpoint.clock.advance(seconds(1))


async def test_an_isolation_that_waits_for_its_confirmation_is_left_alone(machine):
    """Until the server has confirmed it, only its own action may touch it."""
    machine.endpoint.server.hangs = True
    async with kept(machine) as one:
        await one.agent.executor.accept(machine.server.order("tsk_1", "isolate"))
        await machine.endpoint.server.waiting.wait()
        assert (await one.keeper.status()).state is IsolationState.ISOLATING
        applied = one.firewall.applied
        one.firewall.flush()
        await eventually(one.firewall.changes.empty)
        await one.keeper.look_again()
        assert one.firewall.applied == applied
        assert one.agent.effects.current(EFFECT).detail["phase"] == Phase.UNCONFIRMED


async def test_blocks_are_kept_too(machine):
    """A flush takes them away for a moment only, and a restart of the agent looks after them."""
    async with kept(machine) as one:
        await one.order("block_address", network="198.51.100.7", direction="out")
        one.firewall.flush()
        await eventually(lambda: one.firewall.blocked)
        assert one.firewall.blocked[0][0].network == ip_network("198.51.100.7")
        assert one.firewall.exempt == machine.endpoint.server.known
    machine.endpoint.firewall.blocked = ()
    async with kept(machine) as one:
        await eventually(lambda: one.firewall.blocked)


async def test_an_idle_endpoint_asks_the_kernel_nothing(machine):
    """Nothing is in force: heartbeats cost no listing."""
    async with kept(machine, runs=False) as one:
        one.firewall.isolation = None
        assert (await one.keeper.status()).state is IsolationState.RELEASED


async def test_a_unit_that_has_ended_does_not_leave_the_endpoint_open(machine):
    """Its control group is gone, so its exclusion opens nothing; everything else is put back."""
    machine.endpoint.names.units["backup.service"] = "system.slice/backup.service"
    async with kept(machine) as one:
        await one.order("isolate", allow=["any unit backup.service", "10.0.0.0/8"])
        one.firewall.missing_groups.add("system.slice/backup.service")
        one.firewall.flush()
        await eventually(lambda: one.firewall.in_force)
        assert [str(opened.network) for opened in one.firewall.rules.allow] == ["10.0.0.0/8"]


async def test_the_mark_follows_the_isolation(machine):
    """It is set when the isolation is in force, not before, and gone with it; a disk that refuses it ends nothing."""
    marks: list[bool] = []

    def mark(on: bool) -> None:  # noqa: FBT001 - as the keeper calls it
        marks.append(on)
        raise OSError("read-only file system")

    machine.endpoint.server.hangs = True
    async with kept(machine, mark=mark) as one:
        await one.agent.executor.accept(machine.server.order("tsk_1", "isolate"))
        await machine.endpoint.server.waiting.wait()
        assert not any(marks)
        machine.endpoint.server.hangs = False
        await one.agent.executor.accept(machine.server.cancel("tsk_1"))
        await one.agent.ended("tsk_1")
        await one.order("isolate")
        assert marks[-1]
        await one.order("release")
        assert not marks[-1]


async def test_two_thirds_of_a_block_are_not_a_block(machine):
    """A block of which the kernel drops only one way, or a part, is put back."""
    async with kept(machine) as one:
        await one.order("block_address", network="198.51.100.0/24")
        whole, before = one.firewall.blocked, one.firewall.blocks_applied
        one.firewall.blocked = whole[:1]
        await one.keeper.look_again()
        assert one.firewall.blocked == whole
        await one.keeper.look_again()
        assert one.firewall.blocks_applied == before + 1


# --- what must not end the keeper, nor have it make things worse ---


@dataclass
class Refusing(WatchedFake):
    """A firewall that can hold only so many openings."""

    most: int = 1

    async def isolate(self, rules, **options):
        """Invalid for more."""
        if len(rules.allow) > self.most:
            raise Invalid("Too many openings", got=len(rules.allow))
        await super().isolate(rules, **options)


class SilentNames(FakeNames):
    """Names of which nobody tells anything, and never has since the agent started."""

    async def resolve(self, exclusions, profiles):
        """Each exclusion is unknown."""
        lines = {one: f"{one.name} opens nothing: no resolver answers for it" for one in exclusions}
        return Resolved(openings=(), not_open=tuple(lines.values()), unknown=lines)


async def test_a_silent_resolver_after_a_restart_shuts_nothing(machine):
    """The new agent remembers no name; what was open stays open, and the state says so."""
    machine.endpoint.names.hosts["time.example.com"] = ("203.0.113.1",)
    async with kept(machine) as one:
        await one.order("isolate", allow=["out udp time.example.com remote 123"])
    machine.endpoint.names = SilentNames()
    async with kept(machine, runs=False) as one:
        await one.keeper.follow()
        assert [str(opening.network) for opening in one.firewall.rules.allow] == ["203.0.113.1/32"]
        (line,) = (await one.keeper.status()).not_open
        assert "stays open as it was" in line


async def test_names_that_mean_too_much_do_not_spoil_what_is_written_down(machine):
    """Whoever answers for a name cannot have rules written down that no flush could be repaired with."""
    real = machine.endpoint.firewall
    machine.endpoint.firewall = Refusing(life=real.life, clock=real.clock)
    machine.endpoint.names.hosts["evil.example.com"] = ("203.0.113.1",)
    async with kept(machine, runs=False) as one:
        await one.order("isolate", allow=["evil.example.com"])
        machine.endpoint.names.hosts["evil.example.com"] = ("203.0.113.1", "203.0.113.2")
        with pytest.raises(Invalid):
            await one.keeper.follow()
        assert "not in force" in (await one.keeper.status()).not_open[0]
        one.firewall.flush()
        await one.keeper.look_again()
        assert one.firewall.rules.allow[0].network == ip_network("203.0.113.1")


@pytest.mark.parametrize("rules", [{}, {"servers": [], "what": "another version wrote"}, {"servers": 7}])
async def test_rules_that_cannot_be_read_leave_the_server_alone_open_then_are_made_anew(machine, rules):
    """As at boot: what an earlier agent left is no reason to leave the endpoint open, nor its blocks."""
    async with kept(machine, runs=False) as one:
        await one.order("isolate", allow=["10.0.0.0/8"])
        await one.order("block_address", network="198.51.100.7")
        await one.agent.effects.amend(EFFECT, private={"rules": rules})
        one.firewall.flush()
        await one.keeper.look_again()
        assert one.firewall.rules.servers == machine.endpoint.server.known
        assert not one.firewall.rules.allow
        assert one.firewall.blocked
        assert one.keeper.moved.is_set()
        await one.keeper.follow()
        assert one.firewall.rules.allow[0].network == ip_network("10.0.0.0/8")


async def test_rules_that_will_never_fit_leave_the_server_alone_open(machine):
    """Cut off is the safe side."""
    async with kept(machine, runs=False) as one:
        await one.order("isolate", allow=["10.0.0.0/8"])
        real = one.firewall.isolate

        async def isolate(rules, **options):
            if rules.allow:
                raise Invalid("Too many openings")
            await real(rules, **options)

        one.firewall.isolate = isolate
        one.firewall.flush()
        await one.keeper.look_again()
        assert one.firewall.in_force
        assert not one.firewall.rules.allow


async def test_words_of_another_version_are_told_and_can_be_released(machine):
    """An exclusion and a profile that this agent does not know open nothing, and keep nobody in."""
    async with kept(machine, runs=False) as one:
        await one.order("isolate", allow=["10.0.0.0/8"])
        strange = {"allow": ["10.0.0.0/8", "in quic any"], "profiles": ["dhcp", "telepathy"]}
        await one.agent.effects.amend(EFFECT, detail=strange)
        await one.keeper.follow()
        told = (await one.keeper.status()).not_open
        assert [line.partition(" opens")[0] for line in told] == ["in quic any", "telepathy"]
        await one.order("release")
        assert not one.firewall.in_force


@pytest.mark.parametrize("error", [OSError(105, "No buffer space"), ValueError("a bug"), ActionFailed("nft is gone")])
async def test_nothing_that_the_firewall_raises_ends_the_keeper(machine, error):
    """What fails is tried again; meanwhile the state says that nobody knows, not what was true once."""
    async with kept(machine) as one:
        await one.order("isolate")
        one.firewall.fails = error
        one.firewall.flush()
        await eventually(lambda: one.keeper._tampered is not None)
        one.firewall.fails = None
        one.firewall.flush()
        await eventually(lambda: one.firewall.in_force)


async def test_a_kernel_that_cannot_be_asked_is_no_isolation(machine):
    """The state says that it is not known, with the reason."""
    async with kept(machine, runs=False) as one:
        await one.order("isolate")

        async def isolation():
            raise OSError(105, "No buffer space available")

        one.firewall.isolation = isolation
        await one.keeper.look_again()
        told = await one.keeper.status()
        assert told.state is IsolationState.PARTIAL
        assert "No buffer space available" in told.not_covered[0]


async def test_a_watch_that_ends_is_begun_again_soon(machine, monkeypatch):
    """Half a minute without one would be half a minute in which a flush stays."""
    pauses: list[float] = []
    real, calls = asyncio.sleep, 0

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    async def watch():
        nonlocal calls
        calls += 1
        if calls < 3:
            raise OSError(105, "No buffer space available")
        yield Lost()
        await asyncio.Event().wait()

    async with kept(machine, runs=False) as one:
        await one.order("isolate")
        one.firewall.watch = watch
        monkeypatch.setattr("stanch.agent.keeper.asyncio.sleep", sleep)
        applied = one.firewall.applied
        watching = asyncio.create_task(one.keeper._watch())
        while one.firewall.applied == applied:
            await real(0)
        watching.cancel()
    assert pauses[:2] == [1.0, 2.0]


async def test_connections_of_the_gap_are_cut(machine):
    """What was opened between a flush and its repair does not stay, not even idle; the server's connection does."""
    async with kept(machine) as one:
        await one.order("isolate")
        kept_open = socket_to(f"{SERVER.address}:{SERVER.port}")
        one.firewall.sockets = [socket_to("203.0.113.66:4445"), kept_open]
        one.firewall.flush()
        await eventually(lambda: one.firewall.sockets == [kept_open])
        assert one.firewall.in_force


async def test_connections_of_the_time_without_an_agent_are_cut(machine):
    """The rules were removed while the agent was dead: the next one cuts what came about, for blocks as well."""
    async with kept(machine) as one:
        await one.order("block_address", network="198.51.100.7")
        await one.order("isolate")
    machine.endpoint.firewall.rules = None
    machine.endpoint.firewall.sockets = [socket_to("198.51.100.7:443"), socket_to("203.0.113.66:4445")]
    async with kept(machine) as one:
        await eventually(lambda: not one.firewall.sockets)


async def test_a_unit_that_is_back_is_opened_again_and_nobody_is_accused(machine):
    """It was gone for the moment of a repair: less was open than is written down, and that was our own doing."""
    machine.endpoint.names.units["backup.service"] = "system.slice/backup.service"
    async with kept(machine, runs=False) as one:
        await one.order("isolate", allow=["any unit backup.service"])
        one.firewall.missing_groups = {"system.slice/backup.service"}
        await one.keeper._put_back(None, was_open=False)
        assert not one.firewall.rules.allow
        await one.keeper.look_again()
        assert (await one.keeper.status()).tampered is None
        one.firewall.missing_groups = set()
        await one.keeper.follow()
        assert one.firewall.rules.allow
        one.firewall.rules = None
        await one.keeper.look_again()
        assert (await one.keeper.status()).tampered is not None
