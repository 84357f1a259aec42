"""Runtimes of containers, and systemd: what is there, what is silent, what is not started."""

from pathlib import Path

import pytest

from stanch.agent import selftest_machine
from stanch.agent.host.containers import LinuxContainers
from stanch.agent.selftest_machine import containers, systemd
from stanch.agent.selftest_probe import Bench, Outcome
from stanch.agent.systemd import AGENT, Systemd
from stanch.core.containers import Runtime
from stanch.disk.service_files import PACKAGED, UNITS
from tests.fakes.endpoint_state import Used

GROUPS = Runtime(name="control groups", place="/sys/fs/cgroup", answers=False, detail="they show 0 containers")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(settings=Used(tmp_path).settings, root=tmp_path / "image")


def runtime(place: object, *, answers: bool) -> Runtime:
    return Runtime(name="docker", place=str(place), answers=answers, detail="it says so")


@pytest.mark.parametrize(
    ("there", "answers", "state"),
    [(False, False, Outcome.SKIPPED), (True, False, Outcome.LIMITED), (True, True, Outcome.OK)],
)
async def test_runtimes_that_are_there_should_answer(bench, monkeypatch, there, answers, state):
    """One that is not installed is missed by nobody."""
    socket = bench.settings.config
    if there:
        socket.touch()

    async def runtimes(_self: LinuxContainers) -> list[Runtime]:
        return [GROUPS, runtime(socket, answers=answers)]

    monkeypatch.setattr(LinuxContainers, "runtimes", runtimes)
    assert (await containers(bench)).state is state


async def test_without_systemd_nothing_is_asked(bench):
    """What is installed is told all the same."""
    found = await systemd(bench)
    assert (found.state, "stanch-agent.service absent" in found.seen) == (Outcome.SKIPPED, True)


@pytest.mark.parametrize(
    ("package", "active", "state"),
    [(False, "active", Outcome.LIMITED), (True, "failed", Outcome.LIMITED), (True, "active", Outcome.OK)],
)
async def test_units_are_installed_enabled_and_active(bench, monkeypatch, package, active, state):
    """Anything less is a limit, with what to type."""
    if package:
        unit = bench.root / PACKAGED[UNITS] / AGENT
        unit.parent.mkdir(parents=True)
        unit.touch()

    class Booted(Systemd):
        runs = True

        async def units(self) -> dict[str, dict[str, str]]:
            return {AGENT: {"UnitFileState": "enabled", "ActiveState": active}}

    monkeypatch.setattr(selftest_machine, "Systemd", lambda **_places: Booted())
    found = await systemd(bench)
    assert (found.state, found.help is None) == (state, state is Outcome.OK)
