"""Is an endpoint isolated truthfully, rolled back when it must be, and let back on; whatever happens on the way?"""

import asyncio
from datetime import timedelta
from ipaddress import ip_address
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.isolate import CONFIRM_WITHIN, EFFECT, SLACK, TOLD, Isolate, Release, isolate, release
from stanch.core.action import Verdict
from stanch.core.errors import ActionFailed, Conflict, Invalid, NotVerified, Unconfirmed, Unsupported
from stanch.core.exclusion import Exclusion, Profile
from stanch.core.isolation import Phase, rules_of
from stanch.core.network import IsolationState, Peer
from stanch.core.settings import GroupSettings
from stanch.core.types import hours, minutes, parse_network, seconds
from tests.fakes.host import SERVER, FakeEndpoint, FakeFirewall, FakeNames, socket_to
from tests.fakes.killing import go_on, killed_at_every_step, killed_twice, run_until_killed
from tests.fakes.waiting import eventually

EVIL, IDLE = socket_to("203.0.113.9:443"), socket_to("[2001:db8::9]:8080")
TO_SERVER, TO_SELF = socket_to("192.0.2.1:8443"), socket_to("127.0.0.1:631")
TEN = (Exclusion.parse("10.0.0.0/8"),)
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


def is_confirmed(endpoint):
    """Is it written down as in force?"""
    return EFFECT in endpoint.effects.held and endpoint.effects.held[EFFECT].detail["phase"] == Phase.IN_FORCE


def opened(endpoint):
    """The networks that stay open, as text."""
    return {str(one.network) for one in endpoint.firewall.rules.allow}


def assert_nothing_left(endpoint):
    """Not isolated, and nothing says so."""
    assert not endpoint.firewall.in_force
    assert endpoint.effects.held == {}


def assert_isolated(endpoint, duration):
    """The kernel, the effect on the disk and the deadline agree."""
    effect = endpoint.effects.held[EFFECT]
    assert endpoint.firewall.in_force
    assert is_confirmed(endpoint)
    assert rules_of(effect.private["rules"]).servers == endpoint.firewall.rules.servers
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
    params = Isolate(allow=("203.0.113.0/24",))
    result = await isolate.run(endpoint.host, params)
    assert (EVIL in endpoint.firewall.sockets, IDLE in endpoint.firewall.sockets) == (True, False)
    assert result.sockets_destroyed == 1
    assert opened(endpoint) == {"203.0.113.0/24"}


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
        result = await isolate.run(endpoint.host, Isolate(allow=("10.0.0.1", "10.0.0.0")))
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
    """What somebody else has damaged is a change, and a plan says so."""
    endpoint = await isolated()
    endpoint.firewall.damaged = True
    params = Isolate(allow=TEN)
    assert (await isolate.run(endpoint.host, params)).changed
    assert not endpoint.firewall.damaged


async def test_what_this_machine_cannot_do_is_partial_and_done(endpoint):
    """The state says so; it is in place all the same, and the same again is no change."""
    endpoint.firewall.partial, endpoint.firewall.not_covered = True, ("bridged guests on br0",)
    result = await isolate.run(endpoint.host, TWO_HOURS)
    assert (result.state, result.not_covered) == (IsolationState.PARTIAL, ("bridged guests on br0",))
    assert (await isolate.verify(endpoint.host, TWO_HOURS, result)).verdict is Verdict.IN_PLACE
    assert not (await isolate.run(endpoint.host, TWO_HOURS)).changed


async def test_a_renewal_after_foreign_hands_is_not_rolled_back():
    """Whoever removes the rules must not be able to have the isolation forgotten, when the server is away."""
    endpoint = await isolated()
    endpoint.firewall.rules, endpoint.server.answers = None, False
    assert (await isolate.run(endpoint.host, TWO_HOURS)).changed
    assert endpoint.server.asked == [CONFIRM_WITHIN]
    assert_isolated_since_the_first_time(endpoint)


def assert_isolated_since_the_first_time(endpoint):
    """Isolated for two hours from now on, and since an hour."""
    effect = endpoint.effects.held[EFFECT]
    assert endpoint.firewall.in_force
    assert (effect.since, effect.until) == (endpoint.clock.now() - hours(1), endpoint.clock.now() + hours(2))
    assert endpoint.firewall.until == effect.until


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
    endpoint.firewall.damaged = True
    assert (await isolate.plan(endpoint.host, params)).changes


# --- verify ----------------------------------------------------------------------------------------------------------


async def test_verify_sees_a_hole(endpoint):
    """A forbidden connection, a missing part or a lifted table is not in place."""
    result = await isolate.run(endpoint.host, TWO_HOURS)
    endpoint.firewall.sockets.append(EVIL)
    assert (await isolate.verify(endpoint.host, TWO_HOURS, result)).verdict is Verdict.ABSENT
    endpoint.firewall.sockets.clear()
    endpoint.firewall.damaged = True
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
        confirmed = is_confirmed(endpoint)
        endpoint.clock.advance(CONFIRM_WITHIN + SLACK)
        assert confirmed or not endpoint.firewall.in_force


async def test_killed_anywhere_and_never_answered_nothing_remains():
    """If the server is away when the agent goes on, an isolation that was not confirmed is rolled back."""
    for endpoint in await killed_at_every_step(with_sockets, isolate, TWO_HOURS):
        endpoint.server.answers = False
        was_confirmed = is_confirmed(endpoint)
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


async def test_the_agent_that_comes_back_late_does_not_prolong_it():
    """Killed between the disk and the kernel, and started again half an hour later: both end when the disk said."""
    for endpoint in await killed_at_every_step(with_sockets, isolate, TWO_HOURS):
        if not is_confirmed(endpoint):
            continue
        until = endpoint.effects.held[EFFECT].until
        endpoint.clock.advance(minutes(30))
        endpoint.server.answers = False
        await isolate.run(endpoint.host, TWO_HOURS)
        assert endpoint.firewall.until == endpoint.effects.held[EFFECT].until == until


async def test_names_that_changed_meanwhile_do_not_prolong_it():
    """The rules follow what a name means when the agent goes on; the deadline stays."""
    params = Isolate(allow=("out tcp mirror.example.com remote 443",), duration=hours(2))
    endpoint = await with_sockets()
    endpoint.names.hosts = {"mirror.example.com": ("198.51.100.1",)}
    await isolate.run(endpoint.host, params)
    until = endpoint.firewall.until
    endpoint.clock.advance(minutes(30))
    endpoint.names.hosts = {"mirror.example.com": ("198.51.100.2",)}
    endpoint.restart()
    await isolate.run(endpoint.host, params)
    assert endpoint.firewall.until == endpoint.effects.held[EFFECT].until == until
    assert opened(endpoint) == {"198.51.100.2/32"}
    assert rules_of(endpoint.effects.held[EFFECT].private["rules"]).allow == endpoint.firewall.rules.allow


# --- by a rule, at the endpoint, and what the policy says -------------------------------------------------------------

POLICY = GroupSettings.model_validate(
    {
        "isolation": {
            "allow": ["198.51.100.0/24"],
            "profiles": ["dns"],
            "duration": "7h",
            "tell": True,
            "message": "Off.",
        }
    }
)
HOLD = GroupSettings.model_validate({"isolation": {"unconfirmed": "hold"}})


async def test_by_a_rule_the_policy_decides(endpoint):
    """What stays open, for how long, and what people are told: the policy's words win over the order's."""
    endpoint.origin, endpoint.settings, endpoint.users.logged_in = "rule", POLICY, 3
    result = await isolate.run(endpoint.host, Isolate(allow=TEN, duration=hours(1)))
    assert opened(endpoint) == {"198.51.100.0/24"}
    assert not endpoint.firewall.rules.dhcp
    assert result.until == result.since + hours(7)
    assert (result.told, endpoint.users.told) == (3, ["Off."])
    assert endpoint.effects.held[EFFECT].detail["profiles"] == ["dns"]


async def test_by_hand_the_order_decides(endpoint):
    """The policy's exclusions are for automatic isolation."""
    endpoint.settings = POLICY
    result = await isolate.run(endpoint.host, Isolate(allow=TEN, duration=hours(1)))
    assert opened(endpoint) == {"10.0.0.0/8"}
    assert endpoint.firewall.rules.dhcp
    assert (result.until, endpoint.users.told) == (result.since + hours(1), [])


async def test_by_a_rule_without_a_policy_the_order_decides(endpoint):
    """A group that says nothing of isolation leaves it to the rule."""
    endpoint.origin = "rule"
    await isolate.run(endpoint.host, Isolate(allow=TEN))
    assert opened(endpoint) == {"10.0.0.0/8"}


@pytest.mark.parametrize(
    ("origin", "settings"),
    [("rule", GroupSettings()), ("rule", POLICY), ("local", GroupSettings()), ("cli", HOLD), ("console", HOLD)],
)
async def test_what_is_never_rolled_back(origin, settings):
    """A rule, the owner at the endpoint, and a policy that holds: the server is not even asked; killed or not."""

    async def prepare():
        endpoint = await with_sockets()
        endpoint.origin, endpoint.settings, endpoint.server.answers = origin, settings, False
        return endpoint

    for endpoint in [await prepare(), *await killed_at_every_step(prepare, isolate, Isolate())]:
        result = await go_on(endpoint, isolate, Isolate())
        assert endpoint.firewall.in_force
        assert is_confirmed(endpoint)
        assert endpoint.server.asked == []
        assert result is None or result.changed


async def test_a_policy_that_rolls_back_is_the_default(endpoint):
    """Only `hold` holds."""
    endpoint.settings, endpoint.server.answers = GroupSettings.model_validate({"isolation": {}}), False
    with pytest.raises(Unconfirmed):
        await isolate.run(endpoint.host, Isolate())
    assert_nothing_left(endpoint)


@pytest.mark.parametrize(
    ("params", "told"),
    [(Isolate(), []), (Isolate(tell=True), [TOLD]), (Isolate(message="Call 1234."), ["Call 1234."])],
)
async def test_people_are_told_when_asked_for(endpoint, params, told):
    """Nobody without a word, the standard text, or another one; after it is in force, not before."""
    endpoint.users.logged_in = 2
    result = await isolate.run(endpoint.host, params)
    assert (endpoint.users.told, result.told) == (told, 2 * len(told))
    if told:
        assert endpoint.life.steps[-1] == "users.tell"


async def test_nobody_is_told_of_an_isolation_that_was_rolled_back(endpoint):
    """They were not cut off for longer than a minute."""
    endpoint.server.answers = False
    with pytest.raises(Unconfirmed):
        await isolate.run(endpoint.host, Isolate(tell=True))
    assert endpoint.users.told == []


# --- what exclusions mean --------------------------------------------------------------------------------------------


async def test_what_opens_nothing_is_told(endpoint):
    """An exclusion of a name, account or unit that is not known here opens nothing, and the result says so."""
    allow = ("out udp time.example.com remote 123", "out any user backup", "any unit backup.service", "10.0.0.0/8")
    result = await isolate.run(endpoint.host, Isolate(allow=allow))
    assert [line.partition(":")[0] for line in result.not_open] == list(allow[:3])
    assert opened(endpoint) == {"10.0.0.0/8"}
    assert endpoint.effects.held[EFFECT].detail["allow"] == list(allow)
    assert (await isolate.plan(endpoint.host, Isolate(allow=allow))).warnings == result.not_open


async def test_names_accounts_and_units_become_numbers(endpoint):
    """The rules hold what the endpoint makes of the words, and the proxies and resolvers of the agent itself."""
    endpoint.names = FakeNames(
        hosts={"time.example.com": ("198.51.100.9", "2001:db8::123")},
        users={"backup": 34},
        units={"backup.service": "system.slice/backup.service"},
        resolvers=(ip_address("192.0.2.53"),),
    )
    endpoint.server.through = (Peer(address=ip_address("192.0.2.80"), port=3128),)
    allow = ("out udp time.example.com remote 123", "out tcp 10.0.0.7 user backup", "10.0.0.8 unit backup.service")
    await isolate.run(endpoint.host, Isolate(allow=allow))
    rules = endpoint.firewall.rules
    assert opened(endpoint) == {"198.51.100.9/32", "2001:db8::123/128", "10.0.0.7/32", "10.0.0.8/32"}
    assert {one.uid for one in rules.allow} == {None, 34}
    assert {one.cgroup for one in rules.allow} == {None, "system.slice/backup.service"}
    assert (rules.proxies, rules.resolvers) == (endpoint.server.through, endpoint.names.resolvers)


EVERYTHING = [
    ("any",),
    ("in any",),
    ("out any",),
    ("tcp any",),
    ("0.0.0.0/0",),
    ("out ::/0",),
    ("::ffff:0.0.0.0/96",),
    ("out tcp any remote 1-65535",),
    ("0.0.0.0/1", "128.0.0.0/1"),
    ("10.0.0.0/8", "::/1", "8000::/1"),
    ("0.0.0.0/2", "64.0.0.0/2", "::ffff:128.0.0.0/97"),
]


@pytest.mark.parametrize("allow", EVERYTHING, ids=" + ".join)
async def test_leaving_everything_open_needs_force(endpoint, allow):
    """An isolation that isolates nothing is refused where it is ordered; with force it is done."""
    with pytest.raises(Invalid, match="do not leave everything open, or force"):
        isolate.parse({"allow": allow})
    await isolate.run(endpoint.host, isolate.parse({"allow": allow, "force": True}))
    assert endpoint.firewall.in_force


@pytest.mark.parametrize(
    "allow", [("0.0.0.0/1",), ("icmp any",), ("out tcp any remote 443",), ("out any user root",), ("0.0.0.0/1", "::/1")]
)
def test_what_leaves_something_shut_is_taken(allow):
    """Half of the addresses, ICMP, a port or an account are not everything."""
    assert [str(one) for one in isolate.parse({"allow": allow}).allow] == list(allow)


def test_ten_thousand_exclusions_and_no_more():
    """As many as a list of a country's networks has; ten times as many are refused in words."""
    many = [f"out tcp 10.{n // 256}.{n % 256}.0/24 remote 443" for n in range(10_000)]
    assert len(isolate.parse({"allow": many}).allow) == 10_000
    with pytest.raises(Invalid, match="at most 10000 items"):
        isolate.parse({"allow": many * 10})


# --- the server's own machine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["10.0.0.5", "127.0.0.1", "127.0.1.1", "::1"])
async def test_the_servers_own_machine_is_refused(endpoint, address):
    """It would cut the server off from all others: refused with the reason, planned or not; with force it is done."""
    endpoint.server.known = (SERVER, Peer(address=ip_address(address), port=8443))
    for ask in (isolate.run, isolate.plan):
        with pytest.raises(Conflict, match=f"this very machine.*{address} port 8443"):
            await ask(endpoint.host, Isolate())
    assert_nothing_left(endpoint)
    assert (await isolate.run(endpoint.host, Isolate(force=True))).changed


async def test_the_servers_own_machine_is_refused_to_a_rule(endpoint):
    """A detection on the server's machine must not end the whole fleet's connection."""
    endpoint.origin = "rule"
    endpoint.firewall.addresses += (SERVER.address,)
    with pytest.raises(Conflict):
        await isolate.run(endpoint.host, Isolate())


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


async def test_release_of_rules_that_somebody_else_removed():
    """They would be put back: to forget them is a change, and what was ordered is told, with the rest of its time."""
    endpoint = await isolated()
    endpoint.firewall.rules = endpoint.firewall.until = None
    assert (await release.plan(endpoint.host, Release())).changes
    assert (await release.verify(endpoint.host, Release(), None)).verdict is Verdict.ABSENT
    result = await release.run(endpoint.host, Release())
    assert (result.changed, result.allowed, result.remaining) == (True, TEN, hours(4))
    assert_nothing_left(endpoint)


async def test_release_of_rules_that_nobody_wrote_down(endpoint):
    """Rules that the kernel alone has are lifted, too."""
    await isolate.run(endpoint.host, TWO_HOURS)
    endpoint.effects.held.clear()
    result = await release.run(endpoint.host, Release())
    assert (result.changed, result.allowed, result.remaining) == (True, (), hours(2))
    assert_nothing_left(endpoint)


async def test_releasing_is_written_down_before_the_kernel_is_told():
    """From then on nobody puts the rules back; killed before the lift, the disk says what was going on."""
    endpoint = await isolated()
    endpoint.life.ends_at = 3
    assert await run_until_killed(endpoint, release, Release())
    assert endpoint.life.steps == ["journal.record", "effects.amend"]
    assert endpoint.firewall.in_force
    assert endpoint.effects.held[EFFECT].detail == {"allow": ["10.0.0.0/8"], "profiles": ["dhcp"], "phase": "releasing"}


@pytest.mark.parametrize("killed_before", [False, True])
async def test_a_lift_that_fails_leaves_it_in_force(monkeypatch, killed_before):
    """Still isolated, and written down as such: it is kept up again; a run that an earlier one marked, too."""
    endpoint = await isolated()
    if killed_before:
        endpoint.life.ends_at = 3
        assert await run_until_killed(endpoint, release, Release())
        endpoint.restart()

    async def broken():
        raise ActionFailed("nft is broken")

    monkeypatch.setattr(endpoint.firewall, "lift", broken)
    with pytest.raises(ActionFailed):
        await release.run(endpoint.host, Release())
    assert endpoint.firewall.in_force
    assert is_confirmed(endpoint)
    assert endpoint.effects.remaining(EFFECT) == hours(4)


async def test_a_lift_that_is_cancelled_leaves_it_in_force(monkeypatch):
    """A release that was stopped on request leaves no endpoint that calls itself releasing for ever."""
    endpoint, waiting = await isolated(), asyncio.Event()

    async def hangs():
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(endpoint.firewall, "lift", hangs)
    running = asyncio.create_task(release.run(endpoint.host, Release()))
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert is_confirmed(endpoint)
    assert (await release.verify(endpoint.host, Release(), None)).verdict is Verdict.ABSENT


async def test_a_lift_that_fails_does_not_confirm_what_was_not(monkeypatch, endpoint):
    """An isolation that waited for its confirmation waits on."""
    endpoint.life.ends_at = 5
    assert await run_until_killed(endpoint, isolate, TWO_HOURS)
    endpoint.restart()

    async def broken():
        raise ActionFailed("nft is broken")

    monkeypatch.setattr(endpoint.firewall, "lift", broken)
    endpoint.next_task("tsk_2")
    with pytest.raises(ActionFailed):
        await release.run(endpoint.host, Release())
    assert endpoint.effects.held[EFFECT].detail["phase"] == Phase.UNCONFIRMED


async def test_blocks_stay_when_it_is_released():
    """A block is its own effect: no release of an isolation opens it."""
    endpoint = await isolated()
    kept = await endpoint.effects.hold("block:x", lift_action="unblock_address", lift_params={}, detail={}, lasts=None)
    await release.run(endpoint.host, Release())
    assert endpoint.effects.all() == (kept,)


# --- undo(do(x)) == x ------------------------------------------------------------------------------------------------

networks = st.builds(
    lambda address, prefix: parse_network(f"{address}/{prefix % (address.max_prefixlen + 1)}"),
    st.ip_addresses(),
    st.integers(0, 128),
)
words = st.sampled_from(["in tcp {} local 22", "out udp {} remote 53-54", "icmp {}", "out {}", "{}"])
exclusions = st.builds(lambda form, network: Exclusion.parse(form.format(network)), words, networks)
allowed = st.lists(exclusions, max_size=5).map(tuple)
profiles = st.sets(st.sampled_from(Profile)).map(lambda some: tuple(sorted(some)))
durations = st.none() | st.integers(75, 9999 * 3600).map(lambda n: timedelta(seconds=n))


@given(allowed, durations)
def test_undo_of_isolate_is_released_again(allow, duration):
    """Whatever was allowed and for however long, the undo leaves an endpoint as it was."""
    endpoint, params = asyncio.run(with_sockets()), Isolate(allow=allow, duration=duration, force=True)
    result = asyncio.run(isolate.run(endpoint.host, params))
    back, back_params = isolate.undo_params(params, result)
    assert back == "release"
    asyncio.run(release.run(endpoint.host, release.parse(back_params.model_dump(mode="json"))))
    assert_nothing_left(endpoint)


@given(allowed, profiles, durations, st.floats(0, 1))
def test_undo_of_release_is_isolated_again(allow, profile, duration, share):
    """The same exclusions and profiles are open, and it ends when it would have ended."""
    endpoint = asyncio.run(with_sockets())
    asyncio.run(isolate.run(endpoint.host, Isolate(allow=allow, profile=profile, duration=duration, force=True)))
    endpoint.clock.advance(timedelta(seconds=int((duration or hours(1)).total_seconds() * share * 0.9)))
    before = (endpoint.firewall.rules, endpoint.firewall.until, endpoint.effects.held[EFFECT].detail)
    endpoint.next_task("tsk_2")
    released = asyncio.run(release.run(endpoint.host, Release()))
    _, again = release.undo_params(Release(), released)
    endpoint.next_task("tsk_3")
    asyncio.run(isolate.run(endpoint.host, isolate.parse(again.model_dump(mode="json"))))
    assert (endpoint.firewall.rules, endpoint.firewall.until, endpoint.effects.held[EFFECT].detail) == before
    assert asyncio.run(endpoint.firewall.isolation()).state is IsolationState.ISOLATED


async def test_where_nobody_can_see_what_is_in_force_it_is_refused_and_nothing_stays(endpoint, monkeypatch):
    """An nft that changes tables but cannot list them: a refusal must mean that nothing was changed."""

    def isolation(real=endpoint.firewall.isolation):
        if endpoint.firewall.in_force:
            raise Unsupported("This nft cannot tell what is in force")
        return real()

    monkeypatch.setattr(endpoint.firewall, "isolation", isolation)
    with pytest.raises(Unsupported):
        await isolate.run(endpoint.host, Isolate())
    assert_nothing_left(endpoint)


async def test_what_cannot_be_cut_here_is_no_refusal(endpoint, monkeypatch):
    """A rule's isolation stays on a kernel that destroys no sockets; who is told of a refusal would think otherwise."""
    endpoint.origin = "rule"
    unable = Mock(side_effect=Unsupported("This kernel cannot destroy sockets"))
    monkeypatch.setattr(endpoint.firewall, "destroy_sockets", unable)
    with pytest.raises(NotVerified, match="is isolated, but connections cannot be cut"):
        await isolate.run(endpoint.host, TWO_HOURS)
    assert_isolated(endpoint, hours(2))
