"""Following an order: whatever the stream does, the truth arrives, and only once."""

import json

import httpx2
import pytest

from stanch.client.api import Client
from stanch.core.errors import NotFound, Unavailable
from stanch.core.rest import OrderCommon, TaskEvent
from stanch.core.task import State
from tests.client.stub import Stub, certificates


def followed(events) -> list[tuple[str, State]]:
    return [(one.endpoint, one.state) for one in events if one.state is not None]


def test_a_stream_is_followed_to_the_end(client, stub):
    """Every state of every task comes once, and then the watch ends."""
    order = client.submit("isolate", OrderCommon(endpoints=("web-01", "web-02")), {})
    states = followed(client.watch(order.id))
    assert states == [
        ("ept_1", "queued"),
        ("ept_2", "queued"),
        ("ept_1", "running"),
        ("ept_1", "done"),
        ("ept_2", "running"),
        ("ept_2", "done"),
    ]


def test_progress_is_passed_on(client, stub):
    """Progress of a running task reaches whoever watches."""
    order = client.submit("isolate", OrderCommon(endpoints=("web-01",)), {})
    half = TaskEvent(type="progress", task=order.tasks[0].id, order=order.id, endpoint="ept_1", done=5, total=10)
    stub.progress = (half,)
    assert half in list(client.watch(order.id))


def test_without_a_stream_the_order_is_asked(client, stub, naps):
    """A server whose stream does not work is polled, with a pause before each question."""
    stub.streams = False
    order = client.submit("isolate", OrderCommon(endpoints=("web-01",)), {})
    assert followed(client.watch(order.id))[-1] == ("ept_1", "done")


def test_an_order_that_is_over_is_told_at_once(client, stub):
    """Watching a finished order gives its final states and ends."""
    order = client.submit("isolate", OrderCommon(endpoints=("web-01",)), {})
    list(stub.finish(order.id))
    assert followed(client.watch(order.id)) == [("ept_1", "done")]


def test_an_unknown_order_is_not_retried(client, naps):
    """What cannot become right by waiting is told at once."""
    with pytest.raises(NotFound):
        list(client.watch("ord_none"))
    assert not naps


class Scripted:
    """A server as a list of what it does at each look: stream lines, states, or failures."""

    def __init__(self, *, streams: list[list[TaskEvent] | None], truths: list[State | None]) -> None:
        self.streams, self.truths = streams, truths

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/events"):
            lines = self.streams.pop(0) if self.streams else []
            if lines is None:
                raise httpx2.ConnectError("refused")
            body = "".join(f"data: {one if isinstance(one, str) else one.model_dump_json()}\n\n" for one in lines)
            return httpx2.Response(200, text=body, headers={"content-type": "text/event-stream"})
        state = self.truths.pop(0) if len(self.truths) > 1 else self.truths[0]
        if state is None:
            raise httpx2.ReadError("gone")
        stub = Stub()
        order = stub.order("isolate", {"endpoints": ["web-01"], "params": {}})
        stub.change(order.id, order.tasks[0].id, state=state)
        return httpx2.Response(200, text=stub.orders[order.id].model_dump_json())


def event(state: State, order: str = "ord_1") -> TaskEvent:
    return TaskEvent(type="task", task="tsk_ord_1_0", order=order, endpoint="ept_1", state=state)


def watching(script: Scripted, naps: list[float]) -> list[State]:
    ca = certificates()[0].decode()
    with Client("https://x", ca=ca, transport=httpx2.MockTransport(script), sleep=naps.append) as client:
        return [one.state for one in client.watch("ord_1")]


Q, S, R, D = State.QUEUED, State.SENT, State.RUNNING, State.DONE


@pytest.mark.parametrize(
    ("streams", "truths", "seen"),
    [
        ([[event(S)], [event(R)], [event(D)]], [Q, S, R, D], [Q, S, R, D]),
        ([[], []], [Q, R, D], [Q, R, D]),
        ([None, None], [Q, D], [Q, D]),
        ([[event(R)]], [D], [D]),
        ([[event(R), event(R), event(D), event(R)]], [Q], [Q, R, D]),
        ([["nonsense", json.dumps({"type": "new"}), event(D)]], [Q], [Q, D]),
        ([[event(D, order="ord_2"), event(R), event(D)]], [Q], [Q, R, D]),
        ([[], []], [None, None, Q, None, D], [Q, D]),
    ],
    ids=["cut", "silent", "refused", "late", "repeated", "unknown", "foreign", "restarted"],
)
def test_whatever_the_stream_does_the_truth_arrives(naps, streams, truths, seen):
    """Cut, silent, refused, late, repeated and foreign messages never hide, repeat or reopen a state."""
    assert watching(Scripted(streams=streams, truths=truths), naps) == seen


def test_a_server_that_stays_silent_ends_the_watch(naps):
    """After about a minute of failures the watch says so."""
    with pytest.raises(Unavailable):
        watching(Scripted(streams=[None] * 100, truths=[None]), naps)
    assert 50 < sum(naps) < 120


def test_a_stream_that_ends_at_once_is_not_hammered(naps):
    """Between two looks there is always a pause."""
    watching(Scripted(streams=[[]] * 5, truths=[Q, Q, Q, Q, D]), naps)
    assert len(naps) == 4
    assert all(nap > 0 for nap in naps)
