"""Release codes on the server: derived, never stored, told to those who may know them and never unseen."""

import asyncio
import json
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from stanch.core.errors import Denied, NotFound
from stanch.core.frames import Heartbeat
from stanch.core.isolation import CODE_ALPHABET, CODE_LENGTH, ITERATIONS, IsolationStatus
from stanch.core.policy import Role
from stanch.core.rest import OrderCommon
from stanch.core.task import State
from stanch.server.release_codes import MAX_CODES, CodeBook
from stanch.server.store.tables import audit, endpoints, metadata, tasks
from tests.fakes.server_parts import Parts, principal
from tests.server.test_dispatch import Agent, running

MASTER = bytes(range(32))


@pytest.fixture
def parts(parts: Parts) -> Parts:
    """The server's parts, with an action that carries a code."""
    assert parts.registry["isolate"].release_code
    return parts


async def isolate(parts: Parts, *names: str, state: State | None = State.DONE, dry_run: bool = False) -> str:
    """Isolate one endpoint; the task, in this state."""
    parts.clock.pass_(timedelta(seconds=1))
    common = OrderCommon(endpoints=names, dry_run=dry_run)
    view = await parts.orders.submit(principal(), "isolate", {}, common)
    task = view.tasks[0].id
    if state is not None:
        query = update(tasks).where(tasks.c.id == task).values(state=state)
        await parts.database.write(lambda connection: connection.execute(query))
    return task


async def audited(parts: Parts) -> list:
    """What the audit says of looks."""
    query = select(audit).where(audit.c.what == "release-code").order_by(audit.c.n)
    return await parts.database.read(lambda connection: connection.execute(query).all())


# --- the codes ---


@given(st.text(min_size=1, max_size=64))
def test_a_code_is_sixteen_characters_that_follow_from_the_task(task):
    """The same each time, of the alphabet of codes, and what recognises it opens with it alone."""
    book = CodeBook(MASTER)
    code = book.code(task)
    assert len(code) == CODE_LENGTH
    assert set(code) <= set(CODE_ALPHABET)
    assert code == CodeBook(MASTER).code(task)
    assert code not in {book.code(task + "x"), CodeBook(bytes(32)).code(task)}


def test_all_eighty_bits_vary():
    """Over many tasks each character is any of the alphabet."""
    book = CodeBook(MASTER)
    codes = [book.code(f"tsk_{n}") for n in range(2000)]
    assert all({code[at] for code in codes} == set(CODE_ALPHABET) for at in range(CODE_LENGTH))
    assert len(set(codes)) == len(codes)


def test_the_verifier_knows_the_code_and_not_more(parts):
    """Salt and key are the same at each delivery, and neither tells the code."""
    verifier = parts.codes.verifier("tsk_1")
    code = parts.codes.code("tsk_1")
    assert verifier == CodeBook(MASTER).verifier("tsk_1")
    assert verifier.iterations == ITERATIONS
    assert verifier.opens(code.lower())
    assert not verifier.opens(parts.codes.code("tsk_2"))
    assert verifier.salt != parts.codes.verifier("tsk_2").salt
    assert code not in verifier.model_dump_json().upper()


async def test_many_verifiers_do_not_stop_the_event_loop(parts):
    """While they are computed, everybody else has their turn, and each is computed once."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    waiting = asyncio.get_running_loop().create_task(others())
    wanted = [f"tsk_{n}" for n in range(30)]
    found = await parts.codes.verifiers(wanted)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert list(found) == wanted
    assert turns > len(wanted)
    assert await parts.codes.verifiers(wanted) == found
    assert parts.codes.verifier.cache_info().misses == len(wanted)


# --- on the wire ---


async def test_the_order_carries_what_recognises_its_code(parts):
    """And a redelivery the same."""
    await parts.add_endpoints("web")
    task = await isolate(parts, "web", state=None)
    async with running(parts):
        for _ in range(2):
            agent = Agent(parts, "end_web")
            with parts.dispatcher.attach("end_web", agent.send, agent.close):
                body = await agent.next()
            assert (body.task, body.release_code) == (task, parts.codes.verifier(task))
            assert body.release_code.opens(parts.codes.code(task))


async def test_no_other_order_carries_one(parts):
    """Not a dry run, which has no effect, and not an action without a code."""
    await parts.add_endpoints("web")
    agent = Agent(parts, "end_web")
    async with running(parts):
        with parts.dispatcher.attach("end_web", agent.send, agent.close):
            await isolate(parts, "web", state=None, dry_run=True)
            assert (await agent.next()).release_code is None
            await parts.orders.submit(principal(), "release", {}, OrderCommon(endpoints=("web",)))
            assert (await agent.next()).release_code is None


async def test_no_code_is_in_the_database(parts):
    """Nor what would recognise it."""
    await parts.add_endpoints("web")
    task = await isolate(parts, "web", state=None)
    agent = Agent(parts, "end_web")
    async with running(parts):
        with parts.dispatcher.attach("end_web", agent.send, agent.close):
            await agent.next()
    await parts.code_desk.look(principal(), "web", "why not")

    def everything(connection) -> str:
        return json.dumps(
            [
                [str(value) for value in row]
                for table in metadata.sorted_tables
                for row in connection.execute(select(table))
            ]
        )

    stored = await parts.database.read(everything)
    assert task in stored
    for secret in (parts.codes.code(task), parts.codes.verifier(task).key, parts.codes.verifier(task).salt):
        assert secret not in stored


# --- looking ---


async def test_a_look_tells_the_codes_newest_first(parts):
    """At most five, with the order and when it was given."""
    await parts.add_endpoints("web", "db")
    found = [await isolate(parts, "web") for _ in range(MAX_CODES + 2)]
    await isolate(parts, "db")
    told = await parts.code_desk.look(principal(), "web", "")
    assert (told.endpoint, told.hostname) == ("end_web", "web")
    assert [one.task for one in told.codes] == found[::-1][:MAX_CODES]
    assert [one.code for one in told.codes] == [parts.codes.code(one.task) for one in told.codes]
    assert {one.action for one in told.codes} == {"isolate"}
    assert not any(one.in_force for one in told.codes)


async def test_the_one_in_force_is_always_among_them(parts):
    """As the endpoint last told, in its effects or its isolation, however many came after it."""
    await parts.add_endpoints("web")
    oldest = await isolate(parts, "web")
    for _ in range(MAX_CODES + 1):
        await isolate(parts, "web")
    effect = {
        "name": "isolation",
        "task": oldest,
        "since": "2026-01-01T00:00:00Z",
        "until": None,
        "lift_action": "release",
    }
    query = update(endpoints).where(endpoints.c.id == "end_web")
    await parts.database.write(lambda connection: connection.execute(query.values(effects=[effect])))
    told = await parts.code_desk.look(principal(), "web", "")
    assert [one.task for one in told.codes if one.in_force] == [oldest]
    assert len(told.codes) == MAX_CODES


@pytest.mark.parametrize("state", [State.SENT, State.RUNNING, State.DONE, State.UNKNOWN])
async def test_a_task_that_may_be_in_force_has_a_code(parts, state):
    """The endpoint may have it, whatever the server heard."""
    await parts.add_endpoints("web")
    task = await isolate(parts, "web", state=state)
    assert [one.task for one in (await parts.code_desk.look(principal(), "web", "")).codes] == [task]


@pytest.mark.parametrize("state", [State.QUEUED, State.FAILED, State.REFUSED, State.CANCELLED, State.EXPIRED])
async def test_a_task_that_is_not_in_force_has_none(parts, state):
    """There is nothing to lift, and the error says what to do instead."""
    await parts.add_endpoints("web")
    await isolate(parts, "web", state=state)
    with pytest.raises(NotFound, match="isolation off"):
        await parts.code_desk.look(principal(), "web", "")
    assert await audited(parts) == []


async def test_what_a_failed_task_left_in_force_has_a_code(parts):
    """A task may fail and leave its effect: whoever stands at the endpoint needs the code all the same."""
    await parts.add_endpoints("web", "db")
    left = await isolate(parts, "web", state=State.FAILED)
    elsewhere = await isolate(parts, "db", state=State.FAILED)
    parts.fleet.heartbeat("end_web", Heartbeat(isolation=IsolationStatus(state="isolated", task=left)))
    parts.fleet.heartbeat("end_db", Heartbeat(isolation=IsolationStatus(state="isolated", task=left)))
    told = await parts.code_desk.look(principal(), "web", "")
    assert [(one.task, one.in_force) for one in told.codes] == [(left, True)]
    with pytest.raises(NotFound):  # it claims the task of another endpoint
        await parts.code_desk.look(principal(), "db", "")
    assert elsewhere not in {one.task for one in told.codes}


async def test_each_look_is_in_the_audit_before_the_answer(parts, monkeypatch):
    """Who, at which endpoint, which tasks and why; without the entry there is no code."""
    await parts.add_endpoints("web")
    task = await isolate(parts, "web")
    await parts.code_desk.look(principal(name="ada"), "web", "called from the rack")
    (entry,) = await audited(parts)
    assert (entry.who, entry.subject) == ("ada", "end_web")
    assert entry.detail == {"tasks": [task], "reason": "called from the rack"}

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("stanch.server.release_codes.audit.append", full)
    with pytest.raises(OSError, match="disk full"):
        await parts.code_desk.look(principal(), "web", "")


@pytest.mark.parametrize("role", [role for role in Role if role not in {Role.ADMINISTRATOR, Role.INCIDENT_LEAD}])
async def test_only_who_may_sees_codes(parts, role):
    """Isolating does not mean that one may hand out the way back."""
    await parts.add_endpoints("web")
    await isolate(parts, "web")
    with pytest.raises(Denied):
        await parts.code_desk.look(principal(role), "web", "")
    assert await audited(parts) == []


async def test_labels_bound_who_sees_which(parts):
    """Whoever is for production sees no code of the test machines."""
    await parts.add_endpoints("web", labels=["env=test"])
    await isolate(parts, "web")
    with pytest.raises(Denied):
        await parts.code_desk.look(principal(Role.INCIDENT_LEAD, labels=("env=prod",)), "web", "")
    assert (await parts.code_desk.look(principal(Role.INCIDENT_LEAD, labels=("env=test",)), "web", "")).codes
