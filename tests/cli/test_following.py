"""Following an order with --wait."""

import pytest

from stanch.core.rest import OrderCommon, TaskEvent
from stanch.core.task import State


@pytest.fixture
def order(signed_in):
    body = OrderCommon(endpoints=("web-01",)).model_dump(mode="json", exclude_unset=True)
    return signed_in.order("isolate", {**body, "params": {}})


def test_an_order_is_followed(run, order, signed_in):
    """--wait follows to the end and ends as the tasks did."""
    signed_in.ends["web-01"] = {"state": State.REFUSED}
    assert run("order", "show", "ord_1", "--wait").code == 8


def test_following_without_a_stream(run, order, signed_in, monkeypatch):
    """A proxy that breaks streams only makes it slower."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    signed_in.streams = False
    assert run("order", "show", "ord_1", "--wait", "--json").json["states"] == {"done": 1}


def test_an_interrupted_wait_says_that_the_order_goes_on(run, order, monkeypatch):
    """Ctrl-C ends the watching, not the order."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("stanch.client.api.Client.watch", interrupted)
    ended = run("order", "show", "ord_1", "--wait")
    assert ended.code == 130
    assert "stanch order cancel ord_1" in ended.err


def test_json_is_the_order(run, signed_in):
    """--json prints the order and nothing else, waiting or not."""
    assert run("isolate", "web-01", "--json").json["id"] == "ord_1"
    waited = run("isolate", "web-01", "--json", "--wait")
    assert waited.json["tasks"][0]["state"] == "done"


def test_progress_is_no_part_of_json(run, signed_in):
    """Progress goes to standard error."""
    signed_in.progress = (
        TaskEvent(type="progress", task="tsk_ord_1_0", order="ord_1", endpoint="ept_1", done=1, total=2, unit="bytes"),
    )
    assert run("isolate", "web-01", "--wait", "--json").json["id"] == "ord_1"
