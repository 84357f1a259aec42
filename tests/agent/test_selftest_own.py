"""What is the agent's own: each thing that can be wrong with it, and what would help."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stanch.agent import selftest_own
from stanch.agent.selftest_own import account, agent, clock, evidence_key, identity, journal, policy, server, state
from stanch.agent.selftest_probe import Bench, Outcome
from stanch.agent.settings import Settings
from stanch.agent.supervisor import locked
from stanch.core.errors import Invalid, NotFound, Unavailable, VerificationFailed
from stanch.core.types import seconds
from tests.fakes.endpoint_state import EVIDENCE_KEY, Used
from tests.fakes.gateway import FakeGateway, gateway

THEN = datetime.fromtimestamp(1_800_000_000, UTC)


@pytest.fixture
def used(tmp_path: Path) -> Used:
    return Used(tmp_path).enrol()


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    async with gateway(tmp_path) as one:
        yield one


def bench(used: Used, **more: object) -> Bench:
    return replace(Bench(settings=used.settings), **more)


async def test_the_account_is_told(used, monkeypatch):
    """An agent that is not root is limited."""
    monkeypatch.setattr(selftest_own, "capabilities", lambda: {"root": "runs as user id 1000, not as root"})
    assert (await account(bench(used))).state is Outcome.LIMITED


# --- identity, folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "state", "says"),
    [(-30, Outcome.FAILED, "not valid before"), (30, Outcome.FAILED, "expired"), (0, Outcome.LIMITED, "valid until")],
)
async def test_the_certificate_has_its_time(used, days, state, says):
    """Too early, too late, or soon over: the certificates of the tests live for a day."""
    now = datetime.now(UTC) + timedelta(days=days)
    found = await identity(bench(used, now=lambda: now))
    assert (found.state, says in found.seen) == (state, True)


def test_a_certificate_with_time_left():
    """There is nothing to be done."""
    found = selftest_own._valid("ep_1", THEN, THEN + timedelta(days=90), THEN + timedelta(days=1))
    assert (found.state, found.help) == (Outcome.OK, None)


async def test_not_enrolled_and_open_to_others(tmp_path, used):
    """Errors of the identity are the finding."""
    with pytest.raises(NotFound):
        await identity(Bench(settings=Settings(state=tmp_path / "nowhere")))
    used.settings.state.chmod(0o755)
    with pytest.raises(VerificationFailed, match="open to others"):
        await identity(bench(used))
    with pytest.raises(VerificationFailed, match="open to others"):
        await state(bench(used))


async def test_the_folder_is_written_to(used, monkeypatch):
    """Really written, and its free space told; little of it is a limit."""
    assert (await state(bench(used))).state is Outcome.OK
    monkeypatch.setattr(selftest_own, "LEAST_FREE", 2**60)
    found = await state(bench(used))
    assert found.state is Outcome.LIMITED
    assert "Make room" in (found.help or "")


async def test_a_disk_that_takes_nothing(used, monkeypatch):
    """Full, read-only or broken: the error is the finding."""

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(selftest_own, "atomic_write", full)
    with pytest.raises(OSError, match="No space"):
        await state(bench(used))
    assert not [*used.settings.state.glob("selftest-*")]


# --- journal ---------------------------------------------------------------------------------------------------------


async def test_before_the_first_run_there_is_nothing_to_see(used):
    """Journal, time and key come with the first link."""
    for look in (journal, clock, evidence_key):
        assert (await look(bench(used))).state is Outcome.SKIPPED


async def test_the_journal_says_what_is_in_force(used):
    """Effects, open tasks, what waits."""
    found = await journal(bench(used.work()))
    assert found.seen == "1 effects in force, 0 open tasks, 1 messages wait for the server"
    assert (await evidence_key(bench(used))).seen.startswith(EVIDENCE_KEY[:12])


async def test_a_broken_journal_is_an_error(used):
    """With the advice to start the agent, which begins a new one."""
    used.settings.journal.write_bytes(b"rubbish" * 1000)
    with pytest.raises(Unavailable) as caught:
        await journal(bench(used))
    assert "begins a new one" in str(caught.value.hint)


@pytest.mark.parametrize(("off", "state"), [(0, Outcome.OK), (3600, Outcome.LIMITED), (-3600, Outcome.LIMITED)])
async def test_the_clock_of_the_machine_is_compared(used, off, state):
    """With the agent's own time, which nobody can set."""
    found = await clock(bench(used.work(), now=lambda: THEN + timedelta(seconds=off)))
    assert found.state is state


async def test_an_agent_without_time(used):
    """Nobody has signed anything for it yet."""
    assert "does not know the time" in (await clock(bench(used.work(time=None, effect=False)))).seen


async def test_a_running_agent_is_seen(used):
    """By its lock; without its socket it cannot be asked."""
    assert (await agent(bench(used))).state is Outcome.SKIPPED
    with locked(used.settings.state):
        assert (await agent(bench(used))).state is Outcome.LIMITED
        used.settings.socket.parent.mkdir()
        used.settings.socket.touch()
        assert (await agent(bench(used))).state is Outcome.OK


# --- server ----------------------------------------------------------------------------------------------------------


async def test_the_server_answers(serving, tmp_path):
    """A question on a new connection; what was looked up for it is not the agent's."""
    settings = Settings(state=tmp_path / "state", config=tmp_path / "agent.toml")
    serving.identity(settings.state)
    found = await server(Bench(settings=settings))
    assert found.state is Outcome.OK, found
    assert sorted(one.name for one in settings.state.iterdir()) == ["credentials-ep_test.pem", "identity.json"]


async def test_a_server_that_is_away(serving, tmp_path, monkeypatch):
    """It says why, and what may stand between."""
    monkeypatch.setattr(selftest_own, "CONFIRM_WITHIN", seconds(0.2))
    settings = Settings(state=tmp_path / "state", config=tmp_path / "agent.toml")
    serving.identity(settings.state)
    await serving.stop()
    found = await server(Bench(settings=settings))
    assert found.state is Outcome.FAILED
    assert "does not answer" in found.seen


async def test_a_proxy_that_cannot_be_used_is_said(used):
    """Without its password in the words."""
    used.settings.config.write_text('[link]\nproxy = "ftp://a:hidden@b"\n')
    with pytest.raises(Invalid) as caught:
        await server(bench(used))
    assert "hidden" not in str(caught.value)


# --- policy ----------------------------------------------------------------------------------------------------------


async def test_what_the_owner_forbids_is_told(used):
    """And what must be switched on, and is."""
    found = await policy(bench(used.limit('[actions]\nforbid = ["get_file"]\n')))
    assert "forbids get_file" in found.seen
    assert "shell off" in found.seen
    found = await policy(bench(used.limit('[actions]\nenable = ["shell"]\n')))
    assert "shell on" in found.seen
    assert found.state is Outcome.LIMITED


async def test_a_broken_policy_fails(used):
    """Every order is refused until it is repaired."""
    used.settings.config.write_text("[actions]\nforbit = []\n")
    found = await policy(bench(used))
    assert (found.state, "refuses every order" in (found.help or "")) == (Outcome.FAILED, True)
