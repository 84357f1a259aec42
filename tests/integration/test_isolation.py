"""Isolation when things die: measured from outside, in a lab with a real server and a real agent."""

import os
import signal
import time

import pytest

from stanch.core.rest import EndpointView, OrderView, TaskView
from stanch.core.task import State
from stanch.demo.lab import HOSTNAME, output_of
from stanch.demo.program import children_of, wait_until
from stanch.demo.responder import monotonic_of
from stanch.demo.scene import CLIENT, FORBIDDEN, READ_SECONDS, RESUME_SECONDS
from stanch.demo.stage import GATEWAY_PORT, Stage

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.long]

ISOLATED_SECONDS = 12
CONFIRM_SECONDS, KERNEL_SECONDS = 60, 75
"""How long the agent waits for its server under new rules, and when the kernel gives up even without the agent."""

NO_NEW = f"add rule inet gone f tcp dport {GATEWAY_PORT} tcp flags & (syn | ack) == syn drop"


def online(stage: Stage) -> bool:
    """Has the server a link to the endpoint?"""
    return stage.responder.one(EndpointView, "endpoint", "show", HOSTNAME).online


def heard(stage: Stage, since: float) -> dict[str, int]:
    """What is seen outside that should not be."""
    seen = stage.world.seen(since=since)
    return {name: seen.count(name) for name in FORBIDDEN if seen.count(name)}


def agent_of(stage: Stage) -> tuple[int, int]:
    """Supervisor and agent, by the numbers that they have out here."""
    supervisor = stage.program("agent").only_child()
    (agent,) = children_of(supervisor)
    return supervisor, agent


def client_came_back(stage: Stage, since: float, *, within: float) -> float:
    """When the client's first question arrived."""
    assert wait_until(lambda: stage.world.seen(since=since).count(*CLIENT) > 0, within=within)
    return stage.world.seen(since=since).first(*CLIENT) or 0.0


def test_an_isolation_outlives_its_agent_but_not_its_deadline(stage: Stage):
    """The agent dies: it comes back, still isolated. Everything of it dies: silence goes on, to the deadline."""
    task = stage.responder.order("isolate", HOSTNAME, "--duration", f"{ISOLATED_SECONDS}s")
    done = monotonic_of(task.changed)
    supervisor, agent = agent_of(stage)
    os.kill(agent, signal.SIGKILL)
    assert wait_until(lambda: children_of(supervisor) not in ([], [agent]), within=10)
    time.sleep(1)  # sleep: let the new agent find its isolation before all of it dies
    os.kill(supervisor, signal.SIGKILL)
    time.sleep(1)  # sleep: packets that were under way count as before
    assert heard(stage, done + READ_SECONDS) == {}
    back = client_came_back(stage, done + READ_SECONDS, within=ISOLATED_SECONDS + 10)
    assert ISOLATED_SECONDS - 1 < back - done < ISOLATED_SECONDS + RESUME_SECONDS
    assert stage.ruleset() != ""  # the kernel has stopped enforcing them; nobody was there to remove them
    stage.start_agent()
    assert wait_until(lambda: online(stage), within=60)
    assert wait_until(lambda: stage.ruleset() == "", within=30)
    stage.responder.order("list-processes", HOSTNAME, "--match", "nobody")


def test_an_isolation_that_cuts_off_the_server_is_rolled_back(stage: Stage):
    """The router lets no new connection to the server through: after a minute all traffic is back, and it is said."""
    router = stage.lab.outside.enter
    no_new = f"add table inet gone; add chain inet gone f {{ type filter hook forward priority 0; }}; {NO_NEW}"
    output_of(*router, "nft", no_new)
    order = stage.responder.one(OrderView, "isolate", HOSTNAME, "--duration", "1h")
    assert wait_until(lambda: not heard(stage, time.monotonic() - 0.5), within=10)
    back = client_came_back(stage, time.monotonic(), within=KERNEL_SECONDS + 10)
    assert CONFIRM_SECONDS - 1 < back - monotonic_of(order.created) < KERNEL_SECONDS
    output_of(*router, "nft", "delete table inet gone")
    assert wait_until(lambda: only_task(stage, order).state.final, within=120)
    task = only_task(stage, order)
    assert (task.state, task.error and task.error.code) == (State.FAILED, "unconfirmed")
    assert stage.ruleset() == ""


def only_task(stage: Stage, order: OrderView) -> TaskView:
    """The one task of an order, as it is now."""
    (task,) = stage.responder.one(OrderView, "order", "show", order.id).tasks
    return task
