"""A reboot of an isolated endpoint: cut off again before its agent runs, for what was left, and then with its agent."""

import os
import re
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stanch.agent.host.clock import boot_seconds
from stanch.core.network import IsolationState
from stanch.core.rest import EndpointView
from stanch.demo.lab import HOSTNAME, SERVER_V4, SERVER_V6, output_of
from stanch.demo.program import Program, children_of, wait_until
from stanch.demo.responder import STANCH, monotonic_of
from stanch.demo.scene import CLIENT, FORBIDDEN, READ_SECONDS, RESUME_SECONDS
from stanch.demo.stage import AGENT_PLACES, GATEWAY_PORT, Stage

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.long]

LASTS = 40
AGE = 1.0
"""How long the next boot has lasted when the boot program starts."""

NEXT_BOOT = "11111111-2222-3333-4444-555555555555"
REBOOT = f'echo {NEXT_BOOT} > /run/boot_id && mount --bind /run/boot_id /proc/sys/kernel/random/boot_id && exec "$@"'


@dataclass(frozen=True)
class Rebooted:
    """The endpoint in its next boot: another boot id, another boot clock, no rules of ours, no agent."""

    stage: Stage
    started: float
    """When the boot began, on the outside's clock."""

    @property
    def age(self) -> float:
        """Seconds since the boot."""
        return time.monotonic() - self.started

    def start(self, *argv: str, log: str) -> Program:
        """A program of the next boot."""
        offset = int(self.age - boot_seconds())
        spaces = ("unshare", "--mount", "--time", f"--boottime={offset}", "--fork", "--kill-child")
        command = (*spaces, "sh", "-ec", REBOOT, "boot", *argv)
        return self.stage.lab.start(self.stage.lab.endpoint, command, log=log, env=AGENT_PLACES, ends_on=signal.SIGKILL)


def reboot(stage: Stage) -> Rebooted:
    """All of the agent dies at once, the kernel forgets its rules, and the clock of the boot begins anew."""
    supervisor = stage.program("agent").only_child()
    (agent,) = children_of(supervisor)
    for pid in (supervisor, agent):
        # The kernel ends the agent with its supervisor: it may be faster than we are.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # Its tables are the agent's own until its last socket is closed.
    assert wait_until(lambda: not Path(f"/proc/{agent}").exists(), within=10)
    output_of(*stage.lab.endpoint.enter, "nft", "flush", "ruleset")
    assert stage.ruleset() == ""
    return Rebooted(stage, time.monotonic() - AGE)


def heard(stage: Stage, since: float) -> dict[str, int]:
    """What is seen outside that should not be."""
    seen = stage.world.seen(since=since)
    return {name: seen.count(name) for name in FORBIDDEN if seen.count(name)}


def effects(stage: Stage) -> list[Any]:
    """What the server knows to be in force."""
    return list(stage.responder.one(EndpointView, "endpoint", "show", HOSTNAME).effects)


def state(stage: Stage) -> IsolationState | None:
    """What the server says about its isolation."""
    found = stage.responder.one(EndpointView, "endpoint", "show", HOSTNAME).isolation
    return found and found.state


def test_an_isolation_outlives_a_reboot_but_not_its_deadline(stage: Stage):
    """Before any agent runs nothing gets out but to the server; the agent goes on with the rest; then all is back."""
    task = stage.responder.order("isolate", HOSTNAME, "--duration", f"{LASTS}s")
    done = monotonic_of(task.changed)
    machine = reboot(stage)
    program = machine.start(sys.executable, "-I", "-m", "stanch.agent.boot", log="boot.log")
    assert program.process.wait(30) == 0, program.said()
    restored = time.monotonic()
    assert re.search(r'"isolated": true', program.said())
    assert wait_until(lambda: time.monotonic() > restored + READ_SECONDS + 1, within=5)
    assert heard(stage, restored + READ_SECONDS) == {}
    assert stage.reached(GATEWAY_PORT, SERVER_V4, SERVER_V6) == (SERVER_V4, SERVER_V6)

    agent = machine.start(*STANCH, "agent", "run", log="agent-2.log")
    assert wait_until(lambda: stage.responder.one(EndpointView, "endpoint", "show", HOSTNAME).online, within=60)
    assert heard(stage, restored + READ_SECONDS) == {}
    assert [one.name for one in effects(stage)] == ["isolation"]
    assert wait_until(lambda: state(stage) is IsolationState.ISOLATED, within=20), state(stage)
    assert stage.responder.one(EndpointView, "endpoint", "show", HOSTNAME).isolation.tampered is None

    back = first_of_client(stage, restored + READ_SECONDS, within=LASTS + 15)
    # What was left when the agent died counts from the new boot; at most a write of a minute ago is lost, here none.
    assert LASTS - (machine.started + AGE - done) - 2 < back - machine.started < LASTS + RESUME_SECONDS + 2
    assert wait_until(lambda: stage.ruleset() == "", within=30)
    assert wait_until(lambda: effects(stage) == [], within=30)
    agent.kill()


def test_without_an_agent_the_kernel_lifts_what_the_boot_restored(stage: Stage):
    """The agent never comes: at the deadline the client works again, though nobody removed the rules."""
    stage.responder.order("isolate", HOSTNAME, "--duration", "10s")
    machine = reboot(stage)
    program = machine.start(sys.executable, "-I", "-m", "stanch.agent.boot", log="boot.log")
    assert program.process.wait(30) == 0, program.said()
    restored = time.monotonic()
    back = first_of_client(stage, restored + READ_SECONDS, within=20)
    assert timedelta(seconds=back - machine.started) < timedelta(seconds=10 + RESUME_SECONDS + 1)
    assert stage.ruleset() != ""


def first_of_client(stage: Stage, since: float, *, within: float) -> float:
    """When the client's first question after `since` arrived."""
    assert wait_until(lambda: stage.world.seen(since=since).count(*CLIENT) > 0, within=within)
    return stage.world.seen(since=since).first(*CLIENT) or 0.0
