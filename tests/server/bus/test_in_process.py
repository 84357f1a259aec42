"""The in-process bus: to whoever listens, and never in the way."""

from stanch.core.rest import TaskEvent
from stanch.server.bus.in_process import MAX_QUEUED, Bus


def event(order: str, task: str = "t") -> TaskEvent:
    """A task change."""
    return TaskEvent(type="task", task=task, order=order, endpoint="e")


async def test_listeners_get_their_order_only():
    """One listens to an order, one to all; each gets what it asked for."""
    bus = Bus()
    with bus.subscribe("a") as mine, bus.subscribe() as everything:
        bus.publish(event("b"))
        bus.publish(event("a"))
        assert (await mine.next()).order == "a"
        assert [(await everything.next()).order for _ in range(2)] == ["b", "a"]


async def test_a_slow_listener_loses_the_oldest():
    """A listener that does not read loses old events, is told how many, and delays nobody."""
    bus = Bus()
    with bus.subscribe() as slow:
        for i in range(MAX_QUEUED + 3):
            bus.publish(event("a", str(i)))
        assert slow.lost == 3
        assert (await slow.next()).task == "3"


def test_nobody_listens_after_the_end():
    """A subscription ends with its block."""
    bus = Bus()
    with bus.subscribe():
        assert bus.listened_to
    assert not bus.listened_to


async def test_the_end_is_told():
    """Whoever listens when the server stops hears so after what came before, and so does whoever comes too late."""
    bus = Bus()
    with bus.subscribe() as early:
        bus.publish(event("a"))
        bus.close()
        with bus.subscribe("b") as late:
            assert await late.next() is None
        assert (await early.next()).order == "a"
        assert await early.next() is None
