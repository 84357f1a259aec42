"""Is an endpoint isolated truthfully, rolled back when it must be, and let back on; whatever happens on the way?"""

import asyncio
from datetime import timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.isolate import CONFIRM_WITHIN, EFFECT, SLACK, Isolate, Release, isolate, release
from stanch.core.action import Verdict
from stanch.core.errors import NotVerified, Unconfirmed, Unsupported
from stanch.core.host import IsolationState, Peer
from stanch.core.types import hours, parse_network, seconds
from tests.fakes.host import SERVER, FakeEndpoint, FakeFirewall, socket_to
from tests.fakes.killing import go_on, killed_at_every_step, killed_twice, run_until_killed
from tests.fakes.waiting import eventually

EVIL, IDLE = socket_to("203.0.113.9:443"), socket_to("[2001:db8::9]:8080")
TO_SERVER, TO_SELF = socket_to("192.0.2.1:8443"), socket_to("127.0.0.1:631")
TEN = (ip_network("10.0.0.0/8"),)
TWO_HOURS = Isolate(duration=hours(2))


@pytest.fixture
async def endpoint():
    return await with_sockets()


async def with_sockets():
    """A released endpoint with two connections that an isolation must cut."""
    fresh = FakeEndpoint()
    fresh.firewall.sockets = [EVIL, TO_SERVER, IDLE, TO_SELF]
    return fresh


async def isolated():
    """An endpoint that another task isolated an hour ago, for five hours."""
    fresh = await with_sockets()
    await isolate.run(fresh.host, Isolate(allow=TEN))
    fresh.clock.advance(hours(1))
    fresh.next_task("tsk_2")
    fresh.life.restart()
    return fresh


def assert_nothing_left(endpoint):
    """Not isolated, and nothing says so."""
    assert not endpoint.firewall.in_force
    assert endpoint.effects.held == {}


def assert_isolated(endpoint, duration):
    """The kernel, the effect on the disk and the deadline agree."""
    effect = endpoint.effects.held[EFFECT]
    assert endpoint.firewall.in_force
    assert effect.detail["confirmed"]
    assert effect.until == (None if duration is None else effect.since + duration)
    assert endpoint.firewall.until == effect.until


# --- isolate ---------------------------------------------------------------------------------------------------------


async def test_cuts_everything_but_the_server(endpoint):
    """Forbidden connections are destroyed, on IPv4 and IPv6; the server and the loopback stay."""
    result = await isolate.run(endpoint.host, TWO_HOURS)
    assert (result.changed, result.sockets_destroyed) == (True, 2)
    assert endpoint.firewall.sockets == [TO_SERVER, TO_SELF]
    assert result.until == result.since + hours(2) == endpoint.clock.now() + hours(2)
    assert_isolated(endpoint, hours(2))
    assert (await isolate.verify(endpoint.host, TWO_HOURS, result)).verdict is Verdict.IN_PLACE


async def test_allowed_networks_stay_open(endpoint):
    """A connection into an allowed network is not cut."""
    params = Isolate(allow=(ip_network("203.0.113.0/24"),))
    result = await isolate.run(endpoint.host, params)
    assert (EVIL in endpoint.firewall.sockets, IDLE in endpoint.firewall.sockets) == (True, False)
    assert result.sockets_destroyed == 1
    assert endpoint.firewall.rules.allow == params.allow


async def test_without_a_duration_it_lasts(endpoint):
    """Null means never: in the kernel, on the disk and in the result."""
    result = await isolate.run(endpoint.host, Isolate(duration=None))
    assert result.until is None
    assert_isolated(endpoint, None)


async def test_what_is_not_covered_is_reported(endpoint):
    """The limits of the machine come back with the result."""
    endpoint.firewall.not_covered = ("AF_XDP on eth0",)
    assert (await isolate.run(endpoint.host, TWO_HOURS)).not_covered == ("AF_XDP on eth0",)


async def test_the_way_back_is_on_the_disk_before_the_kernel_is_told(endpoint):
    """Every change of the rules follows a record of how to lift it, and the first one has a short deadline."""
    await isolate.run(endpoint.host, TWO_HOURS)
    steps = endpoint.life.steps
    assert steps[:3] == ["journal.record", "effects.hold", "firewall.isolate"]
    assert steps.index("server.confirm") < len(steps) - 1 - steps[::-1].index("firewall.isolate")


async def test_until_it_is_confirmed_the_kernel_lifts_it_soon(endpoint):
    """An agent that dies while it asks the server strands nobody."""
    endpoint.life.ends_at = 5
    assert await run_until_killed(endpoint, isolate, TWO_HOURS)
    assert endpoint.life.steps[-1] == "firewall.destroy_sockets"
    assert endpoint.firewall.in_force
    endpoint.clock.advance(CONFIRM_WITHIN + SLACK)
    assert not endpoint.firewall.in_force


async def test_a_socket_that_is_born_meanwhile_is_cut_too(endpoint):
    """It looks again until none is left."""
    endpoint.firewall.born = [socket_to(f"203.0.113.{n}:443") for n in range(3)]
    assert (await isolate.run(endpoint.host, TWO_HOURS)).sockets_destroyed == 5
    assert endpoint.firewall.sockets == [TO_SERVER, TO_SELF]


async def test_a_socket_that_stays_fails_it_and_is_named(endpoint):
    """It is not done, and says why; but the isolation stays, or any program could end it by opening sockets."""
    endpoint.firewall.undying = [EVIL]
    with pytest.raises(NotVerified, match=r"10\.0\.0\.5:40000 -> 203\.0\.113\.9:443"):
        await isolate.run(endpoint.host, TWO_HOURS)
    assert endpoint.firewall.sockets == [EVIL, TO_SERVER, TO_SELF]
    assert_isolated(endpoint, hours(2))


# --- confirmation ----------------------------------------------------------------------------------------------------


async def test_without_an_answer_it_is_rolled_back(endpoint):
    """A server that cannot be reached under the rules undoes them, and the message says what to do."""
    endpoint.server.answers = False
    with pytest.raises(Unconfirmed, match="--allow") as failed:
        await isolate.run(endpoint.host, TWO_HOURS)
    assert failed.value.got == "no answer within 1m"
    assert endpoint.server.asked == [CONFIRM_WITHIN]
    assert_nothing_left(endpoint)


async def test_people_are_told_that_it_asks(endpoint):
    """A minute of silence needs a word."""
    await isolate.run(endpoint.host, TWO_HOURS)
    assert "asking the server" in endpoint.progress.told[0][3]


async def test_cancelled_while_it_asks_it_is_rolled_back(endpoint):
    """Nothing of a cancelled isolation remains."""
    endpoint.server.hangs = True
    running = asyncio.create_task(isolate.run(endpoint.host, TWO_HOURS))
    await eventually(endpoint.server.waiting.is_set)
    assert endpoint.firewall.in_force
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert_nothing_left(endpoint)


class StopsAt(FakeFirewall):
    """Cancels the running task in its n-th `isolate`."""

    def __init__(self, nth, **known):
        super().__init__(**known)
        self.left = nth

    async def isolate(self, rules, *, lift_after):
        await super().isolate(rules, lift_after=lift_after)
        self.left -= 1
        if self.left == 0:
            asyncio.current_task().cancel()
            await asyncio.sleep(0)


@pytest.mark.parametrize("nth", [1, 2])
async def test_cancelled_in_the_middle_nothing_remains(endpoint, nth):
    """Before the confirmation and after it, a cancelled isolation of a released endpoint is rolled back."""
    endpoint.firewall = StopsAt(nth, life=endpoint.life, clock=endpoint.clock, sockets=[EVIL])
    running = asyncio.create_task(isolate.run(endpoint.host, TWO_HOURS))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert_nothing_left(endpoint)


async def test_a_kernel_that_cannot_leaves_nothing(endpoint):
    """Unsupported comes out as it is; no effect is left on the disk."""
    endpoint.firewall.fails = Unsupported("No nftables here")
    with pytest.raises(Unsupported):
        await isolate.run(endpoint.host, TWO_HOURS)
    assert_nothing_left(endpoint)


# --- again -----------------------------------------------------------------------------------------------------------


async def test_the_same_again_changes_nothing_and_asks_nobody():
    """An endpoint that is isolated this way stays so; the server is not asked, since it may be away by now."""
    endpoint = await isolated()
    endpoint.server.answers = False
    result = await isolate.run(endpoint.host, Isolate(allow=TEN))
    assert not result.changed
    assert isolate.undo_params(TWO_HOURS, result) is None
    assert endpoint.firewall.in_force


async def test_a_renewal_that_is_stopped_in_the_middle_is_in_place():
    """Whoever cancels a renewal must not put an isolated endpoint back on the network: it is completed instead."""
    endpoint = await isolated()
    stops = StopsAt(1, life=endpoint.life, clock=endpoint.clock)
    stops.rules, stops.until = endpoint.firewall.rules, endpoint.firewall.until
    endpoint.firewall = stops
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(isolate.run(endpoint.host, TWO_HOURS))
    assert endpoint.firewall.in_force
    endpoint.restart()
    assert (await isolate.verify(endpoint.host, TWO_HOURS, None)).verdict is Verdict.IN_PLACE
    await isolate.run(endpoint.host, TWO_HOURS)
    assert endpoint.firewall.in_force


async def test_the_order_of_the_servers_is_no_change():
    """The server that is connected comes first, the kernel's sets have no order: this is no difference."""
    endpoint = FakeEndpoint()
    other = Peer(address=ip_address("192.0.2.0"), port=8443)
    for servers in [(SERVER, other), (other, SERVER)]:
        endpoint.server.known = servers
        result = await isolate.run(endpoint.host, Isolate(allow=(ip_network("10.0.0.1"), ip_network("10.0.0.0"))))
    assert not result.changed


async def test_other_rules_replace_the_earlier_ones_without_a_gap():
    """A change of an isolation never lifts it first."""
    endpoint = await isolated()
    result = await isolate.run(endpoint.host, TWO_HOURS)
    assert result.changed
    assert "firewall.lift" not in endpoint.life.steps
    assert endpoint.firewall.rules.allow == ()
    assert endpoint.firewall.until == endpoint.clock.now() + hours(2) == result.until


async def test_a_part_that_is_missing_is_put_back():
    """PARTIAL is a change, and a plan says so."""
    endpoint = await isolated()
    endpoint.firewall.partial = True
    params = Isolate(allow=TEN)
    assert (await isolate.run(endpoint.host, params)).changed
    assert not endpoint.firewall.partial


async def test_after_its_deadline_it_begins_anew():
    """An isolation that the kernel has lifted is no isolation, even if the effect is still written down."""
    endpoint = await isolated()
    endpoint.clock.advance(hours(5))
    result = await isolate.run(endpoint.host, TWO_HOURS)
    assert result.changed
    assert endpoint.server.asked == [CONFIRM_WITHIN] * 2
    assert_isolated(endpoint, hours(2))


# --- plan ------------------------------------------------------------------------------------------------------------


async def test_a_plan_names_everything_and_touches_nothing(endpoint):
    """What would stay open and what would be cut, without a single step."""
    endpoint.firewall.not_covered = ("AF_XDP on eth0",)
    plan = await isolate.plan(endpoint.host, Isolate(allow=TEN, duration=None))
    said = " / ".join(f"{step.what} {step.target}" for step in plan.steps)
    assert plan.changes
    assert plan.warnings == ("AF_XDP on eth0",)
    for expected in ("until it is released", "192.0.2.1 port 8443", "10.0.0.0/8", "203.0.113.9:443", "[2001:db8::9]"):
        assert expected in said
    assert "127.0.0.1" not in said
    assert endpoint.life.steps == []


async def test_a_plan_of_the_same_says_that_nothing_changes():
    """Unless a part is missing, which the order would put back."""
    endpoint, params = await isolated(), Isolate(allow=TEN)
    assert not (await isolate.plan(endpoint.host, params)).changes
    endpoint.firewall.partial = True
    assert (await isolate.plan(endpoint.host, params)).changes


# --- verify ----------------------------------------------------------------------------------------------------------


async def test_verify_sees_a_hole(endpoint):
    """A forbidden connection, a missing part or a lifted table is not in place."""
    result = await isolate.run(endpoint.host, TWO_HOURS)
    endpoint.firewall.sockets.append(EVIL)
    assert (await isolate.verify(endpoint.host, TWO_HOURS, result)).verdict is Verdict.ABSENT
    endpoint.firewall.sockets.clear()
    endpoint.firewall.partial = True
    assert (await isolate.verify(endpoint.host, TWO_HOURS, result)).verdict is Verdict.ABSENT
    endpoint.firewall.rules = None
    assert (await isolate.verify(endpoint.host, TWO_HOURS, result)).verdict is Verdict.ABSENT


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [killed_at_every_step, killed_twice])
async def test_killed_anywhere_it_ends_isolated_for_the_full_time(kill):
    """After `kill -9` at any step, and at any step of going on, kernel, disk and result agree."""
    for endpoint in await kill(with_sockets, isolate, TWO_HOURS):
        result = await go_on(endpoint, isolate, TWO_HOURS)
        assert_isolated(endpoint, hours(2))
        assert endpoint.firewall.sockets == [TO_SERVER, TO_SELF]
        assert result is None or result.changed


async def test_killed_anywhere_and_left_alone_it_is_either_confirmed_or_soon_over():
    """If nobody starts the agent again, no endpoint stays isolated that the server has not confirmed."""
    for endpoint in await killed_at_every_step(with_sockets, isolate, Isolate(duration=None)):
        confirmed = EFFECT in endpoint.effects.held and endpoint.effects.held[EFFECT].detail["confirmed"]
        endpoint.clock.advance(CONFIRM_WITHIN + SLACK)
        assert confirmed or not endpoint.firewall.in_force


async def test_killed_anywhere_and_never_answered_nothing_remains():
    """If the server is away when the agent goes on, an isolation that was not confirmed is rolled back."""
    for endpoint in await killed_at_every_step(with_sockets, isolate, TWO_HOURS):
        endpoint.server.answers = False
        was_confirmed = EFFECT in endpoint.effects.held and endpoint.effects.held[EFFECT].detail["confirmed"]
        try:
            await go_on(endpoint, isolate, TWO_HOURS)
        except Unconfirmed:
            assert not was_confirmed
            assert_nothing_left(endpoint)
        else:
            assert was_confirmed
            assert_isolated(endpoint, hours(2))


async def test_killed_in_an_isolation_that_changed_nothing_it_says_so():
    """What was found on the first run is what is reported after a crash."""
    params = Isolate(allow=TEN)
    for endpoint in await killed_at_every_step(isolated, isolate, params):
        assert not (await isolate.run(endpoint.host, params)).changed


# --- release ---------------------------------------------------------------------------------------------------------


async def test_release_lets_everything_through_and_tells_what_was():
    """The result holds what is needed to isolate again."""
    endpoint = await isolated()
    result = await release.run(endpoint.host, Release())
    assert (result.changed, result.allowed, result.remaining) == (True, TEN, hours(4))
    assert_nothing_left(endpoint)
    assert (await release.verify(endpoint.host, Release(), result)).verdict is Verdict.IN_PLACE


async def test_release_of_a_released_endpoint_changes_nothing(endpoint):
    """There is nothing to take back, and a plan says so."""
    assert not (await release.plan(endpoint.host, Release())).changes
    result = await release.run(endpoint.host, Release())
    assert not result.changed
    assert release.undo_params(Release(), result) is None


async def test_release_in_the_last_moment():
    """An isolation that is nearly over can be released like any other."""
    endpoint = await isolated()
    endpoint.clock.advance(hours(4) - seconds(0.4))
    result = await release.run(endpoint.host, Release())
    assert result.changed
    assert_nothing_left(endpoint)


async def test_release_plan_touches_nothing():
    """It says what would happen."""
    endpoint = await isolated()
    plan = await release.plan(endpoint.host, Release())
    assert plan.changes
    assert plan.steps
    assert endpoint.life.steps == []


@pytest.mark.parametrize("kill", [killed_at_every_step, killed_twice])
async def test_release_killed_anywhere_ends_released(kill):
    """Nothing is left in the kernel or on the disk, and the result tells of the isolation that there was."""
    for endpoint in await kill(isolated, release, Release()):
        result = await go_on(endpoint, release, Release())
        assert_nothing_left(endpoint)
        assert result is None or (result.changed, result.remaining) == (True, hours(4))


# --- undo(do(x)) == x ------------------------------------------------------------------------------------------------

networks = st.builds(
    lambda address, prefix: parse_network(f"{address}/{prefix % (address.max_prefixlen + 1)}"),
    st.ip_addresses(),
    st.integers(0, 128),
)
durations = st.none() | st.integers(75, 9999 * 3600).map(lambda n: timedelta(seconds=n))


@given(st.lists(networks, max_size=5).map(tuple), durations)
def test_undo_of_isolate_is_released_again(allow, duration):
    """Whatever was allowed and for however long, the undo leaves an endpoint as it was."""
    endpoint, params = asyncio.run(with_sockets()), Isolate(allow=allow, duration=duration)
    result = asyncio.run(isolate.run(endpoint.host, params))
    back, back_params = isolate.undo_params(params, result)
    assert back == "release"
    asyncio.run(release.run(endpoint.host, release.parse(back_params.model_dump(mode="json"))))
    assert_nothing_left(endpoint)


@given(st.lists(networks, max_size=5).map(tuple), durations, st.floats(0, 1))
def test_undo_of_release_is_isolated_again(allow, duration, share):
    """The same networks are open, and it ends when it would have ended."""
    endpoint = asyncio.run(with_sockets())
    asyncio.run(isolate.run(endpoint.host, Isolate(allow=allow, duration=duration)))
    endpoint.clock.advance(timedelta(seconds=int((duration or hours(1)).total_seconds() * share * 0.9)))
    before = (endpoint.firewall.rules, endpoint.firewall.until)
    endpoint.next_task("tsk_2")
    released = asyncio.run(release.run(endpoint.host, Release()))
    _, again = release.undo_params(Release(), released)
    endpoint.next_task("tsk_3")
    asyncio.run(isolate.run(endpoint.host, isolate.parse(again.model_dump(mode="json"))))
    assert (endpoint.firewall.rules, endpoint.firewall.until) == before
    assert asyncio.run(endpoint.firewall.isolation()).state is IsolationState.ISOLATED
