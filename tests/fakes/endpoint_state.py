"""The state folder of an endpoint that was used: identity, journal, vault, local policy, and a secret in each."""

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrage import x25519

from stanch.agent.alone import run_alone
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.identity import Binding
from stanch.agent.journal import Journal
from stanch.agent.settings import Settings
from stanch.agent.spool import Spool
from stanch.agent.tasks import Ledger, Outcome, Phase, Task
from stanch.core.envelope import Kind, OrderBody
from stanch.core.errors import TargetGone
from stanch.core.isolation import ReleaseCode
from stanch.core.task import State
from tests.fakes.gateway import FakeGateway

PASSWORD = "pr0xy-pässword"
ENROLLED_PASSWORD = "enr0lled"
CODE = ReleaseCode.of("7KQ29XTRM4WB0ZHD", b"0123456789abcdef", iterations=1)
EVIDENCE_KEY = str(x25519.Identity.generate().to_public())
PARAMETER = "/home/alice/very-private"


@dataclass(frozen=True)
class Used:
    """An endpoint that was used."""

    folder: Path

    @property
    def settings(self) -> Settings:
        """Its places."""
        return Settings(
            state=self.folder / "state", config=self.folder / "agent.toml", socket=self.folder / "stanch" / "agent.sock"
        )

    def enrol(self) -> "Used":
        """It has an identity, given through a proxy."""
        identity = FakeGateway(self.folder).identity(self.settings.state)
        proxied = {"binding": Binding.here(boot_id()), "proxy": f"http://bob:{ENROLLED_PASSWORD}@192.0.2.3:3128"}
        identity.model_copy(update=proxied).save(self.settings.state)
        return self

    def limit(self, text: str = "") -> "Used":
        """It has a local policy, with the password of a proxy."""
        proxy = f'[link]\nproxy = "http://alice:{PASSWORD}@192.0.2.2:3128"\n'
        self.settings.config.write_text(proxy + text)
        self.settings.config.chmod(0o600)
        return self

    def work(self, *, effect: bool = True, time: int | None = 1_800_000_000) -> "Used":
        """Its agent has run: a task that failed, an effect, the time, a message that waits."""
        _in_thread(self._work(effect=effect, time=time))
        return self

    def quarantine(self, name: str = "dropper") -> "Used":
        """A file of it is in the vault."""
        file = self.folder / name
        file.write_bytes(b"malware")
        _in_thread(run_alone(self.settings.config, self.settings.state, "quarantine", {"path": [str(file)]}))
        return self

    async def _work(self, *, effect: bool, time: int | None) -> None:
        journal = Journal(self.settings.journal)
        clock = AgentClock(journal, boot_seconds, boot_id())
        if time is not None:
            clock.observe(time)
        spool = Spool(journal, clock)
        ledger, order = Ledger(journal, clock, spool), an_order()
        task = Task(order=order, iat=1)
        await ledger.accept(task, Phase.BEGUN)
        await ledger.record(order.task, {"record": PARAMETER})
        gone = Outcome.of(State.FAILED, TargetGone("Gone", got=PARAMETER))
        await ledger.finish(task, gone, spool.notice("test", {"path": PARAMETER}))
        await journal.put({Kind.ADDRESSES: {"evidence_key": EVIDENCE_KEY}})
        if effect:
            held = an_order(release_code=CODE)
            await Effects(journal, clock).hold(
                held,
                "account-alice",
                lift_action="unlock_account",
                lift_params={"account": "alice"},
                detail={"account": "alice"},
                lasts=None,
            )
        await journal.close()


def _in_thread(work: Coroutine[Any, Any, object]) -> None:
    """In a loop of its own, whether the test has one or not."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def an_order(**more: Any) -> OrderBody:
    """An order for this endpoint."""
    known: Mapping[str, Any] = {
        "order": "o1",
        "task": "t1",
        "action": "get_file",
        "params": {"path": [PARAMETER]},
        "requested_by": "ann",
        "action_version": 1,
        "origin": "api",
        "reason": "test",
    }
    return OrderBody(**{**known, **more})
