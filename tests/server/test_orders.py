"""Orders: submit, cancel, undo, and reports by compare-and-set."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from stanch.core.errors import Conflict, Denied, Invalid, NotFound, UnknownAction
from stanch.core.frames import ProgressFrame, Report
from stanch.core.policy import Role
from stanch.core.rest import OrderCommon
from stanch.core.task import State
from stanch.server import audit
from stanch.server.store import tables
from tests.fakes.server_parts import principal

RELEASED = {"changed": True, "allowed": ["10.0.0.0/8"], "profiles": ["dhcp"], "remaining": "2h"}


async def order(parts, action="release", params=None, who=None, **common):
    """Order an action on `web` unless told otherwise."""
    common.setdefault("endpoints", ("web",))
    return await parts.orders.submit(who or principal(), action, params or {}, OrderCommon(**common))


async def send(parts, view):
    """Move its tasks to sent, as the dispatcher does."""
    endpoints = [one.endpoint for one in view.tasks]
    await parts.database.write(lambda c: parts.dispatcher._claim(c, endpoints, set()))


def report(task, state=State.DONE, seq=1, **fields):
    """What an endpoint says."""
    fields.setdefault("result", RELEASED if state is State.DONE else None)
    return Report(seq=seq, task=task, state=state, at=1.0, **fields)


async def test_one_task_per_endpoint(parts):
    """An order by host name and label makes one queued task for each endpoint, once."""
    await parts.add_endpoints("web", "db", labels=["env=prod"])
    view = await order(parts, endpoints=("web", "end_web"), labels=("env=prod",), reason="why", case="C-1")
    assert sorted(one.hostname for one in view.tasks) == ["db", "web"]
    assert view.states == {State.QUEUED: 2}
    assert (view.reason, view.case, view.requested_by) == ("why", "C-1", "ada")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"action": "explode"}, UnknownAction, "no such action"),
        ({"params": {"x": 1}}, Invalid, "x"),
        ({"endpoints": ("nowhere",)}, NotFound, "nowhere"),
        ({"endpoints": ()}, Invalid, "names no endpoint"),
        ({"endpoints": (), "labels": ("env=none",)}, NotFound, "env=none"),
        ({"who": principal(Role.VIEWER)}, Denied, "viewer"),
        ({"who": principal(labels=("env=test",))}, Denied, "env=test"),
        ({"action": "list_processes", "dry_run": True}, Invalid, "dry run"),
    ],
)
async def test_a_wrong_order_is_refused_and_leaves_nothing(parts, change, error, says):
    """Each wrong order says what is wrong, and neither order, task nor audit is kept."""
    await parts.add_endpoints("web")
    with pytest.raises(error, match=says):
        await order(parts, **change)
    for table in (tables.orders, tables.tasks, tables.audit):
        assert await parts.database.read(lambda c, t=table: c.execute(select(t)).all()) == []


async def test_two_endpoints_of_one_name_are_not_guessed(parts):
    """A host name that two endpoints carry is refused; the id still works."""
    await parts.add_endpoints("web")
    await parts.add_endpoints("other")
    await parts.database.write(
        lambda c: c.execute(
            tables.endpoints.update().where(tables.endpoints.c.id == "end_other").values(hostname="web")
        )
    )
    with pytest.raises(Conflict, match="Several"):
        await order(parts)
    assert len((await order(parts, endpoints=("end_web",))).tasks) == 1


async def test_order_and_audit_are_one_unit(parts):
    """Every order has its audit entry, and the chain holds."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await parts.orders.cancel(principal(), view.id)
    assert (await parts.database.read(audit.verify)).entries == 2


async def test_cancel_before_it_is_sent(parts):
    """A queued task is cancelled at once."""
    await parts.add_endpoints("web")
    view = await parts.orders.cancel(principal(), (await order(parts)).id)
    assert view.states == {State.CANCELLED: 1}


async def test_cancel_after_it_was_sent_waits_for_the_endpoint(parts):
    """A sent task is only asked to stop: it is final when its endpoint answers."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await send(parts, view)
    view = await parts.orders.cancel(principal(), view.id)
    assert view.states == {State.SENT: 1}
    assert view.tasks[0].cancel_requested
    await parts.orders.report("end_web", [report(view.tasks[0].id, State.CANCELLED)])
    assert (await parts.orders.get(view.id)).states == {State.CANCELLED: 1}


async def test_cancel_when_all_is_over(parts):
    """Cancelling a finished order says that there is nothing to cancel."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await parts.orders.cancel(principal(), view.id)
    with pytest.raises(Conflict, match="final"):
        await parts.orders.cancel(principal(), view.id)


async def test_the_same_report_twice(parts):
    """A report that comes twice is taken once, also in one batch."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await send(parts, view)
    one = report(view.tasks[0].id)
    await parts.orders.report("end_web", [one, one])
    await parts.orders.report("end_web", [one, report(view.tasks[0].id, State.FAILED)])
    task = await parts.orders.task(view.tasks[0].id)
    assert task.state is State.DONE
    assert task.result == RELEASED


async def test_several_reports_in_one_unit(parts):
    """Reports of several endpoints and kinds in one batch each move their own task."""
    ids = await parts.add_endpoints("a", "b", "c")
    view = await order(parts, endpoints=tuple(ids))
    await send(parts, view)
    tasks = {one.endpoint: one.id for one in view.tasks}
    states = {"end_a": State.DONE, "end_b": State.DONE, "end_c": State.REFUSED}
    await parts.orders.report_many([(one, report(tasks[one], state)) for one, state in states.items()])
    assert (await parts.orders.get(view.id)).states == {State.DONE: 2, State.REFUSED: 1}


async def test_a_report_for_somebody_elses_task(parts):
    """An endpoint cannot move the task of another, nor one that does not exist."""
    await parts.add_endpoints("web", "evil")
    view = await order(parts)
    await send(parts, view)
    await parts.orders.report("end_evil", [report(view.tasks[0].id), report("tsk_none")])
    assert (await parts.orders.get(view.id)).states == {State.SENT: 1}


async def test_a_result_of_the_wrong_type_is_a_failure(parts):
    """A hostile endpoint's result is not stored: the task fails and says why."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await send(parts, view)
    await parts.orders.report("end_web", [report(view.tasks[0].id, result={"changed": "<script>", "more": 1})])
    task = await parts.orders.task(view.tasks[0].id)
    assert task.state is State.FAILED
    assert task.result is None
    assert task.error.code == "invalid"


async def test_done_without_a_result(parts):
    """An effect that was seen stays done when its result was too large to be sent; the error says so."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await send(parts, view)
    error = {"code": "too-large", "message": "The result is too large"}
    await parts.orders.report("end_web", [report(view.tasks[0].id, result=None, error=error)])
    task = await parts.orders.task(view.tasks[0].id)
    assert (task.state, task.result, task.error.code) == (State.DONE, None, "too-large")


async def test_the_audit_says_how_endpoints_were_chosen_and_stays_small(parts):
    """Group, labels and a dry run are told; of large parameters, which the order itself keeps, only the hash."""
    await parts.add_endpoints("web", labels=("role=web",))
    allow = [f"10.{n // 250}.{n % 250}.0/24" for n in range(2000)]
    common = OrderCommon(group="all", labels=("role=web",), dry_run=True)
    order = await parts.orders.submit(principal(), "isolate", {"allow": allow, "duration": "1h"}, common)
    (entry,), _ = await parts.database.read(lambda c: audit.page(c, None, 10))
    assert entry.detail["params"]["duration"] == "1h"
    assert entry.detail["params"]["allow"].keys() == {"bytes", "sha256"}
    assert (entry.detail["group"], entry.detail["labels"], entry.detail["dry_run"]) == ("all", ["role=web"], True)
    assert len((await parts.orders.get(order.id)).params["allow"]) == len(allow)


async def test_unknown_is_corrected_and_the_audit_keeps_both(parts):
    """A late report corrects `unknown`, and the audit tells of it."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await send(parts, view)
    await parts.orders.report("end_web", [report(view.tasks[0].id, State.UNKNOWN)])
    await parts.orders.report("end_web", [report(view.tasks[0].id, State.DONE, seq=2)])
    assert (await parts.orders.get(view.id)).states == {State.DONE: 1}
    whats = await parts.database.read(lambda c: list(c.execute(select(tables.audit.c.what)).scalars()))
    assert whats == ["order", "correct"]


async def test_undo_orders_the_way_back(parts):
    """Undo of a done release is an isolation like the lifted one, as a new order that names the old."""
    await parts.add_endpoints("web")
    view = await order(parts, case="C-1")
    await send(parts, view)
    await parts.orders.report("end_web", [report(view.tasks[0].id)])
    back = await parts.orders.undo(principal(), view.id)
    assert (back.action, back.params) == ("isolate", {"allow": ["10.0.0.0/8"], "duration": "2h"})
    assert back.case == "C-1"
    undoes = select(tables.orders.c.undoes).where(tables.orders.c.id == back.id)
    assert await parts.database.read(lambda c: c.execute(undoes).scalar()) == view.id


async def test_a_dry_run_may_name_what_nobody_has_uploaded(parts):
    """The plan needs its size and hash alone; a real order of it is refused."""
    await parts.add_endpoints("web")
    content = {"id": "not-uploaded", "name": "x", "size": 1, "sha256": "0" * 64}
    params = {"content": content, "path": "/opt/x"}
    view = await order(parts, action="put_file", params=params, dry_run=True)
    assert (view.dry_run, view.states) == (True, {State.QUEUED: 1})
    with pytest.raises(NotFound):
        await order(parts, action="put_file", params=params)


async def test_undo_takes_the_way_that_fits_each_endpoint(parts, monkeypatch):
    """What replaced nothing is deleted; where one endpoint needs another way than the next, it is said."""
    await parts.add_endpoints("web", "db")
    monkeypatch.setattr("stanch.server.uploads.use", lambda *_: None)
    content = {"id": "upl_1", "name": "x", "size": 1, "sha256": "0" * 64}
    info = {"size": 1, "mode": 384, "user": "root", "modified": "2026-11-24T12:00:00Z", "inode": 1}
    put = {"order": "ord_1", "changed": True, "path": "/opt/x", "sha256": "0" * 64, "info": info}
    params = {"content": content, "path": "/opt/x"}
    view = await order(parts, action="put_file", params=params, endpoints=("web", "db"))
    await send(parts, view)
    tasks = {one.endpoint: one.id for one in view.tasks}
    await parts.orders.report("end_web", [report(tasks["end_web"], result=put)])
    back = await parts.orders.undo(principal(), view.id)
    assert (back.action, back.params) == ("delete_file", {"path": ["/opt/x"], "sha256": ["0" * 64]})
    replaced = {**put, "replaced": "qrt_0123456789abcdef"}
    await parts.orders.report("end_db", [report(tasks["end_db"], result=replaced)])
    with pytest.raises(Conflict, match="different parameters"):
        await parts.orders.undo(principal(), view.id)


async def test_undo_of_what_is_not_done(parts):
    """An order that is not done cannot be undone."""
    await parts.add_endpoints("web")
    with pytest.raises(Conflict, match="nothing to undo"):
        await parts.orders.undo(principal(), (await order(parts)).id)


async def test_expired_before_it_was_sent(parts):
    """The sweep expires what was not sent in time, and nothing else."""
    await parts.add_endpoints("web", "db")
    old = await order(parts, valid_for="1h")
    sent = await order(parts, endpoints=("db",), valid_for="1h")
    await send(parts, sent)
    fresh = await order(parts, valid_for="3h")
    parts.clock.pass_(timedelta(hours=2))
    await parts.dispatcher.sweep_once()
    states = [(await parts.orders.get(one.id)).states for one in (old, sent, fresh)]
    assert states == [{State.EXPIRED: 1}, {State.SENT: 1}, {State.QUEUED: 1}]


async def test_pages_are_newest_first(parts):
    """Pages of orders neither repeat nor skip."""
    await parts.add_endpoints("web")
    made = []
    for _ in range(5):
        parts.clock.pass_(timedelta(seconds=1))
        made.append((await order(parts)).id)
    first, after = await parts.orders.list(limit=3)
    second, end = await parts.orders.list(limit=3, after=after)
    assert [one.id for one in first + second] == made[::-1]
    assert end is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([State.RUNNING, State.DONE, State.FAILED, State.REFUSED, State.UNKNOWN]), max_size=6))
async def test_any_sequence_of_reports_ends_truthfully(parts, states):
    """Whatever an endpoint says and in whatever order, its first final word stays, unless that was `unknown`."""
    if not await parts.database.read(lambda c: c.execute(select(tables.endpoints)).all()):
        await parts.add_endpoints("web")
    view = await order(parts)
    await send(parts, view)
    for seq, state in enumerate(states, 1):
        await parts.orders.report("end_web", [report(view.tasks[0].id, state, seq=seq)])
    final = [one for one in states if one.final and one is not State.UNKNOWN]
    weak = State.UNKNOWN if State.UNKNOWN in states else State.RUNNING if State.RUNNING in states else State.SENT
    assert (await parts.orders.task(view.tasks[0].id)).state is (final[0] if final else weak)


async def test_an_id_means_one_endpoint_only(parts):
    """An endpoint that calls itself by the id of another one gets none of its orders."""
    await parts.add_endpoints("web", "end_web")
    view = await parts.orders.submit(principal(), "release", {}, OrderCommon(endpoints=("end_web",)))
    assert [one.endpoint for one in view.tasks] == ["end_web"]


async def test_a_failed_task_keeps_what_it_has_found(parts):
    """A partial result stands beside the error; one of another type is left out, and the error still counts."""
    await parts.add_endpoints("web", "db")
    view = await order(parts, endpoints=("end_web", "end_db"))
    await send(parts, view)
    tasks = {one.endpoint: one.id for one in view.tasks}
    error = {"code": "timed-out", "message": "It was stopped at its limit"}
    for endpoint, result in (("end_web", {**RELEASED, "newer": 1}), ("end_db", {"changed": "<script>"})):
        await parts.orders.report(endpoint, [report(tasks[endpoint], State.FAILED, result=result, error=error)])
    kept, refused = [await parts.orders.task(tasks[one]) for one in ("end_web", "end_db")]
    assert (kept.state, kept.result, kept.error.code) == (State.FAILED, RELEASED, "timed-out")
    assert (refused.state, refused.result, refused.error.code) == (State.FAILED, None, "timed-out")


async def test_a_newer_agent_may_tell_more(parts):
    """A field that this server does not know is left out; the task is done."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await send(parts, view)
    await parts.orders.report("end_web", [report(view.tasks[0].id, result={**RELEASED, "newer": {"x": [1]}})])
    task = await parts.orders.task(view.tasks[0].id)
    assert (task.state, task.result) == (State.DONE, RELEASED)


async def test_progress_is_shown_until_the_end(parts):
    """How far it is and why it waits, with the task, its order and in the list; nothing once it is over."""
    await parts.add_endpoints("web")
    view = await order(parts)
    await send(parts, view)
    task = view.tasks[0].id
    parts.orders.progress.put(view.id, ProgressFrame(task=task, done=3, unit="files", text="/x", paused="on order"))
    shown = await parts.orders.get(view.id)
    assert (shown.paused, shown.tasks[0].progress.done, shown.tasks[0].progress.paused) == (1, 3, "on order")
    assert (await parts.orders.task(task)).progress.text == "/x"
    assert [one.paused for one in (await parts.orders.list())[0]] == [1]
    await parts.orders.report("end_web", [report(task)])
    assert (await parts.orders.task(task)).progress is None
    assert parts.orders.progress.of(task) is None
    assert [one.paused for one in (await parts.orders.list())[0]] == [0]
