"""What all kinds of standing orders share: woken together, each told what is its own."""

from tests.fakes.waiting import eventually
from tests.server.test_content_way import Endpoint, publish_one, running


async def test_they_are_woken_as_one(parts, tmp_path):
    """One hello, and every kind looks whether there is something to tell."""
    await parts.add_endpoints("a")
    await publish_one(parts, tmp_path)
    end = Endpoint(parts, "end_a")
    async with running(parts):
        with parts.dispatcher.attach("end_a", end.send, end.close):
            parts.standing.wake("end_a")
            await end.told()
            parts.standing.wake_all()
            await eventually(lambda: not any(one._woken.is_set() for one in parts.standing.kinds))
            assert end.bodies.empty()
