"""Host names that the shell is offered."""

import socket

from stanch.cli.naming import endpoint_names, group_names
from stanch.client.session import load, save
from tests.client.stub import an_endpoint


def test_host_names_are_completed(signed_in):
    """Names come from the server; one that a shell would misread is not offered."""
    signed_in.endpoints = [an_endpoint(1), an_endpoint(2, hostname="web-$(reboot)"), an_endpoint(3, hostname="web-a b")]
    assert [one.value for one in endpoint_names(None, None, "web")] == ["web-01"]


def test_without_a_session_nothing_is_offered(place):
    """Completion never fails, and never asks."""
    assert endpoint_names(None, None, "w") == []


def test_a_silent_server_is_not_waited_for(signed_in, place, monkeypatch):
    """Whoever presses Tab gets nothing rather than a frozen shell."""
    monkeypatch.setattr("stanch.cli.naming.PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        save(place, load(place).model_copy(update={"url": url}))
        assert endpoint_names(None, None, "w") == []


def test_groups_are_completed(signed_in):
    """Names come from the server."""
    assert [one.value for one in group_names(None, None, "w")] == ["web"]
    signed_in.groups = []
    assert group_names(None, None, "") == []
