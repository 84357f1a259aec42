"""What works on this machine and, if not, why and what would help: `stanch agent selftest`.

Each probe really does what the agent would do, on something that is made for it and removed again: rules in a network
namespace of their own, a process of our own, a file in a vault of its own. Nothing of the machine is changed. Each has
its time, and none stops the others.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import structlog

from stanch import __version__
from stanch.agent.selftest_files import FILE_PROBES
from stanch.agent.selftest_kernel import KERNEL_PROBES
from stanch.agent.selftest_machine import MACHINE_PROBES
from stanch.agent.selftest_own import OWN_PROBES
from stanch.agent.selftest_probe import Bench, Check, Finding, Outcome, Probe, failed, looked
from stanch.core.errors import MAX_TEXT, Invalid, StanchError
from stanch.core.model import Model
from stanch.core.types import Text

PROBES: tuple[Probe, ...] = (*OWN_PROBES, *KERNEL_PROBES, *FILE_PROBES, *MACHINE_PROBES)
"""In the order in which they are told."""


class SelfTest(Model):
    """What was found."""

    version: Text
    """Of the agent that is installed here."""
    failed: int
    """How many probes failed."""
    checks: tuple[Check, ...]
    """One for each probe."""


def names() -> tuple[str, ...]:
    """Of every probe."""
    return tuple(one.name for one in PROBES)


def chosen(only: Collection[str], probes: Sequence[Probe] = PROBES) -> list[Probe]:
    """These probes, all if none is named; Invalid if there is no such one."""
    known = {one.name for one in probes}
    unknown = sorted(set(only) - known)
    if unknown:
        raise Invalid("There is no such check", got=", ".join(unknown)[:200], expected=", ".join(sorted(known)))
    return [one for one in probes if not only or one.name in only]


async def selftest(bench: Bench, *, only: Collection[str] = (), probes: Sequence[Probe] = PROBES) -> SelfTest:
    """Try everything, one after the other: they must not disturb each other. Invalid if a name is wrong."""
    some = chosen(only, probes)
    await bench.in_thread(bench.sweep)
    with _silent():
        checks = tuple([_check(one, await _tried(one, bench)) for one in some])
    return SelfTest(version=__version__, failed=sum(one.state is Outcome.FAILED for one in checks), checks=checks)


@contextmanager
def _silent() -> Iterator[None]:
    """What goes wrong is in the findings; lines of the log would stand in between."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def _check(probe: Probe, found: Finding) -> Check:
    seen = found.seen[:MAX_TEXT].encode("utf-8", "replace").decode()
    return Check(name=probe.name, state=found.state, seen=seen, help=found.help)


async def _tried(probe: Probe, bench: Bench) -> Finding:
    try:
        return await looked(probe, bench)
    except StanchError as error:
        facts = f" ({error.got})" if error.got else ""
        return failed(f"{error.message}{facts}", error.hint)
    except TimeoutError:
        return failed(f"nothing after {probe.within.total_seconds():g} s", "Is the machine very busy, or its disk?")
    except PermissionError as error:
        return failed(f"{error.filename or 'it'}: {error.strerror}", "Try again as root, with sudo.")
    except OSError as error:
        return failed(f"{error.filename or 'it'}: {error.strerror or error}", None)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - a probe that is wrong itself must not hide what the others see
        return failed(f"{type(error).__name__}: {error}", "This is an error of the check itself: please report it.")
