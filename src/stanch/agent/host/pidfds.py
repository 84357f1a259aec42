"""Descriptors of processes: each stays with one process for ever, whoever gets its pid later.

Whether a process has ended is asked of its pidfd as well. The state letter does not tell: if the main thread has ended
and others go on, /proc shows a zombie that runs.
"""

import asyncio
import errno
import os
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from stanch.agent.host.procfs import read_stat, read_threads
from stanch.core.errors import ActionFailed, Unsupported
from stanch.core.processes import ProcessId

BATCH = 256
"""Descriptors held at a time while waiting: a tree may be larger than what a process may open."""

_QUICK_LOOKS, _SLOW_LOOKS = 25, 250
"""How often to look whether a signalled process stands still: first at once, then each millisecond."""

PAUSES = (*[0.0] * _QUICK_LOOKS, *[0.001] * _SLOW_LOOKS)
"""Seconds to wait between two looks at what should stand still soon."""


@contextmanager
def pidfd_of(pid: int) -> Iterator[int | None]:
    """A descriptor of the process that has this pid; None if there is none."""
    pidfd = _open(pid)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in {errno.ESRCH, errno.EINVAL, errno.ENOENT}:  # the latter two: a thread's number
            return None
        if error.errno == errno.ENOSYS:
            raise Unsupported("This kernel has no pidfds", expected="Linux 5.3 or newer") from error
        raise ActionFailed(f"Process {pid} cannot be held", got=error.strerror) from error


@contextmanager
def hold(one: ProcessId) -> Iterator[int | None]:
    """A descriptor of exactly this process; None if it has ended or its pid has been given to another."""
    with pidfd_of(one.pid) as pidfd:
        stat = None if pidfd is None or has_ended(pidfd) else read_stat(one.pid)
        yield pidfd if stat is not None and stat.started == one.started else None


def has_ended(pidfd: int) -> bool:
    """Have all its threads ended? Whether anybody has asked for its exit status does not matter."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def send(one: ProcessId, number: signal.Signals) -> bool:
    """Send exactly this process a signal; False if it is gone, ActionFailed if that is not allowed."""
    with hold(one) as pidfd:
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            raise ActionFailed(
                f"Process {one.pid} takes no signal from the agent",
                got=f"user id {os.geteuid()}",
                expected="root, with CAP_KILL",
            ) from None
        return True


async def stop(one: ProcessId) -> bool:
    """SIGSTOP it and wait until it stands still, so that it can fork no more; False if it is gone."""
    if not send(one, signal.SIGSTOP):
        return False
    for pause in PAUSES:
        if _stands_still(one):
            break
        await asyncio.sleep(pause)
    # One that waits inside the kernel for long (a device, a frozen group, the child of a vfork) is left at that.
    return True


def _stands_still(one: ProcessId) -> bool:
    # Not D: a thread that waits inside fork is past the point where a signal would have stopped it.
    return all(thread.state in "TtZX" for thread in read_threads(one.pid))


async def wait_gone(ones: Sequence[ProcessId], deadline: float) -> tuple[ProcessId, ...]:
    """Wait until they have ended, up to a time of the event loop's clock; those that have not."""
    left: list[ProcessId] = []
    for start in range(0, len(ones), BATCH):
        left += await _wait(ones[start : start + BATCH], deadline)
    return tuple(left)


async def _wait(ones: Sequence[ProcessId], deadline: float) -> list[ProcessId]:
    with ExitStack() as held:
        pidfds = {one: held.enter_context(hold(one)) for one in ones}
        left = {one: pidfd for one, pidfd in pidfds.items() if pidfd is not None}
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                for pidfd in left.values():
                    await _readable(pidfd)
        return [one for one, pidfd in left.items() if not has_ended(pidfd)]


async def _readable(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
