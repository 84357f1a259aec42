"""Ctrl-C and SIGTERM end the demo once, and do not disturb its tidying up."""

import os
import signal
import threading

import pytest

from stanch.demo.ending import ENDS, Ended, ended_by_signals, undisturbed


def disturbed(number: int, tidied: list[int]) -> None:
    """Work that is ended by a signal, and whose tidying up meets more of them."""
    try:
        os.kill(os.getpid(), number)
    finally:
        for again in ENDS:
            os.kill(os.getpid(), again)
        tidied.append(number)


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_ends_and_further_ones_are_ignored(number: int):
    """The first raises Ended with the shell's exit code; while things are removed, more of them do nothing."""
    tidied: list[int] = []
    with pytest.raises(Ended) as caught, ended_by_signals():
        disturbed(number, tidied)
    assert caught.value.exit_code == 128 + number
    assert tidied == [number]


def test_handlers_are_put_back():
    """Afterwards signals mean what they meant before."""
    before = [signal.getsignal(one) for one in ENDS]
    with ended_by_signals():
        assert [signal.getsignal(one) for one in ENDS] != before
    assert [signal.getsignal(one) for one in ENDS] == before


def test_no_ordinary_handler_swallows_the_end():
    """`except Exception` somewhere on the way does not keep the demo alive."""
    assert not issubclass(Ended, Exception)


def registered(number: int, kept: list[str]) -> None:
    """Something is started and kept, and a signal comes in between."""
    with undisturbed():
        os.kill(os.getpid(), number)
        kept.append("program")
    kept.append("more")


@pytest.mark.parametrize("number", ENDS)
def test_what_must_not_be_disturbed_is_finished_first(number: int):
    """The signal takes effect right after the block: what was started in it is known, and nothing follows."""
    kept: list[str] = []
    with pytest.raises(Ended), ended_by_signals():
        registered(number, kept)
    assert kept == ["program"]


def test_other_threads_are_never_disturbed():
    """Signals go to the main thread, so elsewhere the block is nothing special."""
    kept: list[str] = []

    def work() -> None:
        with undisturbed():
            kept.append("program")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert kept == ["program"]
