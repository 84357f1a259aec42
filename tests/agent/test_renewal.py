"""Renewing the certificate: in time, only with the right answer, and never without a whole identity on the disk."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.certificates import new_key
from stanch.agent.clock import AgentClock
from stanch.agent.identity import Identity
from stanch.agent.journal import Journal
from stanch.agent.renewal import AFTER, AT_LEAST, BACKDATED, SPREAD, TELL_SECONDS, TOLD, Renewal, due
from stanch.agent.spool import Spool
from stanch.core.errors import Expired, Invalid, TooManyRequests, Unavailable, VerificationFailed
from stanch.core.frames import RENEW_PATH
from stanch.disk.atomic import Disk, atomic_write
from tests.fakes.gateway import ENDPOINT, Authority, FakeGateway
from tests.fakes.waiting import eventually

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Killed(BaseException):
    """`kill -9`, here."""


class Server:
    """Signs what it is asked to sign, unless a test says otherwise."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.asked: list[str] = []
        self.answer: Callable[[str], bytes] = self.issue

    async def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        assert (method, path) == ("POST", RENEW_PATH)
        self.asked.append(json.loads(body)["csr"])
        return self.answer(self.asked[-1])

    def issue(self, csr: str, *, name: str = ENDPOINT) -> bytes:
        key = x509.load_pem_x509_csr(csr.encode()).public_key()
        return json.dumps({"certificate": self.authority.issue(name, key)}).encode()


class Endpoint:
    """An enrolled endpoint whose certificate is valid for a day from now: always due."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.state = folder / "state"
        fake = FakeGateway(folder, port=8444)
        self.first = fake.identity(self.state)
        self.server, self.journal = Server(fake.authority), journal
        self.boot = 0.0
        self.clock = AgentClock(journal, lambda: self.boot, "boot")
        self.clock.observe(int(datetime.now(UTC).timestamp()))
        self.spool = Spool(journal, self.clock)
        self.used: list[ssl.SSLContext] = []
        self.proved = asyncio.Event()

    def renewal(self) -> Renewal:
        """Of a new start of the agent."""

        async def change(tls: ssl.SSLContext) -> None:
            self.proved.clear()
            self.used.append(tls)

        return Renewal(
            identity=Identity.load(self.state),
            state=self.state,
            gateway=self.server,
            change=change,
            proved=self.proved,
            clock=self.clock,
            journal=self.journal,
            spool=self.spool,
            wall=lambda: datetime.now(UTC),
            jitter=lambda: 0.5,
        )

    def files(self) -> set[str]:
        """The credentials that are there."""
        return {one.name for one in self.state.glob("credentials-*")}

    async def notices(self) -> list[str]:
        """What the server will be told."""
        return [one.kind for one in await self.spool.pending(100)]


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    journal = Journal(tmp_path / "journal.db")
    try:
        yield Endpoint(tmp_path, journal)
    finally:
        await journal.close()


# --- when ---


def test_two_thirds_of_its_life():
    """Counted from when it was issued, not from when it is backdated to."""
    issued = NOW + BACKDATED
    assert due(NOW, issued + timedelta(days=300), share=AFTER) == issued + timedelta(days=200)


def test_at_least_seven_days_before_its_end():
    """A short one is renewed sooner than after two thirds."""
    issued = NOW + BACKDATED
    assert due(NOW, issued + timedelta(days=9), share=AFTER) == issued + timedelta(days=2)


@given(st.integers(1, 4000), st.floats(0, 1, exclude_max=True))
def test_it_is_always_due_before_it_ends(days, jitter):
    """However long it lives, and wherever the fleet's spread puts this one."""
    until = NOW + timedelta(days=days)
    share = AFTER + SPREAD * (2 * jitter - 1)
    assert due(NOW, until, share=share) <= until - min(AT_LEAST, (until - NOW) / 4)


async def test_nothing_is_done_before_it_is_time(endpoint):
    """By the agent's clock, which the server sets."""
    endpoint.clock = AgentClock(endpoint.journal, lambda: 0.0, "boot")
    endpoint.clock.observe(0, fresh=True)
    assert await endpoint.renewal().look() is False
    assert endpoint.server.asked == []


async def test_nothing_is_done_while_nobody_knows_the_time(endpoint, tmp_path):
    """Before the first signed envelope."""
    other = Journal(tmp_path / "other.db")
    endpoint.clock = AgentClock(other, lambda: 0.0, "boot")
    assert await endpoint.renewal().look() is False
    await other.close()


# --- how ---


async def test_a_new_key_and_certificate_take_the_place_of_the_old(endpoint):
    """The identity points at them, TLS uses them, the old file stays until the server has accepted the new."""
    renewal = endpoint.renewal()
    assert await renewal.look() is True
    now = Identity.load(endpoint.state)
    assert now.endpoint == endpoint.first.endpoint
    assert endpoint.files() == {endpoint.first.credentials(endpoint.state).name, now.credentials(endpoint.state).name}
    assert len(endpoint.used) == 1
    before, after = (one.credentials(endpoint.state).read_bytes() for one in (endpoint.first, now))
    assert _key(before) != _key(after)
    assert now.credentials(endpoint.state).stat().st_mode & 0o777 == 0o600


def _key(credentials: bytes) -> bytes:
    return credentials.partition(b"-----BEGIN CERTIFICATE")[0]


async def test_the_old_file_goes_when_the_new_one_was_accepted(endpoint):
    """And not before; renewing goes on for ever."""
    renewal = endpoint.renewal()
    endpoint.server.answer = _once(endpoint.server.issue)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(renewal.run(every=0.01))
        await eventually(lambda: len(endpoint.server.asked) > 2)
        assert len(endpoint.files()) == 2
        endpoint.proved.set()
        await eventually(lambda: len(endpoint.files()) == 1)
        running.cancel()
    Identity.load(endpoint.state).tls(endpoint.state)


def _once(issue: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """The first is answered; from then on the server has trouble."""
    left = [issue]

    def answer(csr: str) -> bytes:
        if not left:
            raise Unavailable("The server has trouble of its own")
        return left.pop()(csr)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        lambda server, csr: server.issue(csr, name="ep_other"),
        lambda server, csr: Server(Authority("test CA")).issue(csr),
        lambda server, _csr: json.dumps({"certificate": server.authority.issue(ENDPOINT, new_key().public_key())}),
        lambda server, _csr: json.dumps({"certificate": server.authority.pem}),
        lambda _server, _csr: b"{}",
        lambda _server, _csr: b"\xff",
        lambda _server, _csr: json.dumps({"certificate": "x" * 30_000}),
    ],
    ids=["another name", "another CA", "another key", "the CA", "empty", "bytes", "too long"],
)
async def test_a_wrong_answer_changes_nothing(endpoint, answer):
    """Whoever sent it: the identity stays as it was."""
    before = (endpoint.state / "identity.json").read_bytes()
    endpoint.server.answer = lambda csr: _bytes(answer(endpoint.server, csr))
    with pytest.raises((VerificationFailed, Invalid)):
        await endpoint.renewal().look()
    assert (endpoint.state / "identity.json").read_bytes() == before
    assert len(endpoint.files()) == 1
    assert endpoint.used == []


def _bytes(answer: str | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.encode()


async def test_a_certificate_that_is_over_is_not_taken(endpoint):
    """In the place of one that still works it would cut the endpoint off for good."""
    before = (endpoint.state / "identity.json").read_bytes()
    endpoint.clock.observe(int((datetime.now(UTC) + timedelta(days=2)).timestamp()))
    with pytest.raises(VerificationFailed, match="not valid now"):
        await endpoint.renewal().look()
    assert (endpoint.state / "identity.json").read_bytes() == before
    assert endpoint.used == []


# --- failures ---


async def test_a_failure_is_told_once_a_day_and_tried_every_hour(endpoint):
    """With its reason; across restarts of the agent too."""
    endpoint.server.answer = _failing(TooManyRequests("Not now"))
    for day in range(2):
        for start in range(3):
            async with asyncio.TaskGroup() as group:
                running = group.create_task(endpoint.renewal().run(every=0.001))
                seen = len(endpoint.server.asked)
                await eventually(lambda seen=seen: len(endpoint.server.asked) > seen + 3)
                running.cancel()
            assert await endpoint.notices() == ["certificate-renewal-failed"] * (day + 1), start
        endpoint.boot += TELL_SECONDS + 1
    (first, _) = await endpoint.spool.pending(100)
    assert first.detail["error"]["message"] == "Not now"


def _failing(error: Exception) -> Callable[[str], bytes]:
    def answer(_csr: str) -> bytes:
        raise error

    return answer


async def test_a_lost_file_does_not_end_the_agent(endpoint):
    """It is a failure like any other."""
    renewal = endpoint.renewal()
    endpoint.first.credentials(endpoint.state).unlink()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(renewal.run(every=0.001))
        await eventually(lambda: endpoint.journal.get(TOLD))
        running.cancel()
    assert await endpoint.notices() == ["certificate-renewal-failed"]


async def test_an_expired_certificate_is_the_reason(endpoint):
    """The server ends such connections without a word: the agent says why, and what to do."""
    renewal = endpoint.renewal()
    error = Unavailable("The server does not answer")
    await renewal.look()
    assert renewal.explain(error) is error
    endpoint.boot += timedelta(days=2).total_seconds()
    explained = renewal.explain(error)
    assert isinstance(explained, Expired)
    assert "stanch agent enroll --again" in str(explained)
    assert "does not answer" in str(explained)


async def test_after_a_long_time_without_power_the_wall_clock_explains(endpoint):
    """The agent's own time stands still at what it knew."""
    renewal = endpoint.renewal()
    await renewal.look()
    renewal._wall = lambda: datetime.now(UTC) + timedelta(days=700)
    assert isinstance(renewal.explain(Unavailable("no")), Expired)


# --- kill -9 ---


class FatalDisk(Disk):
    """Dies before its n-th system call."""

    def __init__(self, life: int) -> None:
        self.life = life

    def _step(self) -> None:
        self.life -= 1
        if self.life < 0:
            raise Killed

    def create(self, folder: int, name: str) -> int:
        self._step()
        return super().create(folder, name)

    def write(self, file: int, data: memoryview) -> int:
        self._step()
        return super().write(file, data[: max(1, len(data) // 2)])

    def sync(self, file: int) -> None:
        self._step()
        super().sync(file)

    def replace(self, folder: int, name: str, target: str) -> None:
        self._step()
        super().replace(folder, name, target)

    def sync_folder(self, folder: int) -> None:
        self._step()
        super().sync_folder(folder)

    def remove(self, folder: int, name: str) -> None:
        """The dead clean up nothing."""


async def test_a_kill_at_any_step_leaves_a_whole_identity(endpoint, monkeypatch):
    """Old or new, each with the key that belongs to its certificate; and the next start renews as if nothing was."""
    died = 0
    for life in range(100):
        disk = FatalDisk(life)
        with monkeypatch.context() as patch:
            for module in ("identity", "renewal"):
                patch.setattr(f"stanch.agent.{module}.atomic_write", partial(atomic_write, disk=disk))
            try:
                await endpoint.renewal().look()
                break
            except Killed:
                died += 1
        Identity.load(endpoint.state).tls(endpoint.state)
    assert died >= 10
    assert await endpoint.renewal().look() is True
    renewal = endpoint.renewal()
    await renewal._tidy()
    assert endpoint.files() == {Identity.load(endpoint.state).credentials(endpoint.state).name}


@pytest.mark.parametrize("dies_in", ["request", "change"])
async def test_a_kill_between_the_files_and_the_server(endpoint, monkeypatch, dies_in):
    """Before the answer the old identity stays; after it was written down the next start has the new one."""
    renewal = endpoint.renewal()
    target = endpoint.server if dies_in == "request" else renewal

    async def die(*_: object) -> bytes:
        raise Killed

    monkeypatch.setattr(target, "request" if dies_in == "request" else "_change", die)
    with pytest.raises(Killed):
        await renewal.look()
    now = Identity.load(endpoint.state)
    assert (now == endpoint.first) is (dies_in == "request")
    now.tls(endpoint.state)
