"""Items handed over in batches that are small, whatever is on the endpoint; they are made in threads.

What is read of a hostile process or file is bounded here once more: an item has a weight, and a batch too, so that
neither the message that carries it nor the memory that holds it grows with what somebody has put there.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import Event
from typing import Final, TypeVar, cast

from stanch.agent.host.patience import MOST_HANGING
from stanch.core.errors import ActionFailed, StanchError
from stanch.core.ioc.items import CUT, Item, Value

T = TypeVar("T")

MAX_BATCH = 200
"""Items in a batch."""
MAX_WEIGHT = 300_000
"""Characters of an item, and of a batch of several: each takes up to twelve bytes in a message."""
MAX_TEXT = 131_072
"""Characters of one value."""
MAX_PIECE = 0.25
"""Seconds after which a thread hands over what it has, so that a scan can be broken off soon."""
SILENCE: Final = 120.0
"""Seconds without an item, or a sign, after which a document is given up: some file system does not answer."""

_THREAD: Final = "items"
"""What the threads that make items are called."""
_TOLD: Final = 10
"""Places that are named of those that were left out."""
_FEW, _SHORT = 100, 1000
"""Values, and characters of each, of an item that is small for sure."""
_EACH = 16
"""What a value weighs beside its characters."""

Values = dict[str, tuple[Value, ...]]

Make = Callable[[Event], Iterator[Item | None]]
"""Makes the items, in a thread, until the event is set; None now and then where no item comes for long."""


async def in_batches(make: Make, *, silence: float | None = SILENCE) -> AsyncIterator[Sequence[Item]]:
    """The items in batches; then what `make` raised, if that is a StanchError.

    ActionFailed, after the items that had come, if for so many seconds neither an item nor a None comes; None if `make`
    itself sees to that. A thread that goes on then, or when nobody wants more, is told to stop, and not waited for.
    """
    stop = Event()
    items, piece = make(stop), _Piece()
    try:
        while piece.more or piece.kept:
            batch = list(piece.kept)
            try:
                piece = await _in_thread(partial(_next, items, batch), silence)
            except ActionFailed as error:  # a thread may hang, and what it has is whole
                piece = _Piece(tuple(batch), more=False, failed=error)
            if piece.batch:
                yield piece.batch
            if piece.failed is not None:
                raise piece.failed
    finally:
        stop.set()
        if isinstance(items, Generator):
            with suppress(ValueError):  # a thread is still at it
                items.close()


async def _in_thread(do: Callable[[], T], silence: float | None) -> T:
    """In a thread of its own: one that hangs in a file system keeps no thread of others, and no end of the agent."""
    if sum(one.name == _THREAD for one in threading.enumerate()) >= MOST_HANGING:
        raise ActionFailed("Too many file systems did not answer", got=f"{MOST_HANGING} threads still wait for them")
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    def work() -> None:
        settle: Callable[[], object]
        try:
            settle = partial(_settle, answer.set_result, answer, do())
        except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
            settle = partial(_settle, answer.set_exception, answer, error)
        with suppress(RuntimeError):  # nobody is there any more
            loop.call_soon_threadsafe(settle)

    try:
        threading.Thread(target=work, name=_THREAD, daemon=True).start()
    except RuntimeError as error:
        raise ActionFailed("A thread could not be started", got=str(error), hint="Is there a pids limit?") from error
    try:
        async with asyncio.timeout(silence):
            return cast("T", await answer)
    except TimeoutError:
        hint = "Is a home folder on a server that is gone? `stanch ioc scan --without` leaves documents out."
        raise ActionFailed(
            "What is to be read does not answer", got=f"nothing for {silence:.0f} s", hint=hint
        ) from None


def _settle(how: Callable[[T], None], answer: "asyncio.Future[T]", what: T) -> None:
    if not answer.done():
        how(what)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What a thread brings."""

    batch: Sequence[Item] = ()
    kept: Sequence[Item] = ()
    """What did not fit into the batch."""
    more: bool = True
    """May there be more?"""
    failed: StanchError | None = None


def _next(items: Iterator[Item | None], batch: list[Item]) -> _Piece:
    """Up to a batch more, which grows under the eyes of whoever waits; what did not fit into the last is in it."""
    weight = sum(map(weight_of, batch))
    until = time.monotonic() + MAX_PIECE
    try:
        for item in items:
            if item is not None:
                own = weight_of(item)
                if batch and weight + own > MAX_WEIGHT:
                    return _Piece(batch, [item])
                batch.append(item)
                weight += own
            if len(batch) >= MAX_BATCH or time.monotonic() > until:
                return _Piece(batch)
    except StanchError as error:
        return _Piece(batch, more=False, failed=error)
    return _Piece(batch, more=False)


def up_to(items: Iterable[Item | None], most: int) -> Iterator[Item | None]:
    """So many of them; ActionFailed after these if there are more."""
    left = most
    for one in items:
        if one is not None:
            left -= 1
            if left < 0:
                raise not_all([f"only the first {most} of all that there are"])
        yield one


def not_all(missed: Iterable[str]) -> ActionFailed:
    """What a collector raises at its end if it has left something out."""
    told = list(islice(missed, _TOLD + 1))
    more = [] if len(told) <= _TOLD else ["..."]
    got = "; ".join([*(_printable(one[:300]) for one in told[:_TOLD]), *more])
    return ActionFailed("Not all of it could be looked at", got=got, expected="all of it, or terms stay unknown")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def weight_of(item: Item) -> int:
    """About how many characters it has."""
    values = sum(len(path) + _weight(some) for path, some in item.values.items())
    return len(item.name) + values + sum(len(key) + _weight([one]) for key, one in item.about.items())


def _weight(values: Iterable[Value]) -> int:
    return sum(_EACH + (len(one) if isinstance(one, str) else 0) for one in values)


def bounded(values: Mapping[str, Sequence[Value]], wanted: frozenset[str]) -> Values:
    """The wanted ones, each value once and cut; lists are cut where the item would become too heavy, and end with CUT.

    The short lists come first: no list of a thousand handles costs a process its name.
    """
    found = Values(
        {path: tuple(dict.fromkeys(some) if len(some) > 1 else some) for path, some in values.items() if path in wanted}
    )
    return found if _is_small(found) else _fitted(found)


def _is_small(found: Values) -> bool:
    """Is it so small that nothing has to be cut? Nearly every item is."""
    return sum(map(len, found.values())) <= _FEW and all(
        len(one) <= _SHORT for some in found.values() for one in some if isinstance(one, str)
    )


def _fitted(values: Values) -> Values:
    left, found = MAX_WEIGHT - 10_000, Values()  # name and about weigh something, too
    for path in sorted(values, key=lambda one: len(values[one])):
        left -= len(path) + _EACH
        kept = list[Value]()
        for value in dict.fromkeys(map(_cut, values[path])):
            left -= _weight([value])
            if left < 0:
                break
            kept.append(value)
        is_whole = len(kept) == len(values[path]) and not any(map(_is_long, values[path]))
        found[path] = tuple(kept) if is_whole else (*(one for one in kept if one is not CUT), CUT)
    return found


def _is_long(value: Value) -> bool:
    return isinstance(value, str) and len(value) > MAX_TEXT


def _cut(value: Value) -> Value:
    return value[:MAX_TEXT] if isinstance(value, str) else value


def chunks(of: Iterable[int], size: int) -> Iterator[list[int]]:
    """Lists of that many, the last perhaps shorter."""
    rest = iter(of)
    while some := list(islice(rest, size)):
        yield some
