"""What the agent process does, from its start until SIGTERM; `main.py` starts it, and the supervisor watches it."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
import uvloop

from stanch.agent import recovery
from stanch.agent.host.pen import free_left, usual_groups
from stanch.agent.settings import Settings
from stanch.agent.supervisor import BEAT_VARIABLE, EXIT_NOT_ENROLLED
from stanch.agent.wire import Agent, assembled
from stanch.core.errors import NotFound, StanchError, Unavailable, VerificationFailed

BEAT_SECONDS = 10.0
"""Well under the silence that the supervisor allows."""

POLICY_SECONDS = 60.0
PRUNE_SECONDS = 86_400.0

EXIT_FAILED = 1

log = structlog.get_logger()


async def run(settings: Settings, *, beat: Callable[[], None], stop: asyncio.Event) -> None:
    """Run an agent until `stop`; its unfinished tasks go on at the next start."""
    async with assembled(settings) as agent:
        gc.collect()
        gc.freeze()  # what is there now stays: a full collection would look at all of it, and the link would wait
        log.info("agent-up", endpoint=agent.identity.endpoint, state=str(settings.state))
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(_beat(beat))
            await free_left(usual_groups())
            await agent.vault.recover()
            await recovery.recover(agent.executor)
            jobs = [
                beating,
                group.create_task(agent.link.run(about=agent.about, accept=agent.executor.accept)),
                group.create_task(agent.effects.due_loop(agent.executor.lift)),
                group.create_task(agent.keeper.run()),
                group.create_task(agent.control.run()),
                group.create_task(agent.public.run()),
                group.create_task(agent.renewal.run()),
                group.create_task(agent.updates.run()),
                group.create_task(_keep_house(agent)),
            ]
            await stop.wait()
            for job in jobs:
                job.cancel()
    log.info("agent-down")


async def _beat(beat: Callable[[], None]) -> None:
    while True:
        beat()
        await asyncio.sleep(BEAT_SECONDS)


async def _keep_house(agent: Agent) -> None:
    """What is due now and then: notice a changed local policy, remove what was in the vault long enough, forget."""
    pruned = 0.0
    while True:
        await asyncio.sleep(POLICY_SECONDS)
        pruned += POLICY_SECONDS
        try:
            await agent.executor.policy.look()
            await agent.vault.expire()
            if pruned >= PRUNE_SECONDS:
                pruned = 0.0
                await agent.executor.ledger.prune()
        except Unavailable as error:
            log.warning("housekeeping-failed", error=str(error))


def supervisors_beat() -> Callable[[], None]:
    """Writes a byte into the supervisor's pipe; does nothing where there is no supervisor."""
    number = os.environ.get(BEAT_VARIABLE, "")
    if not number.isdecimal():
        return lambda: None
    pipe = int(number)
    os.set_inheritable(pipe, False)

    def beat() -> None:
        with suppress(BlockingIOError):  # it is full of beats that nobody has read yet
            os.write(pipe, b".")

    return beat


def configure_logging() -> None:
    """One JSON object per line on standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=str),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def main() -> int:
    """Run the agent in this process until SIGTERM; the exit code tells the supervisor whether to try again."""
    configure_logging()
    settings = Settings.from_environment(os.environ)
    try:
        uvloop.run(_until_signal(settings))
    except StanchError as error:
        log.critical("agent-failed", **error.body().model_dump(exclude_none=True))
        return EXIT_NOT_ENROLLED if isinstance(error, NotFound | VerificationFailed) else EXIT_FAILED
    return 0


async def _until_signal(settings: Settings) -> None:
    stop: Any = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    await run(settings, beat=supervisors_beat(), stop=stop)
