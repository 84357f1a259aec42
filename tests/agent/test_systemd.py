"""systemd is asked where it runs, and nowhere else."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from stanch.agent.host.run import Finished
from stanch.agent.systemd import AGENT, UNITS, Systemd
from stanch.core.errors import ActionFailed

SHOWN = (
    b"Id=stanch-isolation.service\nLoadState=loaded\n\nId=stanch-agent.service\nLoadState=loaded\nActiveState=active\n"
)


class FakeSystemctl:
    """Remembers what was asked."""

    def __init__(self, stdout: bytes = SHOWN, returncode: int = 0) -> None:
        self.answer = Finished(returncode, stdout, b"Failed to connect to bus")
        self.asked: list[str] = []

    async def __call__(self, argv: Sequence[str], *, within: timedelta, output_limit: int = 0) -> Finished:
        self.asked.append(" ".join(argv))
        return self.answer


def booted(run: FakeSystemctl) -> Systemd:
    return Systemd(run=run, boots=lambda _path: True)


async def test_units_are_told_by_name():
    """Each with its states."""
    units = await booted(FakeSystemctl()).units()
    assert units[AGENT]["ActiveState"] == "active"
    assert set(units) <= set(UNITS)


async def test_where_it_does_not_run_nothing_is_asked(tmp_path):
    """Neither on a machine with another init, nor of an image."""
    run = FakeSystemctl()
    for there in (Systemd(run=run, boots=lambda _path: False), Systemd(run=run, root=tmp_path, boots=Path.exists)):
        assert not there.runs
        assert await there.units() == {}
        await there.stop()
        await there.reload()
    assert run.asked == []


async def test_only_what_it_knows_is_stopped():
    """A unit that is not there would be an error."""
    run = FakeSystemctl(SHOWN.replace(b"loaded", b"not-found", 1))
    await booted(run).stop()
    assert run.asked[1].endswith("disable --now stanch-agent.service")
    run = FakeSystemctl(SHOWN.replace(b"loaded", b"not-found"))
    await booted(run).stop()
    assert len(run.asked) == 1


async def test_a_failure_is_told_in_its_words():
    """What systemctl says is the reason."""
    with pytest.raises(ActionFailed, match="bus"):
        await booted(FakeSystemctl(returncode=1)).units()


async def test_udev_hears_of_it_too():
    """Its rules are files like the units."""
    run = FakeSystemctl()
    await booted(run).reload()
    assert [one.split()[0] for one in run.asked] == ["systemctl", "udevadm"]
