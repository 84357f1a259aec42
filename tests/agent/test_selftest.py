"""The self-test as a whole: every probe has its say, none stops the others, and nothing is left behind."""

import asyncio
import os
from pathlib import Path

import pytest

from stanch.agent.selftest import PROBES, chosen, names, selftest
from stanch.agent.selftest_probe import Bench, Finding, Outcome, Probe, ok
from stanch.core.errors import Invalid, Unsupported
from stanch.core.types import seconds
from tests.fakes.endpoint_state import Used

PREFIX = f"stanch-test-{os.getpid()}-all-"
NOT_HERE = {"server"}
"""Has tests of its own: here nobody listens, and it would take its time to find out."""


def bench(tmp_path: Path) -> Bench:
    return Bench(settings=Used(tmp_path).settings)


def probe(name: str, result: Finding | Exception) -> Probe:
    async def look(_bench: Bench) -> Finding:
        if isinstance(result, Exception):
            raise result
        return result

    return Probe(name=name, look=look, within=seconds(5))


async def test_a_probe_that_fails_stops_no_other(tmp_path):
    """Whatever it raises is its finding, with what would help where the error says so."""
    errors = [
        Unsupported("No nft", got="nothing", hint="Install it."),
        PermissionError(13, "Permission denied", "/etc/shadow"),
        OSError(5, "Input/output error"),
        ZeroDivisionError("a slip"),
    ]
    probes = [*(probe(f"bad{n}", error) for n, error in enumerate(errors)), probe("good", ok("fine"))]
    found = await selftest(bench(tmp_path), probes=probes)
    assert [one.state for one in found.checks] == [Outcome.FAILED] * 4 + [Outcome.OK]
    assert found.failed == 4
    first, second, third, fourth, _ = found.checks
    assert (first.seen, first.help) == ("No nft (nothing)", "Install it.")
    assert "/etc/shadow" in second.seen
    assert "sudo" in (second.help or "")
    assert "Input/output" in third.seen
    assert "a slip" in fourth.seen


async def test_a_probe_that_hangs_is_given_up(tmp_path):
    """Each has its own time, be it one that blocks in a thread."""
    never = asyncio.Event()

    async def hang(_bench: Bench) -> Finding:
        await never.wait()
        return ok("never")

    found = await selftest(bench(tmp_path), probes=[Probe(name="slow", look=hang, within=seconds(0.01))])
    assert (found.checks[0].state, found.checks[0].seen) == (Outcome.FAILED, "nothing after 0.01 s")


async def test_odd_bytes_and_endless_texts_are_told(tmp_path):
    """A finding may quote the name of a file, which is anything."""
    found = await selftest(bench(tmp_path), probes=[probe("odd", ok("\udcff" + "x" * 10_000))])
    assert len(found.checks[0].seen) <= 4000
    found.model_dump_json()


def test_only_some_may_be_asked_for():
    """By their names, which are told where one is wrong."""
    assert [one.name for one in chosen(["vault", "clock"])] == ["clock", "vault"]
    assert len(set(names())) == len(PROBES)
    with pytest.raises(Invalid, match="evidence-key"):
        chosen(["vaults"])


@pytest.mark.root
async def test_nothing_is_left_behind(tmp_path):
    """Neither in the state folder, nor in the journal, nor among the control groups; and nothing fails here."""
    used = Used(tmp_path).enrol().limit().work()
    before = contents(tmp_path)
    found = await selftest(Bench(settings=used.settings, group_prefix=PREFIX), only=set(names()) - NOT_HERE)
    assert contents(tmp_path) == before
    assert groups() == []
    assert {one.name: one.seen for one in found.checks if one.state is Outcome.FAILED} == {}


@pytest.mark.root
async def test_a_machine_that_was_never_enrolled(tmp_path):
    """What needs an identity fails and says what to do; what does not is tried all the same, and nothing is made."""
    found = await selftest(bench(tmp_path), only=set(names()) - NOT_HERE)
    states = {one.name: one.state for one in found.checks}
    assert {name for name, state in states.items() if state is Outcome.FAILED} == {"identity", "state"}
    assert states["vault"] is Outcome.SKIPPED
    assert "stanch agent enroll" in next(one.help or "" for one in found.checks if one.name == "identity")
    assert list(tmp_path.iterdir()) == []


def groups() -> list[Path]:
    return [*Path("/sys/fs/cgroup").glob(f"**/{PREFIX}*")]


def contents(folder: Path) -> dict[str, object]:
    return {str(one): one.read_bytes() if one.is_file() else None for one in folder.rglob("*")}
