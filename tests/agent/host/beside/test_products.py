"""Isolation beside the rule sets of other products: it cuts what they open, and touches nothing of theirs."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from stanch.core.network import IsolationState
from tests.agent.host.beside.place import (
    OWNS_TABLES,
    Flow,
    Held,
    Observer,
    Place,
    attempts,
    begun,
    connected,
    foreign,
    new_place,
    passes,
    talk,
)
from tests.agent.host.beside.products import PRODUCTS, Product, Step

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Installed:
    """A product on an endpoint."""

    product: Product
    place: Place
    held: Held

    def run(self, step: Step) -> None:
        command, text = step
        self.place.endpoint.command(command, stdin=text)

    @contextmanager
    def isolated(self) -> Iterator[Observer]:
        """Isolated inside the block, released after it."""
        state = self.held.isolate()
        observer = Observer(self.place)  # not earlier: the kernel reports its multicast groups when it likes
        assert (state.state, state.not_covered) == (IsolationState.ISOLATED, ())
        try:
            yield observer
        finally:
            self.held.lift()

    def assert_silent(self, observer: Observer) -> None:
        """Whatever the product makes possible is tried, and nobody hears of it; the server answers."""
        with attempts(self.place, self.product.flows):
            self.held.fence()
            assert observer.leaks() == {}


@pytest.fixture(scope="module", params=PRODUCTS, ids=lambda product: product.name)
def installed(request) -> Iterator[Installed]:
    """Each product in turn, with its devices and its rules."""
    product: Product = request.param
    with new_place() as place:
        product.build(place)
        for command, text in product.load:
            place.endpoint.command(command, stdin=text)
        held = Held(place)
        try:
            yield Installed(product, place, held)
        finally:
            held.close()


def test_without_isolation_everything_passes(installed):
    """The product works, and what it is there for passes: all that is later missed is seen before."""
    for flow in installed.product.flows:
        passes(installed.place, flow)


def test_without_isolation_the_observer_hears_everything(installed):
    """The one who looks on from outside, and from inside the pods, misses nothing that passes there."""
    observer = Observer(installed.place)
    seen = [flow for flow in installed.product.flows if flow.reached != "endpoint"]
    with ExitStack() as opened:
        for flow in seen:
            opened.enter_context(begun(installed.place, flow))
        installed.held.fence()
        heard = observer.leaks()
    for flow in seen:
        assert f"leak: {flow.name}".encode() in b"".join(heard.get(flow.reached, ()))


def test_isolation_cuts_everything_but_the_server(installed):
    """Host and pods, published ports and services, translated or not: nothing passes but the server's connections."""
    with installed.isolated() as observer:
        installed.assert_silent(observer)


def test_nothing_of_the_product_is_touched(installed):
    """Rules, sets and routes of others are the same, to the letter, before, during and after an isolation."""
    before = foreign(installed.place)
    assert any(before.values())
    with installed.isolated():
        assert foreign(installed.place) == before
    assert foreign(installed.place) == before


def test_a_reload_while_isolated_opens_nothing(installed):
    """The product is restarted: no step of that fails, and after none of them does anything pass."""
    if installed.product.flushes_everything and not OWNS_TABLES:
        pytest.skip("Linux before 6.9: a flush by others removes our tables, the agent puts them back")
    before = foreign(installed.place)
    with installed.isolated() as observer:
        for step in installed.product.reload:
            installed.run(step)
            installed.assert_silent(observer)
        assert installed.held.state().state is IsolationState.ISOLATED
        assert in_any_order(foreign(installed.place)) == in_any_order(before)


def in_any_order(found: dict[str, str]) -> dict[str, list[str]]:
    """A product may make its tables in another order than the first time, and its sets with another seed."""
    seedless = {save: re.sub(r" initval \w+", "", text) for save, text in found.items()}
    return {
        save: sorted(re.split(r"^(?=table |\*|create )", text, flags=re.MULTILINE)) for save, text in seedless.items()
    }


def test_connections_through_the_product_go_on_after_the_release(installed):
    """What connection tracking knows is kept: a translated connection is silent, and after the release it goes on."""
    with ExitStack() as opened:
        pairs = [
            tuple(map(opened.enter_context, connected(installed.place, flow))) for flow in _lasting(installed.product)
        ]
        with installed.isolated() as observer:
            for call, answer in pairs:
                call.sendall(b"later")
                answer.sendall(b"later")
            installed.held.fence()
            assert observer.leaks() == {}
        for call, answer in pairs:
            assert call.recv(5) == answer.recv(5) == b"later"
            talk(call, answer)


def _lasting(product: Product) -> list[Flow]:
    """Those of pods: connections of the host itself are destroyed by other means."""
    return [flow for flow in product.flows if "endpoint" not in {flow.source, flow.reached}]


def test_after_the_release_everything_passes_again(installed):
    """Nothing of the product is left broken."""
    with installed.isolated() as observer:
        installed.assert_silent(observer)
    for flow in installed.product.flows:
        passes(installed.place, flow)
    assert b"leak: " not in b"".join(frame for frames in observer.leaks().values() for frame in frames)
