"""Kill an agent with SIGKILL at every step of a story, start it again, and print how each of these lives ended.

    python -m tests.agent.killing.program FOLDER STORY ACTION

Everything is imported once; each start of the agent is a fork of this process, a real process with the real executor
and the real journal, on an endpoint that outlives it (`world`). Prints one JSON object per line: first the undisturbed
run, then one for each step at which the agent was killed.
"""

import asyncio
import hashlib
import json
import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from itertools import zip_longest
from pathlib import Path
from typing import Any

import structlog

from stanch.actions import isolate
from stanch.actions import load as load_actions
from stanch.core.action import AnyAction, Registry, Undo
from stanch.core.autoruns import Place
from stanch.core.content import ContentKind
from stanch.core.frames import Notice, Report
from stanch.core.network import Peer
from stanch.core.processes import Held
from stanch.core.types import EndpointPath, Upload, hours, minutes, seconds
from stanch.core.vault import Taking, Why, item_id
from stanch.derive.commands import options_of
from tests.agent.killing import world
from tests.agent.killing.world import Ended
from tests.fakes.agent import Agent, Machine
from tests.fakes.host import FakeClock, FakeEndpoint, socket_to
from tests.fakes.scanner import finding
from tests.fakes.started_programs import Behaviour
from tests.fakes.waiting import eventually

TASK = "tsk_1"
BOOTED = FakeClock().time - hours(1)

PAST = item_id("tsk_0", 99)
"""What has been in the vault for long."""

TOOL = b"#!/bin/sh"
UPLOAD = Upload(id="upl_1", name="tool.sh", size=len(TOOL), sha256=hashlib.sha256(TOOL).hexdigest())
"""What somebody wants to put there."""

SAMPLES: dict[str, dict[str, Any]] = {
    "isolate": {"duration": "10m", "allow": ["10.0.0.0/8"]},
    "kill_process": {"pid": 100},
    "suspend_process": {"pid": 100, "duration": "10m"},
    "resume_process": {"suspended_by": "tsk_0"},
    "get_file": {"path": ["/tmp/dropper"]},
    "quarantine": {"path": ["/tmp/dropper"], "end_processes": True},
    "restore": {"order": "ord_1", "rename": True},
    "quarantine_get": {"item": PAST},
    "quarantine_delete": {"items": [PAST]},
    "delete_file": {"path": ["/tmp/.x11"], "recursive": True},
    "put_file": {"content": UPLOAD.model_dump(mode="json"), "path": "/tmp/dropper", "replace": True},
    "hash_file": {"path": ["/tmp/dropper"]},
    "disable_autorun": {"unit": ["miner"], "path": "/etc/cron.d/miner", "duration": "10m"},
    "enable_autorun": {"all": True},
    "lock_account": {"name": "alice", "duration": "10m"},
    "end_sessions": {"session": ["s400"], "user": ["alice"], "everything": True},
    "ioc_scan": {"content": ["apt"]},
    "yara_scan": {"content": ["implants"], "autoruns": True, "memory": True},
    "malware_scan": {"quarantine": True, "end_processes": True},
    "critical_areas_scan": {"quarantine": True, "end_processes": True},
    "pause_scan": {"task": "tsk_7"},
    "resume_scan": {"task": "tsk_8"},
    "run_process": {"path": "/opt/collect", "argument": ["--all"]},
}
"""Parameters that find something to do in this world; an action without any is tried with its first example."""


def registry() -> Registry:
    """Every action of Stanch, and two of the kinds that it does not have yet."""
    return load_actions(beside=[Path(__file__).with_name("unrepeatable.py")])


def sample(action: AnyAction) -> dict[str, Any]:
    """Parameters to try an action with."""
    return SAMPLES.get(action.name, from_example(action))


def from_example(action: AnyAction) -> dict[str, Any]:
    """The parameters of an action's first example."""
    options = {flag: one for one in options_of(action.params) for flag in one.flags[0].split("/")}
    words, found = shlex.split(action.examples[0])[1:], dict[str, Any]()
    for word, following in zip_longest(words, words[1:]):
        option = options.get(word)
        if option is None:
            continue
        if option.multiple:
            found.setdefault(option.name, []).append(following)
        else:
            found[option.name] = following if not option.switch else not word.startswith("--no-")
    return found


# --- the world at the beginning --------------------------------------------------------------------------------------


def prepared(folder: Path) -> FakeEndpoint:
    """An endpoint under attack: a process tree, connections, files, one of which runs, and one in the vault."""
    endpoint, _life = world.load(folder, kill_at=None)
    endpoint.server.known = (Peer(address=ip_address("192.0.2.1"), port=8443),)
    endpoint.firewall.sockets = [socket_to("203.0.113.9:443"), socket_to("192.0.2.1:8443"), socket_to("10.1.2.3:22")]
    for pid, parent in ((100, 1), (101, 100), (102, 101), (200, 1)):
        endpoint.processes.add(pid, parent=parent)
    endpoint.containers.restarting = {endpoint.containers.add("shop").id: "docker"}
    endpoint.accounts.add("alice", expires="20999")
    endpoint.accounts.log_in("alice", 300)
    endpoint.accounts.log_in("bob", 400)
    endpoint.processes.add(301, parent=300)
    endpoint.processes.add(302, user="alice")
    endpoint.files.content.update({"/tmp/dropper": b"malware", "/tmp/old": b"known"})
    endpoint.files.content.update({"/tmp/.x11/a/b": b"x", "/tmp/.x11/c": b""})
    attack_starts(endpoint)
    runs = endpoint.files.info_of(endpoint.files.tree["/tmp/dropper"]).id
    endpoint.processes.hold(endpoint.processes.table[200].id, runs, Held.RUNS)
    collects = Behaviour(stdout=b"collected", writes={"/opt/found": b"it"}, leaves=1)
    endpoint.programs.programs["/opt/collect"] = collects
    endpoint.uploads.content[UPLOAD.id] = TOOL
    endpoint.content.add("implants")
    endpoint.content.add("apt", ContentKind.HASHES)
    endpoint.content.add("old")
    del endpoint.content.published["old"]
    endpoint.content.publish("apt", ContentKind.HASHES, version=2)
    endpoint.content.publish("new")
    endpoint.content.publish("bad")
    endpoint.content.broken["bad"] = "nothing in it counts"
    endpoint.scanner.finds = [finding("/tmp/dropper", sha256=hashlib.sha256(b"malware").hexdigest())]
    endpoint.scanner.scans = {"tsk_7": False, "tsk_8": True}
    past = Taking(id=PAST, path=EndpointPath("/tmp/old"), why=Why.QUARANTINE)
    asyncio.run(endpoint.vault.in_hands_of("ord_0").take(past))
    world.save(folder, endpoint)
    return endpoint


def attack_starts(endpoint: FakeEndpoint) -> None:
    """What starts it again: a unit of its own that runs, and a crontab with a line beside a script."""
    unit = endpoint.autoruns.add("miner.service", "/etc/systemd/system/miner.service", running=True)
    endpoint.autoruns.taking.add(unit.id)
    endpoint.autoruns.add("miner", "/etc/cron.d/miner", place=Place.CRON, line=1, command="@reboot root /tmp/dropper")
    endpoint.autoruns.add("miner", "/etc/cron.d/miner", place=Place.RC)
    endpoint.files.content.update({"/etc/systemd/system/miner.service": b"[Service]", "/etc/cron.d/miner": b"@reboot"})


# --- stories ---------------------------------------------------------------------------------------------------------

Tell = Callable[[Agent, Machine, str], Awaitable[None]]


async def order(agent: Agent, machine: Machine, action: str) -> None:
    """The server delivers a task, at each start of the agent until it has the answer."""
    declared = machine.registry[action]
    await agent.executor.accept(machine.server.order(TASK, action, params=sample(declared)))
    await eventually(lambda: not agent.executor.open_tasks())


async def cancel(agent: Agent, machine: Machine, action: str) -> None:
    """The server delivers a task that hangs in the middle, and cancels it; what it leaves is lifted."""
    declared = machine.registry[action]
    machine.endpoint.server.hangs = True
    await agent.executor.accept(machine.server.order(TASK, action, params=sample(declared)))
    await eventually(lambda: machine.endpoint.server.waiting.is_set() or not agent.executor.open_tasks())
    await agent.executor.accept(machine.server.cancel(TASK))
    await deadline(agent, machine, action)


async def deadline(agent: Agent, _machine: Machine, _action: str) -> None:
    """What is due is lifted."""
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(agent.effects.due_loop(agent.executor.lift))
        await eventually(lambda: not agent.effects.active() and not agent.executor._carrier.running)
        loop.cancel()


STORIES: dict[str, Tell] = {"order": order, "cancel": cancel, "deadline": deadline}


def prologue(story: str, action: str) -> str | None:
    """The action that must have been done before, so that there is something to do."""
    if story == "deadline":
        return action
    undone = [one.name for one in registry().values() if isinstance(one.undo, Undo) and one.undo.action == action]
    return undone[0] if undone else None


# --- lives of an agent -----------------------------------------------------------------------------------------------


def live(folder: Path, tell: Tell, action: str, *, kill_at: int | None) -> bool:
    """One life of an agent, in a process of its own; was it killed?"""
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(_live(folder, tell, action, kill_at))
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(1 if sys.exc_info()[0] else 0)
    _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0, f"the agent ended with {status}"
    return False


async def _live(folder: Path, tell: Tell, action: str, kill_at: int | None) -> None:
    endpoint, life = world.load(folder, kill_at=kill_at)
    machine = Machine(folder, registry(), endpoint=endpoint, boot_at=BOOTED)
    async with machine.agent(journal={"step": life.change}) as agent:
        await tell(agent, machine, action)
        (await ended(agent, endpoint)).write(folder)
        life.step("journal: the end")


async def ended(agent: Agent, endpoint: FakeEndpoint) -> Ended:
    """How it ended."""
    frames = await agent.spool.pending(1000)
    final = [one for one in frames if isinstance(one, Report) and one.state.final and one.task == TASK]
    last = final[-1] if final else None
    return Ended(
        states=[str(one.state) for one in final],
        result=None if last is None or last.result is None else dict(last.result),
        error=None if last is None or last.error is None else last.error.code,
        notices=[one.kind for one in frames if isinstance(one, Notice)],
        world=world.settle(endpoint),
        effects=[one.model_dump(mode="json") for one in sorted(agent.effects.active(), key=lambda one: one.name)],
    )


async def _prologue(agent: Agent, machine: Machine, action: str) -> None:
    params = sample(machine.registry[action])
    await agent.executor.accept(machine.server.order("tsk_0", action, params=params))
    await eventually(lambda: not agent.executor.open_tasks())
    await agent.spool.ack([one.seq for one in await agent.spool.pending(1000)])


def begin(folder: Path, story: str, action: str) -> None:
    """The world before the story, its agent not yet started."""
    folder.mkdir()
    # What an owner must switch on is switched on.
    (folder / "agent.toml").write_text('[actions]\nenable = ["shell"]\n')
    prepared(folder)
    first = prologue(story, action)
    if first is not None:
        assert not live(folder, _prologue, first, kill_at=None)
    if story == "deadline":
        endpoint, _life = world.load(folder, kill_at=None)
        endpoint.clock.advance(minutes(11))
        world.save(folder, endpoint)
    (folder / "steps").write_text("")


def tell_all(folder: Path, story: str, action: str) -> None:
    """Undisturbed, then killed at each step; printed as they end."""
    tell, start = STORIES[story], folder / "start"
    registry()  # imports the actions here, and not once more in every fork
    isolate.BETWEEN_LOOKS = seconds(0)  # a closed connection is gone at once here
    begin(start, story, action)
    clean = copied(start, folder / "clean")
    assert not live(clean, tell, action, kill_at=None)
    steps = world.all_steps(clean)
    show(clean, killed_at=None, again=False)
    for number, what in enumerate(steps, 1):
        one = copied(start, folder / f"step-{number}")
        assert live(one, tell, action, kill_at=number)
        # Also during the recovery, if that takes so many steps: the second death comes at another one each time.
        again = live(one, tell, action, kill_at=1 + number * 7 % len(steps))
        if again:
            assert not live(one, tell, action, kill_at=None)
        show(one, killed_at=what, again=again)
        before = world.endpoint_steps(one)
        assert not live(one, tell, action, kill_at=None)
        assert world.endpoint_steps(one) == before, f"done again after its end: {world.endpoint_steps(one)}"


def copied(start: Path, to: Path) -> Path:
    """A world of its own, as it was at the start."""
    shutil.copytree(start, to)
    return to


def show(folder: Path, *, killed_at: str | None, again: bool) -> None:
    """Print how it ended."""
    found = Ended.read(folder)
    found.steps = world.endpoint_steps(folder)
    sys.stdout.write(json.dumps({"killed_at": killed_at, "killed_again": again, **vars(found)}) + "\n")
    # A fork must not inherit, and print again, what waits in the buffer.
    sys.stdout.flush()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    tell_all(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
