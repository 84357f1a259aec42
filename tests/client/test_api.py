"""The client against a real HTTPS server."""

from datetime import UTC, datetime

import pytest

from stanch.client.api import Client
from stanch.core.errors import (
    Conflict,
    NotAuthenticated,
    NotFound,
    VerificationFailed,
)
from stanch.core.rest import (
    GroupChange,
    GroupCreate,
    LabelChange,
    OrderCommon,
    PolicyChange,
    ServerAddresses,
    TokenCreate,
)
from stanch.core.rest_evidence import PreviewKind
from stanch.core.settings import NewSettings
from stanch.core.task import State
from tests.client.stub import PASSWORD, TOKEN, an_audit_entry, an_endpoint


def test_health_needs_no_token(stub):
    """A client without a token can ask whether the server is well."""
    with Client(stub.url, ca=stub.ca) as nobody:
        assert nobody.health().status == "ok"


def test_login_gives_a_token_that_works(stub):
    """Name and password are answered with a session, and a wrong password with its error."""
    with Client(stub.url, ca=stub.ca) as nobody:
        assert nobody.login("alice", PASSWORD).token == TOKEN
        with pytest.raises(NotAuthenticated, match="wrong"):
            nobody.login("alice", "guess")


def test_whoami(client):
    """The client knows whose token it carries."""
    assert client.whoami().name == "alice"


def test_lists_go_on_to_their_end(client, stub):
    """A list that comes in pages is read to its last page, without gaps or repetitions."""
    stub.endpoints, stub.page = [an_endpoint(n) for n in range(1, 8)], 3
    assert [one.id for one in client.endpoints()] == [f"ept_{n}" for n in range(1, 8)]


def test_a_page_that_points_at_itself_ends_the_list(client, stub):
    """A server that answers the same page for ever does not keep the client for ever."""
    page = f'{{"items": [{an_endpoint(1).model_dump_json()}], "next": "x"}}'.encode()
    stub.raw["GET /endpoints"] = (200, page)
    assert len(list(client.endpoints())) == 2


def test_search_and_labels_are_sent(client, stub):
    """Search text and every label reach the server."""
    stub.endpoints = [an_endpoint(1, labels=("env=prod", "role=db")), an_endpoint(2, labels=("env=prod",))]
    assert [one.id for one in client.endpoints(search="10.0.0", labels=["env=prod", "role=db"])] == ["ept_1"]


def test_label_sends_only_what_changes(client, stub):
    """Adding a label says nothing about removing one."""
    changed = client.label("web-01", LabelChange(add=("env=prod",)))
    assert changed.labels == ("env=prod",)
    assert stub.asked("PATCH /endpoints/web-01/labels") == [{"add": ["env=prod"]}]


def test_submit_sends_only_what_was_given(client, stub):
    """Defaults of the order and of the parameters stay off the wire."""
    order = client.submit("kill_process", OrderCommon(endpoints=("web-01",)), {"pid": 4711})
    assert order.states == {State.QUEUED: 1}
    assert stub.asked("POST /actions/kill_process/orders") == [{"endpoints": ["web-01"], "params": {"pid": 4711}}]


def test_orders_tasks_tokens_evidence(client, stub):
    """Every other path answers with its own type."""
    order = client.submit("isolate", OrderCommon(endpoints=("web-01",)), {})
    assert [one.id for one in client.orders()] == [order.id]
    assert client.task(order.tasks[0].id).hostname == "web-01"
    assert client.cancel(order.id).states == {State.CANCELLED: 1}
    assert client.undo(order.id).action == "release"
    assert client.tokens()[0].id == "etk_1"
    assert client.create_token(TokenCreate(uses=2)).token == "tok_secret"
    client.revoke_token("etk_1")
    assert client.addresses().configured == ("https://a.test:8444",)
    assert client.announce(ServerAddresses(urls=("https://b.test:1",))).announced == ("https://b.test:1",)
    client.revoke("web-01")
    client.logout()
    stub.add_evidence("evi_1", "/tmp/x", b"x")
    assert [one.id for one in client.evidence(order=order.id)] == ["evi_1"]
    assert client.find_evidence("evi_1").size == 1
    found = client.preview_evidence("evi_1", PreviewKind.HEX, offset=0, length=1)
    assert found.hex is not None
    assert found.hex.data == "78"
    assert client.verify_evidence("evi_1").intact
    assert client.delete_evidence("evi_1", reason="no more").deleted_why == "no more"
    since = datetime(2026, 11, 24, tzinfo=UTC)
    assert [one.id for one in client.evidence(endpoint="web-01", since=since, deleted=True)] == ["evi_1"]
    assert stub.asked("GET /evidence")[-1]["since"] == "2026-11-24T00:00:00+00:00"
    assert {one.name for one in client.actions()} >= {"isolate", "release"}


def test_the_audit(client, stub):
    """It is read to its first entry, and verified by the server."""
    stub.audit, stub.page = [an_audit_entry(n) for n in range(7, 0, -1)], 3
    assert [one.n for one in client.audit()] == [7, 6, 5, 4, 3, 2, 1]
    assert client.verify_audit().entries == 7
    stub.errors["GET /audit/verify"] = VerificationFailed("Audit entry 2 was changed")
    with pytest.raises(VerificationFailed, match="entry 2 "):
        client.verify_audit()


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_a_name_that_would_leave_its_path_is_not_found(client, stub, key):
    """A name cannot turn one request into another."""
    with pytest.raises(NotFound):
        client.endpoint(key)
    assert not stub.requests


@pytest.mark.parametrize("key", ["a/b", "../../whoami", "x?search=1", "ü", "[red]"])
def test_any_other_name_stays_one_part_of_the_path(client, stub, key):
    """Slashes, question marks and foreign letters are quoted."""
    with pytest.raises(NotFound):
        client.order(key)
    assert len(stub.requests) == 1


def test_groups_from_their_making_to_their_end(client, stub):
    """What is asked for arrives, and what comes back is typed."""
    made = client.create_group(GroupCreate(name="db", labels=("role=db",)))
    assert made in client.groups()
    assert client.change_group("db", GroupChange(rank=5)).rank == 5
    assert stub.asked("PATCH /groups/db") == [{"rank": 5}]
    client.delete_group("db")
    with pytest.raises(NotFound):
        client.group("db")


def test_a_policy_is_read_and_replaced(client, stub):
    """With the version that the change is based on; a section that is not named is not sent."""
    assert client.policy("web").version == 0
    settings = NewSettings.model_validate({"isolation": {"duration": None}})
    saved = client.change_policy("web", PolicyChange(settings=settings, based_on=0))
    assert (saved.version, saved.settings.isolation.duration) == (1, None)
    assert stub.asked("PUT /groups/web/policy") == [{"settings": {"isolation": {"duration": None}}, "based_on": 0}]
    with pytest.raises(Conflict):
        client.change_policy("web", PolicyChange(settings=NewSettings(), based_on=0))


def test_what_an_endpoint_follows(client, stub):
    """Its groups narrow the list of endpoints too."""
    stub.endpoints = [an_endpoint(1).model_copy(update={"groups": ("web", "all")}), an_endpoint(2)]
    assert client.effective_policy("web-01").groups == ("web", "all")
    assert [one.id for one in client.endpoints(group="web")] == ["ept_1"]
