"""Orders: list, show, follow, cancel, undo; tokens."""

import pytest

from stanch.core.rest import OrderCommon, TaskProgress
from stanch.core.task import State
from tests.client.stub import NOW


@pytest.fixture
def order(signed_in):
    body = OrderCommon(endpoints=("web-01",), reason="ransomware").model_dump(mode="json", exclude_unset=True)
    return signed_in.order("isolate", {**body, "params": {"duration": "2h"}})


def test_orders_are_listed(run, order):
    """One line for each order, with how far it is."""
    ended = run("orders")
    for text in ("ord_1", "isolate", "1 queued", "alice", "ransomware"):
        assert text in ended.out
    assert [one["id"] for one in run("orders", "--json").json] == ["ord_1"]


def test_no_order_yet(run, signed_in):
    """An empty list says what to do next."""
    assert "stanch actions" in run("orders").out


def test_an_order_is_shown_with_its_tasks(run, order):
    """Parameters, reason and tasks, without waiting; the exit code is 0 while nothing was waited for."""
    ended = run("order", "show", "ord_1")
    assert ended.code == 0
    for text in ("ransomware", "2h", "web-01", "queued"):
        assert text in ended.out
    assert run("order", "show", "ord_1", "--json").json["tasks"][0]["state"] == "queued"


def test_cancel(run, order, signed_in):
    """Cancelling tells where the tasks are now."""
    assert "1 cancelled" in run("order", "cancel", "ord_1").out
    assert signed_in.asked("POST /orders/ord_1/cancel")


def test_undo_is_a_new_order(run, order):
    """Taking back gives an order of its own, which can be waited for."""
    assert run("order", "undo", "ord_1", "--json").json["action"] == "release"
    assert run("order", "undo", "ord_1", "--wait").code == 0


def test_an_unknown_order(run, signed_in):
    """What is not there ends with 5."""
    assert run("order", "show", "ord_9").code == 5


def test_a_task_that_waits_says_so(run, order, signed_in):
    """Paused, why, since when, how far it is and where; in the list too, and in JSON."""
    told = TaskProgress(
        done=120, total=500, unit="files", text="2 found, 1MiB, paused at /srv\x1b", paused="on order",
        paused_since=NOW, at=NOW,
    )  # fmt: skip
    whole = signed_in.orders["ord_1"]
    task = whole.tasks[0].model_copy(update={"state": State.RUNNING, "progress": told})
    signed_in.orders["ord_1"] = whole.model_copy(
        update={"tasks": (task, *whole.tasks[1:]), "paused": 1, "states": {State.RUNNING: 1}}
    )
    shown = run("order", "show", "ord_1").out
    flat = " ".join(shown.split())
    for text in ("paused", "on order since", "120 of 500 files", "2 found", "/srv", "1 running (1 paused)"):
        assert text in flat
    assert "\x1b" not in shown
    assert run("order", "show", "ord_1", "--json").json["tasks"][0]["progress"]["paused"] == "on order"
    assert "(1 paused)" in " ".join(run("orders").out.split())
