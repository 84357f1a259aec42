"""What a bundle tells of the machine: only ours, and bounded."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from stanch.agent import bundle_machine
from stanch.agent.bundle_machine import disk_use, log_tail, tables
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.run import Finished, run
from stanch.agent.selftest_kernel import RULES
from stanch.core.errors import ActionFailed, Unsupported
from stanch.core.types import hours
from tests.netns import netns


class FakeRun:
    """Remembers the lines, and answers the same to each."""

    def __init__(self, answer: Finished) -> None:
        self.answer = answer
        self.lines: list[str] = []

    async def __call__(self, argv: Sequence[str], *, within: timedelta, output_limit: int = 0) -> Finished:
        assert within.total_seconds() <= 30
        assert 0 < output_limit <= 8 * 2**20
        self.lines.append(" ".join(argv))
        return self.answer


@pytest.mark.root
def test_only_our_own_tables_are_told():
    """Without the number by which the rules know somebody's packets."""
    with netns() as inside:
        inside.command("nft add table inet theirs")
        firewall = inside.run(isolate)
        told = inside.run(lambda: tables(run))
    assert "table inet stanch {" in told
    assert "theirs" not in told
    assert f"{firewall._secret:#x}"[2:] not in told.lower()
    assert "meta priority set (left out)" in told


async def isolate() -> NftFirewall:
    firewall = NftFirewall(Namespace.current("net"))
    await firewall.isolate(RULES, lift_after=hours(1))
    await firewall.close()
    return firewall


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(bundle_machine, "find", lambda name: f"/usr/bin/{name}")


async def test_tables_that_are_not_there(installed):
    """Are said not to be; nothing else is asked for."""
    ran = FakeRun(Finished(1, b"", b"Error: No such file or directory"))
    assert (await tables(ran)).splitlines()[0] == "# no inet stanch"
    assert len(ran.lines) == 4
    assert all("list table" in line for line in ran.lines)


async def test_the_end_of_the_log(installed):
    """The last 2,000 lines of our units, and no others."""
    ran = FakeRun(Finished(0, b"line\n", b""))
    assert await log_tail(ran) == "line\n"
    (line,) = ran.lines
    assert "--lines=2000" in line
    assert "--unit=stanch-agent.service" in line
    with pytest.raises(ActionFailed, match="no journal"):
        await log_tail(FakeRun(Finished(1, b"", b"no journal files")))


async def test_without_the_programs_it_is_said(monkeypatch):
    """Which one is missing."""
    monkeypatch.setattr("stanch.agent.host.run.PATH", "/nonexistent")
    for part in (log_tail, tables):
        with pytest.raises(Unsupported):
            await part(run)


def test_disk_use_names_only_the_top(tmp_path):
    """Folders with all that is in them; a link is not followed."""
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault/secret-name").write_bytes(bytes(100))
    (tmp_path / "link").symlink_to("/usr")
    told = disk_use(tmp_path)
    assert set(told["bytes"]) == {"vault", "link"}
    assert told["bytes"]["vault"] >= 100
    assert told["bytes"]["link"] < 100
