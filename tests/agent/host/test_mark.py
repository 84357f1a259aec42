"""The mark on the agent's own sockets."""

import socket

import pytest

from stanch.agent.host.mark import AGENT_MARK, mark


@pytest.mark.root
def test_a_socket_carries_the_mark():
    """The firewall reads it from each packet."""
    with socket.socket() as one:
        mark(one)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == AGENT_MARK


def test_without_the_right_to_mark_a_socket_stays_as_it_is(monkeypatch):
    """An agent that is tried out as an ordinary user has connections all the same."""

    class Refusing:
        def setsockopt(self, *_: object) -> None:
            raise PermissionError

    mark(Refusing())
