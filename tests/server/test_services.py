"""What agents are told about our addresses."""

from ipaddress import ip_address

from stanch.core.network import Peer
from stanch.server.services import MAX_PEERS, Addresses

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


def test_what_is_told_fits_in_an_envelope() -> None:
    """However many addresses our names have, and the address that worked is among them."""
    first = int(ip_address("10.1.0.0"))
    many = tuple(Peer(address=ip_address(first + n), port=8444) for n in range(1000))
    told = Addresses(urls=ADDRESSES.urls, peers=many).body(reached=REACHED, nonce=None).peers
    assert (len(told), told[0]) == (MAX_PEERS, REACHED)
