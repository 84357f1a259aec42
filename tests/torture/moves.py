"""The moves of a sequence: each a small function, with what it needs of the tree and when it is possible."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec

from stanch.client.api import Client
from tests.torture import lab as places
from tests.torture import tampering
from tests.torture.exclusions import NARROW, NO_EXCLUSIONS, SIMPLE, Exclusions
from tests.torture.ledger import Held
from tests.torture.sequence import MOVED_SECONDS, Story

MOVES: list["Move"] = []


@dataclass(frozen=True, slots=True)
class Move:
    """One kind of thing that may happen."""

    name: str
    weight: int
    possible: Callable[[Story], bool]
    make: Callable[[Story], None]
    needs: Callable[[], str | None]
    """Why it cannot be made with this tree, or None."""


def always(_story: Story) -> bool:
    """Whatever is in force."""
    return True


def nothing() -> str | None:
    """It is there in any case."""
    return None


def module(name: str) -> Callable[[], str | None]:
    """A part of Stanch that must be there."""
    return lambda: None if find_spec(name) else f"there is no {name}"


def move(
    *,
    weight: int = 2,
    possible: Callable[[Story], bool] = always,
    needs: Callable[[], str | None] = nothing,
) -> Callable[[Callable[[Story], None]], Callable[[Story], None]]:
    """Declare a move; its name is the function's."""

    def declare(make: Callable[[Story], None]) -> Callable[[Story], None]:
        MOVES.append(Move(make.__name__.replace("_", "-"), weight, possible, make, needs))
        return make

    return declare


def usable() -> tuple[list[Move], list[str]]:
    """The moves that this tree can make, and why it cannot make the others."""
    reasons = {one.name: one.needs() for one in MOVES}
    left_out = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    return [one for one in MOVES if not reasons[one.name]], left_out


def _up(story: Story) -> bool:
    return story.up


def _isolated(story: Story) -> bool:
    return story.isolation is not None


def _up_and_isolated(story: Story) -> bool:
    return story.up and story.isolation is not None


MOST_DEATHS = 3
"""Of the agent in a row: its supervisor waits longer after each, and the sequence with it."""


def _may_die(story: Story) -> bool:
    return story.supervisor_up and story.agent_deaths < MOST_DEATHS


def _kill_agent(story: Story) -> None:
    story.agent_deaths += 1
    story.world.kill_agent()


# --- isolation -------------------------------------------------------------------------------------------------------

LONG = 10
DURATIONS: tuple[float | None, ...] = (3, 5, 20, 3600, 3600, None)


def _exclusions(story: Story) -> Exclusions:
    narrow = NARROW if find_spec("stanch.core.exclusion") else ()
    return story.rng.choice([NO_EXCLUSIONS, NO_EXCLUSIONS, SIMPLE, *narrow])


def _words(duration: float | None, allow: Sequence[str] = ()) -> dict[str, object]:
    return {"duration": None if duration is None else f"{duration:g}s", "allow": list(allow)}


@move(weight=6, possible=_up)
def isolate(story: Story) -> None:
    """Isolate, or renew an isolation with other words."""
    except_ = _exclusions(story)
    duration = story.rng.choice(DURATIONS)
    ordered = time.monotonic()
    story.ledger.note(f"isolate for {duration} s except {'; '.join(except_.words) or 'nothing'}")
    if not story.is_done(story.order("isolate", _words(duration, except_.words))):
        story.learn(ordered=ordered, duration=duration, allow=except_.told)
        return
    story.begin_isolation(ordered=ordered, done=time.monotonic(), duration=duration, allow=except_.told)
    if except_.streams and (duration is None or duration > LONG):
        story.must_pass(except_.streams, "an exclusion")


@move(weight=3, possible=_up_and_isolated)
def release(story: Story) -> None:
    """By the server."""
    story.ledger.note("release")
    story.release()


@move(weight=2, possible=_isolated)
def release_at_the_endpoint(story: Story) -> None:
    """By root on the endpoint, through the agent or, where none runs, without it."""
    begin = time.monotonic()
    if story.supervisor_up and story.world.local_off() is not None:
        story.ledger.note("local release through the agent")
    elif not story.supervisor_up:
        story.ledger.note("local release without an agent")
        story.world.local_off_without_agent()
    else:
        return
    story.end_isolation(begin)
    story.must_be_open("a local release", since=time.monotonic())


def _codes() -> str | None:
    return None if hasattr(Client, "release_codes") else "there are no release codes"


@move(weight=2, possible=lambda story: story.server_up and story.isolation is not None, needs=_codes)
def release_with_the_code(story: Story) -> None:
    """By somebody who stands in front of the endpoint and was told the code, whether an agent runs or not."""
    code = story.world.release_code()
    begin = time.monotonic()
    if code is None or not story.world.enter_code(code):
        story.ledger.note("the release code was refused")
        story.learn(ordered=begin, duration=None, allow=[])
        return
    story.ledger.note("released with the code")
    story.end_isolation(begin)
    story.must_be_open("a release with the code", since=time.monotonic())


@move(weight=2, possible=lambda story: story.up and _may_die(story))
def isolate_while_the_agent_dies(story: Story) -> None:
    """kill -9 of the agent somewhere in the middle; the task must end, and say what is true."""
    delay = story.rng.uniform(0.0, 0.12)
    story.ledger.note(f"isolate for an hour, agent killed after {delay * 1000:.0f} ms")
    ordered = time.monotonic()
    submitted = story.world.submit("isolate", _words(3600))
    time.sleep(delay)  # sleep: a random moment of its run
    _kill_agent(story)
    done = story.is_done(story.world.finished(submitted))
    if done:
        story.begin_isolation(ordered=ordered, done=time.monotonic(), duration=3600, allow=[])
    story.agent_recovered()
    if not done:
        story.learn(ordered=ordered, duration=3600, allow=[])


@move(weight=1, possible=_up)
def isolate_while_the_server_dies(story: Story) -> None:
    """kill -9 of the server somewhere in the middle; it is away for a moment, and the endpoint waits for it."""
    delay, away = story.rng.uniform(0.0, 0.1), story.rng.uniform(0.0, 1.0)
    story.ledger.note(f"isolate for an hour, server killed after {delay * 1000:.0f} ms, away for {away:.1f} s")
    ordered = time.monotonic()
    submitted = story.world.submit("isolate", _words(3600))
    time.sleep(delay)  # sleep: a random moment of the run
    story.world.kill_server()
    time.sleep(away)  # sleep: it is the outage
    story.world.start_server()
    task = story.world.finished(submitted)
    if task is None:
        story.ledger.strand("an isolation during which the server died does not end")
    if story.is_done(task):
        story.begin_isolation(ordered=ordered, done=time.monotonic(), duration=3600, allow=[])
    else:
        story.learn(ordered=ordered, duration=3600, allow=[])


@move(weight=2, possible=lambda story: _up_and_isolated(story) and _may_die(story))
def release_while_the_agent_dies(story: Story) -> None:
    """kill -9 of the agent somewhere in the middle; the release must come to its end."""
    delay = story.rng.uniform(0.0, 0.08)
    story.ledger.note(f"release, agent killed after {delay * 1000:.0f} ms")
    story.end_isolation(time.monotonic())
    submitted = story.world.submit("release", {})
    time.sleep(delay)  # sleep: a random moment of its run
    _kill_agent(story)
    if not story.is_done(story.world.finished(submitted)):
        story.release()
    story.must_be_open("a release", since=time.monotonic())


@move(weight=3, possible=_up)
def ask(story: Story) -> None:
    """An order that changes nothing must come back, isolated or not."""
    story.ledger.note("list-processes")
    story.must_be_reachable("an order")


# --- things die ------------------------------------------------------------------------------------------------------


@move(weight=3, possible=_may_die)
def kill_agent(story: Story) -> None:
    """kill -9."""
    story.ledger.note("kill -9 of the agent")
    _kill_agent(story)


@move(weight=2, possible=lambda story: story.supervisor_up)
def kill_supervisor(story: Story) -> None:
    """kill -9; the agent dies with it."""
    story.ledger.note("kill -9 of the supervisor")
    story.world.kill_supervisor()
    story.supervisor_up = False


@move(weight=1, possible=lambda story: story.supervisor_up)
def kill_both(story: Story) -> None:
    """kill -9 of the agent, and of the supervisor before it can do anything."""
    story.ledger.note("kill -9 of agent and supervisor")
    story.world.kill_supervisor(agent_first=True)
    story.supervisor_up = False


@move(weight=6, possible=lambda story: not story.supervisor_up)
def start_supervisor(story: Story) -> None:
    """As systemd would."""
    story.ledger.note("the supervisor is started")
    story.start_supervisor()
    if story.ledger.any_window_open:
        story.agent_recovered()


@move(weight=2, possible=lambda story: story.server_up)
def server_dies(story: Story) -> None:
    """kill -9."""
    story.ledger.note("kill -9 of the server")
    story.world.kill_server()
    story.server_up = False


@move(weight=6, possible=lambda story: not story.server_up)
def server_returns(story: Story) -> None:
    """It is started again."""
    story.ledger.note("the server is started")
    story.world.start_server()
    story.server_up = True


def _announcing() -> str | None:
    return None if hasattr(Client, "announce") else "the server cannot announce addresses"


GONE = 0.1
"""How often the old addresses just go, while the link uses them: that costs a minute."""


@move(weight=1, possible=lambda story: story.up and story.world.at == 0, needs=_announcing)
def server_moves(story: Story) -> None:
    """It announces its new addresses before; then the old ones go, with the server stopped meanwhile or not."""
    world, old = story.world, story.world.at
    stopped = story.rng.random() > GONE
    story.ledger.note(f"the server moves to {', '.join(places.SERVERS[1 - old])}{', stopped' if stopped else ''}")
    story.must_be_reachable("before the move")  # whoever is not linked cannot be told
    story.announce(1 - old)
    world.at = 1 - old
    if stopped:
        world.kill_server()
    world.lab.unaddress_server(old)
    if stopped:
        world.start_server()
    story.must_be_reachable("the move of the server", within=MOVED_SECONDS)


@move(weight=1, possible=lambda story: story.server_up)
def clock_jumps(story: Story) -> None:
    """The server's clock is set, which is the same as if the endpoint's had been: only their difference matters."""
    hours = story.rng.choice([-3, -1, 1, 3])
    story.ledger.note(f"the endpoint's clock is {hours} h behind since now")
    story.world.kill_server()
    story.world.start_server(ahead=_hours(hours))


@move(weight=3)
def time_passes(story: Story) -> None:
    """Nothing else happens."""
    seconds = story.rng.uniform(0.1, 1.2)
    story.ledger.note(f"{seconds:.1f} s pass")
    time.sleep(seconds)  # sleep: it is the move


# --- devices ---------------------------------------------------------------------------------------------------------

MOST_DEVICES = 3
WATCH = module("stanch.agent.host.tables_watch")


def _device_changes(story: Story, since: float, wire: str) -> None:
    """Frames by hand through a device get out until the agent has seen it."""
    story.ledger.window("device", since=since, until=None, device=wire)
    if story.supervisor_up:
        story.agent_recovered()


@move(weight=2, possible=lambda story: len(story.devices) < MOST_DEVICES, needs=WATCH)
def a_device_appears(story: Story) -> None:
    """With a wire of its own, on which somebody speaks at once."""
    story.plugged += 1
    device = f"usb{story.plugged}"
    story.ledger.note(f"the device {device} appears")
    since = time.monotonic()
    story.world.lab.plug(device, story.plugged)
    story.devices.append(device)
    _device_changes(story, since, story.world.lab.cables[device])


@move(weight=1, possible=lambda story: bool(story.devices), needs=WATCH)
def a_device_vanishes(story: Story) -> None:
    """With its wire."""
    device = story.devices.pop(story.rng.randrange(len(story.devices)))
    story.ledger.note(f"the device {device} vanishes")
    story.world.lab.unplug(device)


@move(weight=1, possible=lambda story: bool(story.devices), needs=WATCH)
def a_device_gets_another_name(story: Story) -> None:
    """It stays the same device."""
    device = story.devices.pop(story.rng.randrange(len(story.devices)))
    new = f"net{story.rng.randrange(10**6)}"
    story.ledger.note(f"the device {device} becomes {new}")
    since = time.monotonic()
    story.world.lab.rename(device, new)
    story.devices.append(new)
    _device_changes(story, since, story.world.lab.cables[new])


@move(weight=1, possible=lambda story: not story.container_rules)
def container_rules_come(story: Story) -> None:
    """A container engine starts."""
    story.ledger.note("rules of a container engine come")
    tampering.container_rules(story.world)
    story.container_rules = story.container_rewritten = True


@move(weight=2, possible=lambda story: story.container_rules)
def container_rules_go(story: Story) -> None:
    """It is stopped."""
    story.ledger.note("the rules of the container engine go")
    tampering.no_container_rules(story.world)
    story.container_rules = False


# --- tampering -------------------------------------------------------------------------------------------------------


def _tamper(story: Story, commands: list[str]) -> None:
    """Do it; where it succeeds, something may get out until the agent has repaired it."""
    for command in commands:
        since = time.monotonic()
        done = story.world.nft(*command.split())
        story.world.hinder_ownership()
        story.ledger.note(f"nft {command}{': refused' if done.returncode else ''}")
        if done.returncode:
            continue
        answers = story.supervisor_up and story.world.status() is not None
        until = time.monotonic() if answers else None
        story.ledger.window("flush" if answers else "agent down", since=since, until=until)
    if story.ledger.any_window_open and story.supervisor_up:
        story.agent_recovered()


@move(weight=3, needs=WATCH)
def others_flush(story: Story) -> None:
    """As every reload of a common firewall configuration does."""
    commands = tampering.flush_commands(story.rng)
    story.container_rules = False
    _tamper(story, commands)


@move(weight=3, possible=lambda story: story.isolation is not None or bool(story.blocks), needs=WATCH)
def others_delete_our_tables(story: Story) -> None:
    """On purpose."""
    _tamper(story, tampering.delete_commands(story.world, story.rng))


@move(weight=3, possible=lambda story: story.isolation is not None or bool(story.blocks), needs=WATCH)
def others_delete_a_part(story: Story) -> None:
    """A chain, a rule, what is in a set."""
    _tamper(story, tampering.part_commands(story.world, story.rng))


# --- blocks ----------------------------------------------------------------------------------------------------------

BLOCKS = module("stanch.actions.block_address")


@move(weight=2, possible=lambda story: story.up and len(story.blocks) < len(places.NUISANCE), needs=BLOCKS)
def block_an_address(story: Story) -> None:
    """Without isolating."""
    network = story.rng.choice([one for one in places.NUISANCE if one not in story.blocks])
    duration = story.rng.choice([5, 3600, None])
    story.ledger.note(f"block {network} for {duration} s")
    ordered = time.monotonic()
    words = {"network": network, "duration": None if duration is None else f"{duration}s"}
    if story.is_done(story.order("block_address", words)):
        done, earliest = time.monotonic(), None if duration is None else ordered + duration
        latest = None if duration is None else done + duration
        story.blocks[network] = Held(done, earliest, latest, span=story.ledger.blocked(done, earliest, network))
    else:
        story.ledger.strand(f"{network} is not blocked")


@move(weight=2, possible=lambda story: story.up and bool(story.blocks), needs=BLOCKS)
def unblock_an_address(story: Story) -> None:
    """By the server."""
    network = story.rng.choice(list(story.blocks))
    story.ledger.note(f"unblock {network}")
    story.unblock(network)


# --- the machine -----------------------------------------------------------------------------------------------------


BOOT_SLACK = 1.0
"""Boot time begins anew with whole seconds of the old one taken off: up to so much more may seem to have passed."""


@move(weight=2, needs=module("stanch.agent.boot"))
def reboot(story: Story) -> None:
    """Without rules from the teardown to the end of the boot program; the network comes up afterwards."""
    story.ledger.note("reboot")
    window = story.ledger.window("reboot", since=time.monotonic(), until=None)
    story.supervisor_up = story.container_rules = False
    said = " ".join(story.world.reboot().split())
    window[1] = story.world.booted
    story.lose_time(BOOT_SLACK)
    story.ledger.note(f"  boot: {said[:400]}")
    story.start_supervisor()
    story.agent_recovered()


def _hours(hours: int) -> timedelta:
    return timedelta(hours=hours)
