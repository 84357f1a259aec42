"""Look into the memory of processes with the rules.

Its start is compared before and after: a number that was given anew meanwhile is not blamed.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from stanch.worker.scan import telling
from stanch.worker.scan.looking import yara_finding
from stanch.worker.scan.rules import Hit, NotScanned, RuleSet, TooLong
from stanch.worker.scan.telling import Telling

_START: Final = 19
_FLAGS: Final = 6
"""Fields of `stat` after the name, from 0."""
_KERNEL_THREAD: Final = 0x0020_0000


def within(seconds: float, work: Callable[[], None]) -> bool:
    """Do it, in a thread that is given up after so long: a page of a mapped file may never come. False if it was."""
    failed: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            failed.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    return not thread.is_alive()


def started(pid: int) -> tuple[int, bool] | None:
    """When it started, in ticks since boot, and is it a thread of the kernel; None if it is gone."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fields = os.read(file, 4096).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(file)
    if len(fields) <= _START or fields[0] in {b"Z", b"X"}:
        return None
    return int(fields[_START]), bool(int(fields[_FLAGS]) & _KERNEL_THREAD)


def program(pid: int) -> bytes:
    """The file that it runs; empty if that cannot be known."""
    try:
        path = os.readlink(f"/proc/{pid}/exe".encode())  # noqa: PTH115 - no path that leads anywhere
    except OSError:
        return b""
    return path.removesuffix(b" (deleted)")


def look(
    process: Mapping[str, Any], rules: RuleSet, telling_: Telling, forbidden: Callable[[bytes], bool] | None = None
) -> None:
    """At one process as the agent named it; nothing that it does is raised.

    What it runs may be another program since it was named, and one that is forbidden: so it is asked before and after.
    """
    pid, since, name = int(process["pid"]), int(process["started"]), str(process["name"])
    shown = f"{name} ({pid})"
    if pid in {os.getpid(), os.getppid()}:
        return
    now = started(pid)
    if now is None or now[0] != since:
        telling_.skip(shown, "gone")
        return
    if now[1] or _is_forbidden(pid, shown, forbidden, telling_):
        return
    hits = _searched(pid, shown, rules, telling_)
    if hits is None:
        return
    after = started(pid)
    if after is None or after[0] != since:
        telling_.skip(shown, "gone", "it ended meanwhile" if hits else "")
    elif not _is_forbidden(pid, shown, forbidden, telling_):
        telling_.searched()
        path = os.fsencode(str(process.get("path") or ""))
        about = {"document": "ProcessItem", "name": telling.text(shown), "pid": pid, "started": since}
        for hit in hits:
            telling_.finding(yara_finding(hit, {**about, **telling.path_about(path)}))


def _is_forbidden(pid: int, shown: str, forbidden: Callable[[bytes], bool] | None, telling_: Telling) -> bool:
    """Is its program below a path that is forbidden? Then that is told."""
    is_so = forbidden is not None and forbidden(program(pid))
    if is_so:
        telling_.skip(shown, "forbidden", "the local policy of this machine", judged=True)
    return is_so


def _searched(pid: int, shown: str, rules: RuleSet, telling_: Telling) -> Sequence[Hit] | None:
    """What was found in its memory; None if that could not be searched, which is told."""
    try:
        return rules.match_process(pid)
    except TooLong:
        telling_.skip(shown, "timed-out", judged=True)
    except NotScanned as error:
        gone = started(pid) is None
        telling_.skip(shown, "gone" if gone else "unreadable", "" if gone else str(error), judged=True)
    return None
