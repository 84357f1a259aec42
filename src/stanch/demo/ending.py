"""Ctrl-C and SIGTERM as an orderly end: one is enough, and more of them do not disturb the tidying up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """Somebody asked the demo to end; not an error, so nothing but the way out catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise Ended in this block at the first signal, and ignore the ones that follow."""

    def end(number: int, _frame: FrameType | None) -> None:
        for one in ENDS:
            signal.signal(one, signal.SIG_IGN)
        raise Ended(number)

    before = {one: signal.signal(one, end) for one in ENDS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put the end off until this block is through: a program that was half started would be forgotten."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals never disturb other threads
        return
    caught: list[int] = []
    before = {one: signal.signal(one, lambda number, _frame: caught.append(number)) for one in ENDS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    for number in caught[:1]:
        signal.raise_signal(number)
