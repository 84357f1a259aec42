"""The agents' links: first frames, deliveries, reports, and everything hostile."""

import asyncio

import aiohttp
import pytest
from sqlalchemy import select

from stanch.core.envelope import AddressesBody, OrderBody
from stanch.core.frames import (
    LINK_PATH,
    MAX_FRAME_BYTES,
    Ask,
    Complaint,
    Heartbeat,
    Hello,
    Notice,
    ProgressFrame,
    Report,
)
from stanch.core.task import State
from stanch.server.gateway.agent_link import MAX_COMPLAINTS
from stanch.server.store.tables import notices
from tests.fakes.waiting import eventually
from tests.server.live import PROCESSES, Live, live_server


async def order(live: Live, endpoint: str) -> tuple[str, str]:
    """Order a list of processes; the ids of order and task."""
    answer = await (await live.admin()).order("list_processes", endpoints=[endpoint])
    assert answer.status == 201, answer.body
    return answer.json["id"], answer.json["tasks"][0]["id"]


async def state_of(live: Live, task: str) -> State:
    return (await live.services.orders.task(task)).state


async def test_hello_is_answered_with_signed_addresses(live: Live) -> None:
    """The welcome is followed by an envelope that carries the hello's nonce and the address we were reached at."""
    agent = await live.enrol()
    async with agent.connected() as wire:
        await wire.say(agent.hello(nonce="my-nonce"))
        assert (await wire.hear()).type == "welcome"
        body = (await wire.hear_order()).body
        assert isinstance(body, AddressesBody)
        assert body.nonce == "my-nonce"
        assert body.urls == (live.server.gateway_url,)
        assert str(body.peers[0].address) == "127.0.0.1"
        view = await live.services.fleet.get("web-01")
        assert view.online
    await eventually(lambda: not live.services.fleet.online)


async def test_an_order_reaches_the_endpoint_and_its_result_comes_back(live: Live) -> None:
    """The whole way: REST, store, signature, link, report, commit, acknowledgement."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        _, task = await order(live, agent.endpoint)
        envelope = await wire.hear_order()
        assert isinstance(envelope.body, OrderBody)
        assert (envelope.body.task, envelope.body.action) == (task, "list_processes")
        await wire.report(1, task, "running")
        assert await state_of(live, task) is State.RUNNING
        await wire.report(2, task, "done", result=PROCESSES)
        assert await state_of(live, task) is State.DONE


async def test_what_was_ordered_while_it_was_away_is_delivered_at_hello(live: Live) -> None:
    """A task waits in the store for its endpoint, and is delivered again at each hello until it is final."""
    agent = await live.enrol()
    _, task = await order(live, agent.endpoint)
    for _ in range(2):
        async with agent.linked() as wire:
            assert (await wire.hear_order()).body.task == task
    async with agent.linked() as wire:
        await wire.hear_order()
        await wire.report(1, task, "failed", error={"code": "timed-out", "message": "no"})
    assert await state_of(live, task) is State.FAILED


async def test_the_same_report_twice_changes_nothing(live: Live) -> None:
    """A report that comes again is acknowledged again, and the result stays."""
    agent = await live.enrol()
    _, task = await order(live, agent.endpoint)
    async with agent.linked() as wire:
        await wire.hear_order()
        await wire.report(1, task, "done", result=PROCESSES)
        await wire.report(1, task, "done", result={"total": 5, "processes": []})
        await wire.report(2, task, "failed", error={"code": "internal", "message": "no"})
    view = await live.services.orders.task(task)
    assert (view.state, view.result) == (State.DONE, PROCESSES)


async def test_many_reports_are_acknowledged_once_each(live: Live) -> None:
    """A spool that was filled during an outage empties in bulk."""
    agent = await live.enrol()
    _, task = await order(live, agent.endpoint)
    async with agent.linked() as wire:
        for seq in range(1, 501):
            await wire.say(Report(seq=seq, task=task, state=State.RUNNING, at=1))
        await wire.hear_ack(*range(1, 501))


async def test_reports_of_several_tasks_are_one_unit_of_work(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch goes through as a whole; link by link is only for one that cannot."""

    async def alone(*_: object) -> None:
        raise AssertionError("the batch did not go through")

    monkeypatch.setattr(live.services.orders, "report", alone)
    agent = await live.enrol()
    ordered = [(await order(live, agent.endpoint))[1] for _ in range(20)]
    async with agent.linked() as wire:
        for seq, task in enumerate(ordered, 1):
            await wire.hear_order()
            await wire.say(Report(seq=seq, task=task, state=State.DONE, result=PROCESSES, at=1))
        await wire.hear_ack(*range(1, 21))
    assert {await state_of(live, task) for task in ordered} == {State.DONE}


async def test_another_endpoints_task_cannot_be_reported(live: Live) -> None:
    """A report of a task that belongs to somebody else is taken, and changes nothing."""
    mine, other = await live.enrol("web-01"), await live.enrol("web-02")
    _, task = await order(live, mine.endpoint)
    async with mine.linked() as own, other.linked() as wire:
        await own.hear_order()
        await wire.report(1, task, "done", result=PROCESSES)
    assert await state_of(live, task) is State.SENT


async def test_a_result_of_another_type_fails_the_task(live: Live) -> None:
    """What an endpoint says is hostile until it fits the action's types."""
    agent = await live.enrol()
    _, task = await order(live, agent.endpoint)
    async with agent.linked() as wire:
        await wire.hear_order()
        await wire.report(1, task, "done", result={"total": "many"})
    assert await state_of(live, task) is State.FAILED


async def test_a_question_is_answered_and_the_connection_ends(live: Live) -> None:
    """Commit-confirm asks on a new connection, and gets its nonce back."""
    agent = await live.enrol()
    async with agent.connected() as wire:
        await wire.say(Ask(nonce="are-you-there"))
        answer = await wire.hear()
        assert (answer.type, answer.nonce) == ("answer", "are-you-there")
        await wire.hear_end()


async def test_a_question_on_an_open_link_is_answered_too(live: Live) -> None:
    """It does not end the link."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        for nonce in ("one", "two"):
            await wire.say(Ask(nonce=nonce))
            assert (await wire.hear()).nonce == nonce


async def test_a_link_needs_a_certificate(live: Live) -> None:
    """Without one, the answer is 401 and what to do."""
    agent = await live.enrol()
    answer = await agent.ask("GET", LINK_PATH, tls=live.tls)
    assert (answer.status, answer.code) == (401, "not-authenticated")


async def test_a_revoked_endpoint_is_cut_off_and_stays_out(live: Live) -> None:
    """Revoking closes the open link, and the next one is refused."""
    agent, admin = await live.enrol(), await live.admin()
    async with agent.linked() as wire:
        answer = await admin.ask("POST", "/endpoints/web-01/revoke")
        assert answer.json["revoked"]
        await wire.hear_end()
    answer = await agent.ask("GET", LINK_PATH)
    assert (answer.status, answer.code) == (403, "denied")


async def test_a_certificate_of_another_ca_does_not_get_in(live: Live, tmp_path) -> None:
    """TLS itself refuses it."""
    agent = await live.enrol()
    async with live_server(tmp_path / "other") as other:
        stranger = await other.enrol()
        stranger.tls.load_verify_locations(cadata=live.services.authority.pem)
        with pytest.raises(aiohttp.ClientError):
            await agent.ask("GET", LINK_PATH, tls=stranger.tls)


@pytest.mark.parametrize(
    "data", ["", "{", "[]", "null", '{"type":"no-such-thing"}', '{"type":"report","seq":0}', "[" * 100_000]
)
async def test_a_malformed_frame_is_answered_with_a_complaint(live: Live, data: str) -> None:
    """The link goes on; the frame is named, not obeyed."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        await wire.socket.send_str(data)
        complaint = await wire.hear()
        assert isinstance(complaint, Complaint)
        assert complaint.error.code == "invalid"
        await wire.say(Ask(nonce="still-here"))
        assert (await wire.hear()).type == "answer"


async def test_bytes_that_are_no_text_are_answered_with_a_complaint(live: Live) -> None:
    """Binary frames are read as JSON, or complained about."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        await wire.socket.send_bytes(b"\xff\xfe\x00")
        assert isinstance(await wire.hear(), Complaint)


async def test_too_many_malformed_frames_close_the_link(live: Live) -> None:
    """Patience ends."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        for _ in range(MAX_COMPLAINTS):
            await wire.socket.send_str("{")
        assert await wire.hear_end() == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_an_oversized_frame_closes_the_link(live: Live) -> None:
    """It is not even read."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        await wire.socket.send_str("x" * (MAX_FRAME_BYTES + 1))
        # The reset may overtake the close frame: the rest of what was sent is never read.
        assert await wire.hear_end() in {aiohttp.WSCloseCode.MESSAGE_TOO_BIG, aiohttp.WSCloseCode.ABNORMAL_CLOSURE}
    await eventually(lambda: not live.services.fleet.online)


async def test_the_first_frame_must_be_a_hello(live: Live) -> None:
    """Anything else is complained about, and the connection ends."""
    agent = await live.enrol()
    async with agent.connected() as wire:
        await wire.say(Heartbeat())
        assert isinstance(await wire.hear(), Complaint)
        await wire.hear_end()


async def test_a_second_hello_is_complained_about(live: Live) -> None:
    """Once is enough."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        await wire.say(agent.hello())
        assert isinstance(await wire.hear(), Complaint)


async def test_the_newest_link_of_an_identity_wins(live: Live) -> None:
    """The older one is closed, and the endpoint stays online."""
    agent = await live.enrol()
    async with agent.linked() as older, agent.linked() as newer:
        await older.hear_end()
        await newer.say(Ask(nonce="here"))
        assert (await newer.hear()).type == "answer"
        assert agent.endpoint in live.services.fleet.online
        assert await told(live) == []


async def test_a_second_link_from_another_boot_is_noted(live: Live) -> None:
    """Two machines with one identity: somebody may have cloned it."""
    agent = await live.enrol()
    async with agent.linked(), agent.linked(inventory=agent.inventory(boot_id="boot-2")) as newer:
        await newer.say(Ask(nonce="here"))
        await newer.hear()
        assert await told(live) == ["identity-used-twice"]


async def told(live: Live) -> list[str]:
    """The kinds of all stored notices."""
    query = select(notices.c.kind).order_by(notices.c.id)
    return await live.services.database.read(lambda connection: list(connection.execute(query).scalars()))


async def test_a_notice_is_kept_once(live: Live) -> None:
    """Told twice, acknowledged twice, stored once."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        for _ in range(2):
            await wire.say(Notice(seq=1, kind="effect-lifted", detail={"effect": "isolation"}, at=5))
            await wire.hear_ack(1)
    assert await told(live) == ["effect-lifted"]


async def test_a_notice_that_is_too_large_keeps_its_kind(live: Live) -> None:
    """Its detail is dropped, and it is acknowledged: it must not block the spool for ever."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        await wire.say(Notice(seq=1, kind="flood", detail={"text": "x" * 100_000}, at=5))
        await wire.hear_ack(1)
    query = select(notices.c.detail)
    detail = await live.services.database.read(lambda connection: connection.execute(query).scalar_one())
    assert detail.keys() == {"too_large"}


async def test_progress_of_an_own_task_is_published(live: Live) -> None:
    """It goes to whoever listens, with its order."""
    mine, other = await live.enrol("web-01"), await live.enrol("web-02")
    number, task = await order(live, mine.endpoint)
    async with mine.linked() as wire, other.linked() as stranger:
        await wire.hear_order()
        with live.services.bus.subscribe(number) as events:
            await stranger.say(ProgressFrame(task=task, done=99))
            await stranger.say(Ask(nonce="after"))
            await stranger.hear()
            await wire.say(ProgressFrame(task=task, done=1, total=2, unit="files", text="half"))
            async with asyncio.timeout(10):
                event = await events.next()
    assert (event.type, event.done, event.total, event.order) == ("progress", 1, 2, number)


async def test_a_silent_link_is_closed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three missing heartbeats are enough."""
    async with live_server(tmp_path / "data", heartbeat_seconds=0.02) as live:
        agent = await live.enrol()
        async with agent.linked() as wire:
            await wire.hear_end()
        await eventually(lambda: not live.services.fleet.online)


async def test_a_stopping_server_says_goodbye(tmp_path) -> None:
    """Agents hear that it goes, and come back by themselves."""
    async with aiohttp.ClientSession() as own:
        async with live_server(tmp_path / "data") as live:
            agent = await live.enrol()
            agent.session = own
            linked = agent.linked()
            wire = await linked.__aenter__()
            ending = asyncio.get_running_loop().create_task(wire.hear_end())
        assert await ending == aiohttp.WSCloseCode.GOING_AWAY
        await linked.__aexit__(None, None, None)


async def test_an_endpoint_that_does_not_read_is_cut_off(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's memory stays bounded, whoever stops reading."""
    monkeypatch.setattr("stanch.server.gateway.agent_link.MAX_UNSENT", -1)
    agent = await live.enrol()
    async with agent.connected() as wire:
        await wire.say(agent.hello())
        await wire.hear_end()
    assert agent.endpoint not in {one for one in live.services.fleet.online if live.services.dispatcher.attached(one)}


async def test_revoked_while_it_says_hello(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is revoked after its certificate was looked at, and before its link can be cut, does not stay."""
    agent, person, hello = await live.enrol(), await live.admin(), live.services.fleet.hello

    async def revoke_meanwhile(endpoint: str, said: Hello) -> None:
        await hello(endpoint, said)
        await person.ask("POST", f"/endpoints/{endpoint}/revoke")

    monkeypatch.setattr(live.services.fleet, "hello", revoke_meanwhile)
    async with agent.connected() as wire:
        await wire.say(agent.hello())
        await wire.hear()
        await wire.hear()
        refusal = await wire.hear()
        assert isinstance(refusal, Complaint)
        assert refusal.error.code == "denied"
        await wire.hear_end()
    await eventually(lambda: not live.services.fleet.online)


async def test_an_endpoint_that_goes_before_it_is_greeted_is_not_online(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that breaks between hello and welcome leaves nobody online."""
    agent, said = await live.enrol(), asyncio.Event()

    async def broken(*_more: object) -> None:
        said.set()
        raise ConnectionResetError

    monkeypatch.setattr(live.services.dispatcher, "addresses", broken)
    async with agent.connected() as wire:
        await wire.say(agent.hello())
        await asyncio.wait_for(said.wait(), 5)
        await eventually(lambda: not live.services.fleet.online)
