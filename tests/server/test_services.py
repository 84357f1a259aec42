"""What agents are told about our addresses."""

from stanch.core.host import Peer
from stanch.server.services import Addresses

KNOWN = Peer(address="10.0.0.1", port=8444)
REACHED = Peer(address="192.0.2.7", port=8444)
ADDRESSES = Addresses(urls=("https://stanch.example.org:8444",), peers=(KNOWN,))


def test_the_address_that_worked_comes_first() -> None:
    """Once, even if it was known."""
    assert ADDRESSES.body(reached=REACHED, nonce="n").peers == (REACHED, KNOWN)
    assert ADDRESSES.body(reached=KNOWN, nonce="n").peers == (KNOWN,)
    assert ADDRESSES.body(reached=None, nonce="n").peers == (KNOWN,)


def test_the_nonce_comes_back() -> None:
    """With the URLs."""
    body = ADDRESSES.body(reached=None, nonce="mine")
    assert (body.nonce, body.urls) == ("mine", ADDRESSES.urls)
