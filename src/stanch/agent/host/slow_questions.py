"""Questions to the system's libraries that may take half a minute and cannot be stopped.

Each gets a thread that nobody waits for, at exit neither, and at most one per question: an outage of a name or account
server must not use up the threads in which the agent reads files.
"""

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class SlowQuestions(Generic[T]):
    """Asks in threads of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked: dict[Hashable, asyncio.Future[T]] = {}

    async def ask(self, key: Hashable, question: Callable[[], T]) -> T:
        """The answer, or the error; one question at a time for each key, which all who ask wait for."""
        if key not in self._asked:
            loop = asyncio.get_running_loop()
            self._asked[key] = loop.create_future()
            Thread(target=self._run, args=(loop, key, question), name=self._name, daemon=True).start()
        return await asyncio.shield(self._asked[key])

    def _run(self, loop: asyncio.AbstractEventLoop, key: Hashable, question: Callable[[], T]) -> None:
        tell: Callable[[asyncio.Future[T]], None]
        try:
            answer = question()
            tell = lambda future: future.set_result(answer)  # noqa: E731 - two ways to end one future
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            failed = error
            tell = lambda future: future.set_exception(failed)  # noqa: E731 - see above
        with suppress(RuntimeError):  # the agent has stopped meanwhile
            loop.call_soon_threadsafe(self._answer, key, tell)

    def _answer(self, key: Hashable, tell: Callable[[asyncio.Future[T]], None]) -> None:
        future = self._asked.pop(key)
        if not future.done():
            tell(future)
            future.exception()  # whoever asked may have gone: nobody needs to hear of an error then
