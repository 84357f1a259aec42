"""One worker of a scan at its work: fed, heard and paused at the same time; what comes of it is one stream."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final

from stanch.agent.host.scanner_feeding import Feeder
from stanch.agent.host.scanner_hearing import Message, Wanted, heard
from stanch.agent.host.scanner_parts import Control
from stanch.agent.host.scanner_pressure import Patient, Totals, processor_time
from stanch.agent.host.scanner_worker import Worker
from stanch.core.scan_wire import Command
from stanch.core.scanning import Advance

LOOK_EVERY: Final = 1.0
"""Seconds between looks at the pressure."""
WAITING: Final = 4
"""Messages that wait for whoever takes them; then the worker waits."""


class Throttle:
    """Pauses workers of one scan, as somebody orders it and as others need the machine."""

    def __init__(
        self,
        control: Control,
        totals: Callable[[], Totals],
        *,
        gentle: bool,
        used: Callable[[int], float] = processor_time,
    ) -> None:
        self._control = control
        self._totals = totals
        self._gentle = gentle
        self._used = used
        self._used_before = 0.0
        """Seconds of the processor that earlier workers have used."""
        self._used_now = 0.0
        self.bytes_read = 0
        """By all workers, as far as they have told it."""
        self._now = asyncio.get_running_loop().time
        self.patient = Patient()
        self.paused = False
        self.waited = 0.0
        """Seconds, on order and for others."""
        self._since = 0.0

    async def run(self, worker: Worker, tell: Callable[[], Awaitable[None]], *, loaded: asyncio.Future[Wanted]) -> None:
        """For one worker, until it is cancelled; `tell` is called after each change.

        Not before it has loaded everything: until then it reads rules, and a command would be taken for one.
        """
        self._become(paused=False)  # a new worker works
        self._used_before, self._used_now = self._used_before + self._used_now, 0.0
        self.patient.forget()
        began = self._now()
        await asyncio.wait({loaded})
        self.patient.worked += self._now() - began
        while True:
            wants = self._control.ordered or await self._pressed(worker.pid)
            if wants is not self.paused:
                await worker.say(Command(type="pause" if wants else "resume"))
                self._become(paused=wants)
                await tell()
            await self._change()

    @property
    def why(self) -> str:
        """Why it waits; nothing if it does not."""
        if not self.paused:
            return ""
        return "on order" if self._control.ordered else f"others wait for {self.patient.resource or 'the machine'}"

    async def _pressed(self, worker: int) -> bool:
        if not self._gentle:
            return False
        totals, self._used_now = await asyncio.to_thread(lambda: (self._totals(), self._used(worker)))
        used = self._used_before + self._used_now
        return self.patient.tell(self._now(), totals, little=self.patient.has_done_little(used, self.bytes_read))

    def _become(self, *, paused: bool) -> None:
        now = self._now()
        if self.paused:
            self.waited += now - self._since
        self.paused, self._since = paused, now

    def told(self) -> dict[str, object]:
        """The fields of an `Advance` about it."""
        return {"paused": self.paused, "why": self.why}

    def total(self) -> float:
        """Seconds that it has waited up to now."""
        return self.waited + (self._now() - self._since if self.paused else 0.0)

    async def _change(self) -> None:
        """Until somebody orders something, or it is time to look again."""
        try:
            async with asyncio.timeout(LOOK_EVERY if self._gentle and not self._control.ordered else None):
                await self._control.changed.wait()
                self._control.changed.clear()
        except TimeoutError:
            pass
        else:
            self.patient.forget()


class Attempt:
    """A worker, from its job to its end or death."""

    def __init__(self, worker: Worker, feeder: Feeder, throttle: Throttle, *, silence: float) -> None:
        self._worker = worker
        self._feeder = feeder
        self._throttle = throttle
        self._silence = silence
        self._queue: asyncio.Queue[Message | Exception | None] = asyncio.Queue(WAITING)
        self._last = Advance()
        self.silent = False
        """Was it given up, as it said nothing any more?"""

    async def messages(self) -> AsyncGenerator[Message, None]:
        """What it says until its end. Raises what went wrong with feeding it, ActionFailed for nonsense."""
        loop = asyncio.get_running_loop()
        throttling = self._throttle.run(self._worker, self._tell_pause, loaded=self._feeder.wanted)
        parts = (self._read(), self._feeder.run(self._worker), throttling)
        tasks = [loop.create_task(self._kept(one)) for one in parts]
        try:
            while (message := await self._next()) is not None:
                if isinstance(message, Exception):
                    raise message
                self._note(message)
                yield message
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self) -> Message | Exception | None:
        while True:
            if not self._queue.empty():  # nothing has to be waited for, and no time to be bounded
                return self._queue.get_nowait()
            try:
                async with asyncio.timeout(self._silence):
                    return await self._queue.get()
            except TimeoutError:
                if not self._throttle.paused:
                    self.silent = True
                    return None

    async def _kept(self, part: Awaitable[None]) -> None:
        """A part that fails ends all of it."""
        try:
            await part
        except Exception as error:  # noqa: BLE001 - raised again where the messages are taken
            await self._queue.put(error)

    async def _read(self) -> None:
        async for line in self._worker.lines():
            async for message in heard(line):
                await self._queue.put(message)
        await self._worker.ended(within=1)
        await self._queue.put(None)

    async def _tell_pause(self) -> None:
        await self._queue.put([self._last.model_copy(update=self._throttle.told())])

    def _note(self, message: Message) -> None:
        if isinstance(message, Wanted):
            if not self._feeder.wanted.done():
                self._feeder.wanted.set_result(message)
        elif isinstance(message, Sequence):
            self._last = next((one for one in reversed(message) if isinstance(one, Advance)), self._last)
            self._throttle.bytes_read = max(self._throttle.bytes_read, self._last.bytes)
