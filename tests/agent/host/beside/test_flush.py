"""`nft flush ruleset`, with which the reload of a usual /etc/nftables.conf begins, while the endpoint is isolated."""

from collections.abc import Iterator

import pytest

from stanch.core.network import IsolationState
from tests.agent.host.beside.place import OWNS_TABLES, Held, Observer, attempts, foreign, new_place, passes
from tests.agent.host.beside.products import ROUTED_FLOWS, build_routed, data

pytestmark = pytest.mark.root


@pytest.fixture
def held() -> Iterator[Held]:
    """A router that is configured by /etc/nftables.conf."""
    with new_place() as place:
        build_routed(place)
        place.endpoint.command("nft -f -", stdin=data("nftables.conf"))
        made = Held(place)
        try:
            yield made
        finally:
            made.close()


def assert_cut(held: Held) -> None:
    assert held.state().state is IsolationState.ISOLATED
    observer = Observer(held.place)
    with attempts(held.place, ROUTED_FLOWS):
        held.fence()
        assert observer.leaks() == {}


needs_ownership = pytest.mark.skipif(
    not OWNS_TABLES, reason="Linux before 6.9: a flush by others removes our tables, the agent puts them back"
)


@needs_ownership
def test_a_reload_that_flushes_the_ruleset_opens_nothing(held):
    """The configuration is loaded again without an error, and nothing passes before, at or after its flush."""
    before = foreign(held.place)
    held.isolate()
    held.place.endpoint.command("nft flush ruleset")
    assert foreign(held.place)["nft"] == ""
    assert_cut(held)
    held.place.endpoint.command("nft -f -", stdin=data("nftables.conf"))
    assert_cut(held)
    assert foreign(held.place) == before


@needs_ownership
def test_repeated_reloads_open_nothing(held):
    """Isolating again between reloads does not give the tables away."""
    for _ in range(3):
        held.isolate()
        held.place.endpoint.command("nft -f -", stdin=data("nftables.conf"))
        assert_cut(held)


def test_after_the_release_a_reload_is_as_ever(held):
    """Nothing of ours is left that a reload could meet, and everything passes again."""
    held.isolate()
    assert held.lift() is True
    held.place.endpoint.command("nft flush ruleset")
    assert held.place.endpoint.command("nft list ruleset") == ""
    held.place.endpoint.command("nft -f -", stdin=data("nftables.conf"))
    for flow in ROUTED_FLOWS:
        passes(held.place, flow)


@needs_ownership
def test_a_ruleset_that_was_saved_while_isolated_is_refused_while_isolated(held):
    """Whoever saves all rules, ours among them, and loads them again is refused as a whole, and nothing has changed."""
    held.isolate()
    before = foreign(held.place)
    saved = held.place.endpoint.command("nft list ruleset")
    with pytest.raises(AssertionError, match="Operation not permitted"):
        held.place.endpoint.command("nft -f -", stdin=f"flush ruleset\n{saved}")
    assert foreign(held.place) == before
    assert_cut(held)


@needs_ownership
def test_a_ruleset_that_was_saved_while_isolated_isolates_nobody_later(held):
    """Loaded after the release, it brings back what is of others, and nothing of ours: that ends with its owner."""
    before = foreign(held.place)
    held.isolate()
    saved = held.place.endpoint.command("nft list ruleset")
    held.lift()
    held.place.endpoint.command("nft -f -", stdin=f"flush ruleset\n{saved}")
    assert held.state().state is IsolationState.RELEASED
    assert foreign(held.place) == before
    for flow in ROUTED_FLOWS:
        passes(held.place, flow)
