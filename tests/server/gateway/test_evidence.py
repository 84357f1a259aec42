"""Evidence over HTTP: hashed parts, each endpoint's own, every wrong request answered."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from io import BytesIO

import pyrage
import pytest
from pyrage import x25519

from stanch.core.frames import ENCODING_HEADER, EVIDENCE_PATH, PART_BYTES, PART_HASH_HEADER, PLAIN_HASH_HEADER
from tests.server.live import Agent, Live, Wire

DATA = b"evidence " * 100


def hashed(data: bytes) -> dict[str, str]:
    return {PART_HASH_HEADER: hashlib.sha256(data).hexdigest()}


async def begin(live: Live, agent: Agent, wire: Wire, size: int = len(DATA)) -> str:
    """A task that runs, and its evidence."""
    answer = await (await live.admin()).order("list_processes", endpoints=[agent.endpoint])
    task = answer.json["tasks"][0]["id"]
    await wire.hear_order()
    begun = await agent.ask("POST", EVIDENCE_PATH, json={"task": task, "name": "/etc/passwd", "size": size})
    assert begun.status == 201, begun.body
    return str(begun.json["evidence"])


async def test_a_file_comes_in(live: Live) -> None:
    """Begin, part, finish; and it is there for people."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        number = await begin(live, agent, wire)
        path = f"{EVIDENCE_PATH}/{number}"
        put = await agent.ask("PUT", f"{path}/parts/0", data=DATA, headers=hashed(DATA))
        assert (put.status, put.json["size"]) == (200, len(DATA))
        whole = {"sha256": hashlib.sha256(DATA).hexdigest(), "size": len(DATA)}
        done = await agent.ask("POST", f"{path}/finish", json=whole)
        assert done.json == {"id": number, "name": "/etc/passwd", **whole}
    assert (await live.services.evidence.get(number)).complete


async def test_another_endpoints_evidence_does_not_exist(live: Live) -> None:
    """The answer is 404, whatever is tried."""
    agent, other = await live.enrol("web-01"), await live.enrol("web-02")
    async with agent.linked() as wire:
        path = f"{EVIDENCE_PATH}/{await begin(live, agent, wire)}"
        task = (await live.services.evidence.list())[0][0].task
        tried = [
            await other.ask("PUT", f"{path}/parts/0", data=DATA, headers=hashed(DATA)),
            await other.ask("POST", f"{path}/finish", json={"sha256": "0" * 64, "size": 1}),
            await other.ask("POST", EVIDENCE_PATH, json={"task": task, "name": "x", "size": 1}),
        ]
    assert [(one.status, one.code) for one in tried] == [(404, "not-found")] * 3


async def test_nobody_without_a_certificate_gets_in(live: Live) -> None:
    """401 on each of the three."""
    agent = await live.enrol()
    tried = [
        await agent.ask("POST", EVIDENCE_PATH, tls=live.tls, json={}),
        await agent.ask("PUT", f"{EVIDENCE_PATH}/evd_1/parts/0", tls=live.tls, data=b"x"),
        await agent.ask("POST", f"{EVIDENCE_PATH}/evd_1/finish", tls=live.tls, json={}),
    ]
    assert [one.status for one in tried] == [401] * 3


@pytest.mark.parametrize("sha256", ["", "abc", "z" * 64, "0" * 63 + "\u0660"])
async def test_a_part_needs_its_hash(live: Live, sha256: str) -> None:
    """64 hexadecimal digits."""
    agent = await live.enrol()
    answer = await agent.ask("PUT", f"{EVIDENCE_PATH}/evd_1/parts/0", data=b"x", headers={PART_HASH_HEADER: sha256})
    assert (answer.status, answer.code) == (422, "invalid")


async def test_a_damaged_part_is_not_kept(live: Live) -> None:
    """Its hash is computed while it comes in."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        number = await begin(live, agent, wire)
        answer = await agent.ask("PUT", f"{EVIDENCE_PATH}/{number}/parts/0", data=DATA, headers=hashed(DATA[1:]))
        assert (answer.status, answer.code) == (400, "verification-failed")
    assert (await live.services.evidence.get(number)).received == 0


async def test_an_oversized_part_is_not_read(live: Live) -> None:
    """Announced or not."""
    agent = await live.enrol()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65_536

    async with agent.linked() as wire:
        number = await begin(live, agent, wire)
        path = f"{EVIDENCE_PATH}/{number}/parts/0"
        announced = await agent.ask("PUT", path, data=BytesIO(b"x" * (PART_BYTES + 1)), headers=hashed(DATA))
        assert (announced.status, announced.code) == (413, "too-large")
        streamed = await agent.ask("PUT", path, data=endless(), headers=hashed(DATA))
        assert (streamed.status, streamed.code) == (413, "too-large")


async def test_a_part_that_comes_too_slowly_is_given_up(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint may send it again."""
    monkeypatch.setattr("stanch.server.gateway.evidence.PART_SECONDS", 0.05)
    agent, never = await live.enrol(), asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"x"
        await never.wait()

    async with agent.linked() as wire:
        number = await begin(live, agent, wire)
        answer = await agent.ask("PUT", f"{EVIDENCE_PATH}/{number}/parts/0", data=stalling(), headers=hashed(DATA))
        assert (answer.status, answer.code) == (503, "unavailable")


async def test_a_sealed_part_comes_in(live: Live) -> None:
    """Encrypted to the key that the endpoint was told, with its hash before that; and people get what it holds."""
    agent = await live.enrol()
    async with agent.connected() as wire:
        await wire.say(agent.hello())
        await wire.hear()
        key = (await wire.hear_order()).body.evidence_key
        number = await begin(live, agent, wire)
        body = pyrage.encrypt(DATA, [x25519.Recipient.from_str(key)])
        headers = {**hashed(body), ENCODING_HEADER: "age", PLAIN_HASH_HEADER: hashlib.sha256(DATA).hexdigest()}
        path = f"{EVIDENCE_PATH}/{number}"
        put = await agent.ask("PUT", f"{path}/parts/0", data=body, headers=headers)
        assert put.json == {"n": 0, "size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
        whole = {"sha256": hashlib.sha256(DATA).hexdigest(), "size": len(DATA)}
        assert (await agent.ask("POST", f"{path}/finish", json=whole)).status == 200
    got = await (await live.admin()).ask("GET", f"/evidence/{number}/content")
    assert got.body == DATA
    (file,) = (live.settings.data / "evidence" / number).iterdir()
    assert await asyncio.to_thread(file.read_bytes) == body


@pytest.mark.parametrize(
    "headers",
    [{ENCODING_HEADER: "gzip"}, {ENCODING_HEADER: "age"}, {ENCODING_HEADER: "age", PLAIN_HASH_HEADER: "abc"}],
)
async def test_a_sealed_part_needs_its_headers(live: Live, headers: dict[str, str]) -> None:
    """An encoding that is known, and the hash of what is in it."""
    agent = await live.enrol()
    path = f"{EVIDENCE_PATH}/evd_1/parts/0"
    answer = await agent.ask("PUT", path, data=b"x", headers={**hashed(b"x"), **headers})
    assert (answer.status, answer.code) == (422, "invalid")


async def test_holes_come_in(live: Live) -> None:
    """As runs of parts; of anybody else's evidence, or nonsense, they do not."""
    agent, other = await live.enrol("web-01"), await live.enrol("web-02")
    async with agent.linked() as wire:
        path = f"{EVIDENCE_PATH}/{await begin(live, agent, wire, size=3 * PART_BYTES)}/holes"
        told = {"runs": [{"first": 0, "count": 3}]}
        assert (await other.ask("POST", path, json=told)).status == 404
        assert (await agent.ask("POST", path, json={"runs": [{"first": 0, "count": 4}]})).status == 422
        assert (await agent.ask("POST", path, json={"runs": [{"first": 0}]})).status == 422
        assert (await agent.ask("POST", path, json=told)).json == told
    assert (await live.services.evidence.list())[0][0].received == 3 * PART_BYTES


async def test_one_endpoint_may_not_hold_the_memory_of_all(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts beyond its share are refused while the others are on their way, and taken after."""
    monkeypatch.setattr("stanch.server.gateway.evidence.PARTS_AT_ONCE", 1)
    agent, begun, go_on = await live.enrol(), asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield DATA[:1]
        begun.set()
        await go_on.wait()
        yield DATA[1:]

    async with agent.linked() as wire:
        path = f"{EVIDENCE_PATH}/{await begin(live, agent, wire)}/parts/0"
        first = asyncio.create_task(agent.ask("PUT", path, data=slowly(), headers=hashed(DATA)))
        await begun.wait()
        while (second := await agent.ask("PUT", path, data=DATA, headers=hashed(DATA))).status == 200:
            # The first one has not reached the server yet; or it came while this one was there, and was refused itself.
            if first.done():
                assert (await first).status == 503
                first = asyncio.create_task(agent.ask("PUT", path, data=slowly(), headers=hashed(DATA)))
        assert (second.status, second.code) == (503, "unavailable")
        go_on.set()
        assert (await first).status == 200
        assert (await agent.ask("PUT", path, data=DATA, headers=hashed(DATA))).status == 200
