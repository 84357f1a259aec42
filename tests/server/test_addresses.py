"""Where agents are told to go: our names, resolved again and again, and what was announced."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import Denied, Invalid
from stanch.core.network import Peer
from stanch.core.policy import Role
from stanch.core.rest import ServerAddresses
from stanch.server.addresses import OwnAddresses, look_up_peers, parse_url
from stanch.server.audit import page
from stanch.server.services import MAX_URLS
from stanch.server.settings import Settings
from stanch.server.store.database import Database
from tests.fakes.server_parts import SetClock, principal
from tests.fakes.waiting import eventually

NEW = "https://new.test:8444"


@dataclass
class Names:
    """A resolver in memory."""

    known: dict[str, tuple[str, ...]] = field(default_factory=dict)
    asked: int = 0

    async def __call__(self, name: str, port: int) -> Sequence[Peer]:
        self.asked += 1
        return [Peer(address=ip_address(one), port=port) for one in self.known.get(name, ())]


def own(folder: Path, database: Database, names: Names, *advertised: str) -> OwnAddresses:
    settings = Settings(data=folder, names=advertised or ("stanch.test",))
    return OwnAddresses(settings, port=8444, database=database, now=SetClock(), look_up=names)


def urls(*some: str) -> ServerAddresses:
    return ServerAddresses(urls=some)


def peers(addresses: OwnAddresses) -> list[str]:
    return [str(one.address) for one in addresses.peers]


async def test_endpoints_are_told_the_evidence_key(tmp_path, database):
    """With the addresses, at the start and after each look at them."""
    addresses = OwnAddresses(
        Settings(data=tmp_path, names=("stanch.test",)),
        port=1,
        database=database,
        evidence_key="age1key",
        now=SetClock(),
        look_up=Names(),
    )
    assert addresses.body(reached=None, nonce=None).evidence_key == "age1key"
    await addresses.refresh()
    assert addresses.body(reached=None, nonce=None).evidence_key == "age1key"


async def test_urls_and_what_is_behind_them(tmp_path, database):
    """A URL for each name, and the addresses that it has."""
    addresses = own(tmp_path, database, Names({"stanch.test": ("10.0.0.1", "2001:db8::1")}))
    assert (addresses.urls, addresses.peers) == (("https://stanch.test:8444",), ())
    await addresses.refresh()
    assert peers(addresses) == ["10.0.0.1", "2001:db8::1"]


async def test_the_system_is_asked():
    """Literal addresses as they are, names as they resolve; one that does not resolve here is no error."""
    assert [str(one.address) for one in await look_up_peers("2001:db8::1", 1)] == ["2001:db8::1"]
    assert "127.0.0.1" in [str(one.address) for one in await look_up_peers("localhost", 1)]
    assert await look_up_peers("does-not-exist.invalid", 1) == []


async def test_a_name_that_gets_no_answer_keeps_its_addresses(tmp_path, database):
    """An outage of our name server must not send agents elsewhere."""
    names = Names({"stanch.test": ("10.0.0.1",)})
    addresses = own(tmp_path, database, names)
    await addresses.refresh()
    names.known = {}
    await addresses.refresh()
    assert peers(addresses) == ["10.0.0.1"]
    names.known = {"stanch.test": ("10.0.0.2",)}
    await addresses.refresh()
    assert peers(addresses) == ["10.0.0.2"]


async def test_a_name_server_that_hangs_is_not_waited_for(tmp_path, database, monkeypatch):
    """The other names are resolved meanwhile."""
    monkeypatch.setattr("stanch.server.addresses.LOOK_UP_SECONDS", 0.01)
    names = Names({"b.test": ("10.0.0.2",)})

    async def look_up(name: str, port: int) -> Sequence[Peer]:
        return await (asyncio.Event().wait() if name == "a.test" else names(name, port))

    settings = Settings(data=tmp_path, names=("a.test", "b.test"))
    addresses = OwnAddresses(settings, port=1, database=database, now=SetClock(), look_up=look_up)
    await addresses.refresh()
    assert peers(addresses) == ["10.0.0.2"]


async def test_agents_are_told_when_something_changes(tmp_path, database):
    """Once for each change, and again if telling them failed."""
    names = Names({"stanch.test": ("10.0.0.1",)})
    addresses = own(tmp_path, database, names)
    await addresses.refresh()
    told: list[list[str]] = []
    fails = False

    async def moved() -> None:
        if fails:
            raise ConnectionError
        told.append(peers(addresses))

    async with asyncio.TaskGroup() as group:
        task = group.create_task(addresses.follow(moved, every=0.001))
        await eventually(lambda: names.asked > 3)
        assert told == []
        names.known = {"stanch.test": ("10.0.0.2",)}
        await eventually(lambda: told == [["10.0.0.2"]])
        task.cancel()
    fails = True
    names.known = {"stanch.test": ("10.0.0.3",)}
    with pytest.raises(ConnectionError):
        await addresses.follow(moved, every=0.001)
    fails = False
    async with asyncio.TaskGroup() as group:
        task = group.create_task(addresses.follow(moved, every=0.001))
        await eventually(lambda: told == [["10.0.0.2"], ["10.0.0.3"]])
        task.cancel()


async def test_an_announced_address_is_told_at_once_and_kept(tmp_path, database):
    """Beside the configured ones, over restarts, in the certificate and in the audit."""
    names = Names({"stanch.test": ("10.0.0.1",), "new.test": ("10.0.0.9",)})
    addresses, told = own(tmp_path, database, names), asyncio.Event()
    await addresses.refresh()

    async def moved() -> None:
        told.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(addresses.follow(moved, every=1000.0))
        await asyncio.sleep(0)
        view = await addresses.announce(principal(), urls(NEW, "https://NEW.test:8444/"))
        async with asyncio.timeout(20):
            await told.wait()
        task.cancel()
    assert view.announced == (NEW,)
    assert view.peers == ("10.0.0.1:8444", "10.0.0.9:8444")
    assert addresses.body(reached=None, nonce=None).urls == ("https://stanch.test:8444", NEW)
    assert "new.test" in addresses.certified
    again = own(tmp_path, database, names)
    assert again.view(principal(Role.VIEWER)).announced == (NEW,)
    (entry,), _ = await database.read(lambda connection: page(connection, None, 10))
    assert (entry.what, entry.detail) == ("addresses", {"before": [], "now": [NEW]})


async def test_two_announcements_at_once_leave_one_truth(tmp_path, database):
    """What is told, what is in the file and what the audit says last are the same, and each names what it replaced."""
    addresses = own(tmp_path, database, Names())
    wanted = [f"https://n{n}.test:8444" for n in range(8)]
    await asyncio.gather(*(addresses.announce(principal(), urls(one)) for one in wanted))
    entries, _ = await database.read(lambda connection: page(connection, None, 10))
    history = [entry.detail for entry in reversed(entries)]
    assert [one["before"] for one in history] == [[], *(one["now"] for one in history[:-1])]
    kept = own(tmp_path, database, Names()).view(principal()).announced
    assert kept == addresses.view(principal()).announced == tuple(history[-1]["now"])


async def test_who_reaches_some_endpoints_announces_nothing(tmp_path, database):
    """Every agent would be told."""
    addresses = own(tmp_path, database, Names())
    with pytest.raises(Denied, match="every endpoint"):
        await addresses.announce(principal(labels=("site=a",)), urls(NEW))
    assert addresses.view(principal()).announced == ()


async def test_what_was_announced_can_be_taken_back(tmp_path, database):
    """An empty list leaves the configured ones."""
    addresses = own(tmp_path, database, Names())
    await addresses.announce(principal(), urls(NEW))
    assert (await addresses.announce(principal(), urls())).announced == ()
    assert addresses.urls == ("https://stanch.test:8444",)


@pytest.mark.parametrize(
    "url",
    [
        "http://a:1",
        "https://",
        "https://a:x",
        "https://u:p@a:1",
        "https://a:1/x",
        "https://a b:1",
        "a:1",
        "",
        "https://a:0",
        "https://a#b:1",
        "https://0.0.0.0:1",
        "https://[::]:1",
        "https://224.0.0.1:1",
        "https://[fe80::1]:1",
        "https://[fe80::1%25eth0]:1",
        "https://[2001:db8::1%25eth0]:1",
    ],
)
async def test_only_gateways_can_be_announced(tmp_path, database, url):
    """A mistake is found here, not on every endpoint; nothing of the request is kept."""
    addresses = own(tmp_path, database, Names())
    with pytest.raises(Invalid):
        await addresses.announce(principal(), urls(NEW, url))
    assert addresses.view(principal()).announced == ()


async def test_only_an_administrator_announces(tmp_path, database):
    """Whoever can name an address can take agents away."""
    with pytest.raises(Denied):
        await own(tmp_path, database, Names()).announce(principal(Role.INCIDENT_LEAD), urls(NEW))


async def test_the_number_is_bounded(tmp_path, database):
    """All of them must fit in one envelope."""
    addresses = own(tmp_path, database, Names(), *(f"h{n}.test" for n in range(MAX_URLS)))
    with pytest.raises(Invalid, match="so many"):
        await addresses.announce(principal(), urls(NEW))


@pytest.mark.parametrize("content", [b"", b"{", b'{"urls": ["ftp://x"]}', b'{"urls": 1}', b"\xff" * 9])
def test_a_damaged_file_announces_nothing(tmp_path, database, content):
    """The server starts all the same."""
    (tmp_path / "addresses.json").write_bytes(content)
    assert own(tmp_path, database, Names()).urls == ("https://stanch.test:8444",)


@given(st.text(max_size=60) | st.text(max_size=40).map("https://{}".format))
def test_no_text_breaks_the_parser(text):
    """Whatever comes is a host and a port, or Invalid."""
    try:
        host, port = parse_url(text)
    except Invalid:
        return
    assert host
    assert 0 < port < 65536
