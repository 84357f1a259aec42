"""What is shared by disabling and enabling: names, what is left, what is said when nothing works."""

import pytest

from stanch.core.autoruns import Autorun, Method, Place, Way
from stanch.core.disabling import (
    Begun,
    Disabling,
    Enabling,
    effect_name,
    in_force,
    places_of,
    raise_if_none,
    recorded,
    remaining_of,
    wanted,
    way_in_force,
    ways_in_force,
)
from stanch.core.errors import ActionFailed, Conflict
from stanch.core.taking import dumped
from stanch.core.types import EndpointPath, hours, seconds
from tests.fakes.host import FakeEndpoint


async def way_of(
    endpoint: FakeEndpoint, name: str, path: str, place: Place = Place.SYSTEMD_UNIT, **fields: object
) -> Way:
    """Something that starts by itself, and how it would be disabled."""
    one: Autorun = endpoint.autoruns.add(name, path, place=place, **fields)
    return (await endpoint.autoruns.way(one)).model_copy(update={"task": endpoint.task})


async def test_what_is_written_down_comes_back() -> None:
    """A way is the same after it was in the journal and in an effect, with odd bytes and long lines."""
    endpoint = FakeEndpoint()
    line = r"* * * * * root \xff " + "x" * 60_000
    way = Way(
        id="0" * 16, task="tsk_1", place=Place.CRON, name="x", method=Method.LINE, path="/etc/crontab", lines=(line,)
    )
    endpoint.journal.earlier = dumped(Begun(ways=(way,)))
    assert recorded(endpoint.host) == Begun(ways=(way,))
    endpoint.autoruns.add("x", "/etc/crontab", place=Place.CRON)
    work = Disabling(endpoint.host, None)
    await work.disable(way.model_copy(update={"id": endpoint.autoruns.there[0].id}))
    assert [one.lines for one in ways_in_force(endpoint.host)] == [(line,)]


async def test_which_task_disabled_it() -> None:
    """An effect is found by the id, and known as another task's."""
    endpoint = FakeEndpoint()
    way = await way_of(endpoint, "x.service", "/usr/lib/systemd/system/x.service")
    assert not in_force(endpoint.host, way)
    await Disabling(endpoint.host, None).disable(way)
    assert way_in_force(endpoint.host, way.id) == way
    assert in_force(endpoint.host, way)
    assert not in_force(endpoint.host, way.model_copy(update={"task": "tsk_2"}))
    assert way_in_force(endpoint.host, "f" * 16) is None


async def test_what_another_task_disabled_anew_stays() -> None:
    """An order that goes on after a crash does not enable what was disabled by somebody else since."""
    endpoint = FakeEndpoint()
    way = await way_of(endpoint, "x.service", "/usr/lib/systemd/system/x.service")
    await Disabling(endpoint.host, None).disable(way)
    work = Enabling(endpoint.host, forget=True)
    await work.enable(way.model_copy(update={"task": "tsk_0"}))
    assert (work.done, work.failed, work.forgotten) == ([], [], [])
    assert "anew" in work.notes[0]
    assert way_in_force(endpoint.host, way.id) == way


async def test_the_longest_that_is_left() -> None:
    """Of several, the longest counts; never is longer than any; what is due counts a second."""
    endpoint = FakeEndpoint()
    ways = [await way_of(endpoint, f"{n}.service", f"/usr/lib/systemd/system/{n}.service") for n in range(3)]
    for way, lasts in zip(ways, (hours(1), hours(2), None), strict=True):
        await Disabling(endpoint.host, lasts).disable(way)
    assert remaining_of(endpoint.host, ways[:2]) == hours(2)
    assert remaining_of(endpoint.host, ways) is None
    assert remaining_of(endpoint.host, []) is None
    endpoint.clock.advance(hours(3))
    assert remaining_of(endpoint.host, ways[:2]) == seconds(1)


async def test_systemd_is_told_once_of_each_place() -> None:
    """The places of several are told once each; nothing is told where nothing was done."""
    endpoint = FakeEndpoint()
    ways = [await way_of(endpoint, f"{n}.service", f"/usr/lib/systemd/system/{n}.service") for n in range(2)]
    assert places_of(ways) == (Place.SYSTEMD_UNIT,)
    assert await Disabling(endpoint.host, None).let_know() == ()
    await Enabling(endpoint.host, forget=False).finish()
    assert endpoint.life.steps == []


async def test_the_error_of_what_failed_altogether() -> None:
    """One error is itself; several are one that names them; none, if something worked."""
    way = Way(id="0" * 16, place=Place.CRON, name="x", method=Method.LINE, path="/etc/crontab")
    first = Conflict("it has changed", hint="Look again.")
    raise_if_none([(way, first)], [way])
    raise_if_none([], [])
    with pytest.raises(Conflict, match=r"^it has changed"):
        raise_if_none([(way, first)], [])
    with pytest.raises(Conflict, match="None of 2 worked") as caught:
        raise_if_none([(way, first), (way, ActionFailed("broken"))], [])
    assert caught.value.got == "x: it has changed; x: broken"


def test_an_effect_has_a_short_name() -> None:
    """The name fits into that of an effect."""
    assert effect_name("0" * 16) == "autorun:0000000000000000"


async def test_disabling_anew_in_vain_keeps_the_way_back_of_the_first_time() -> None:
    """What came back by itself and cannot be disabled again is still written down as the first task disabled it."""
    endpoint = FakeEndpoint()
    way = await way_of(endpoint, "x", "/etc/cron.d/x", Place.CRON, line=1, command="x")
    await Disabling(endpoint.host, hours(2)).disable(way)
    endpoint.clock.advance(hours(1))
    again = way.model_copy(update={"task": "tsk_2"})
    endpoint.autoruns.disabled.clear()
    endpoint.autoruns.changed.add("/etc/cron.d/x")
    endpoint.next_task("tsk_2")
    work = Disabling(endpoint.host, None)
    await work.disable(again)
    assert work.failed
    assert way_in_force(endpoint.host, way.id) == way
    assert remaining_of(endpoint.host, [way]) == hours(1)


async def test_a_path_in_lib_is_one_in_usr_lib() -> None:
    """People type what systemctl shows: with a merged /usr, that is the same file."""
    endpoint = FakeEndpoint()
    one = endpoint.autoruns.add("x.service", "/usr/lib/systemd/system/x.service")
    path = EndpointPath("/lib/systemd/system/x.service")
    assert await wanted(endpoint.host, ids=(), units=(), path=path) == ([one], [])
