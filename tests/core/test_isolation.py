"""Is the state told truthfully, do the rules survive the disk, and does a release code open, and nothing else?"""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stanch.core.errors import Invalid
from stanch.core.exclusion import Direction, Opening, Profile, Transport
from stanch.core.host import Effect
from stanch.core.isolation import (
    CODE_ALPHABET,
    CODE_LENGTH,
    ITERATIONS,
    MAX_ITERATIONS,
    MAX_LINES,
    IsolationStatus,
    Phase,
    ReleaseCode,
    Tampering,
    phase_of,
    plain_code,
    readable_order,
    rules_json,
    rules_of,
    shortened,
    show_code,
    status,
)
from stanch.core.network import IsolationRules, IsolationState, KernelIsolation, Peer
from tests.core.test_exclusion import networks, ranges

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def effect(phase: str | None, **more: Any) -> Effect:
    """An isolation that is written down."""
    fields: dict[str, Any] = {"task": "tsk_1", "since": NOW, "until": None, "lift_action": "release"} | more
    return Effect(name="isolation", detail={} if phase is None else {"phase": phase}, **fields)


def kernel(state: IsolationState, *, damaged: bool = False, **more: Any) -> KernelIsolation:
    """What the kernel says."""
    return KernelIsolation(state=state, rules=None, remaining=None, damaged=damaged, **more)


OFF, ON, PART = (
    kernel(IsolationState.RELEASED),
    kernel(IsolationState.ISOLATED),
    kernel(IsolationState.PARTIAL),
)
HURT, GONE = kernel(IsolationState.ISOLATED, damaged=True), kernel(IsolationState.RELEASED, damaged=True)
KERNELS = [OFF, ON, PART, HURT, GONE]

# --- the state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "states"),
    {
        "unconfirmed": ["isolating"] * 5,
        "in-force": ["tampered", "isolated", "partial", "tampered", "tampered"],
        "releasing": ["releasing"] * 5,
        "of a later version": ["tampered", "isolated", "partial", "tampered", "tampered"],
        None: ["tampered", "isolated", "partial", "tampered", "tampered"],
    }.items(),
)
def test_the_state_of_what_is_written_down(phase: str | None, states: list[str]) -> None:
    """On its way it is what it goes to be; in force, the kernel must have all of it."""
    assert [status(effect(phase), one).state for one in KERNELS] == states
    # Past its deadline the kernel lifts it: nobody has tampered.
    assert [status(effect(phase), one, due=True).state for one in KERNELS] == ["releasing"] * 5


def test_the_state_of_what_nobody_wrote_down() -> None:
    """Nothing is released; rules that the kernel alone has are partial: nobody renews them."""
    states = [status(None, one).state for one in KERNELS]
    assert states == ["released", "partial", "partial", "partial", "released"]


@pytest.mark.parametrize(
    ("phase", "expected"), [("releasing", Phase.RELEASING), ("?", Phase.IN_FORCE), (None, "in-force")]
)
def test_a_phase_that_cannot_be_read_is_in_force(phase: str | None, expected: Phase) -> None:
    """What another version wrote must not open an endpoint."""
    assert phase_of(effect(phase)) is Phase(expected)


def test_it_tells_whose_it_is() -> None:
    """Since, until, by whom, how, why, which order and task, and what stays open."""
    one = effect(
        "in-force", order="ord_1", by="alice", origin="console", reason="beacon", until=NOW + timedelta(hours=5)
    )
    detail = {"phase": "in-force", "allow": ["10.0.0.0/8"], "profiles": ["dhcp"]}
    tampered = Tampering(at=NOW, what="the table was deleted", who="nft (pid 7, root)", repaired=True)
    told = status(one.model_copy(update={"detail": detail}), ON, not_open=("x: unknown",), tampered=tampered)
    assert told == IsolationStatus(
        state=IsolationState.ISOLATED,
        since=NOW,
        until=NOW + timedelta(hours=5),
        by="alice",
        origin="console",
        why="beacon",
        order="ord_1",
        task="tsk_1",
        allow=("10.0.0.0/8",),
        profiles=("dhcp",),
        not_open=("x: unknown",),
        tampered=tampered,
    )
    assert IsolationStatus.model_validate_json(told.model_dump_json(exclude_defaults=True)) == told


def test_released_tells_nothing_of_the_past() -> None:
    """Only what the machine cannot do, and who has tampered last."""
    told = status(None, kernel(IsolationState.RELEASED, not_covered=("AF_XDP on eth0",)), not_open=("x",))
    assert told == IsolationStatus(state=IsolationState.RELEASED, not_covered=("AF_XDP on eth0",))


def test_a_thousand_exclusions_are_told() -> None:
    """The rest is counted: a state must fit in a heartbeat."""
    allow = [f"10.0.{n // 256}.{n % 256}" for n in range(1002)]
    detail = {"phase": "in-force", "allow": allow}
    told = status(effect("in-force").model_copy(update={"detail": detail}), ON).allow
    assert told == (*allow[:1000], "... and 2 more")
    assert shortened(allow[:1000], 1000) == allow[:1000]


def test_lines_are_bounded() -> None:
    """A machine with a thousand bridges fits in a heartbeat."""
    lines = tuple("x" * 5000 for _ in range(1000))
    told = status(effect("in-force"), kernel(IsolationState.PARTIAL, not_covered=lines), not_open=lines)
    assert IsolationStatus.model_validate_json(told.model_dump_json()) == told
    assert len(told.not_covered) == len(told.not_open) == MAX_LINES


# --- the rules on the disk -------------------------------------------------------------------------------------------

peers = st.builds(Peer, address=st.ip_addresses(), port=st.integers(1, 65_535))
opened = st.builds(
    Opening,
    network=networks,
    transport=st.sampled_from(Transport),
    direction=st.sampled_from(Direction),
    remote=st.none() | ranges,
    local=st.none() | ranges,
    uid=st.none() | st.integers(0, 2**32 - 1),
    cgroup=st.none() | st.text(min_size=1, max_size=50),
)
rules = st.builds(
    IsolationRules,
    servers=st.lists(peers, max_size=3).map(tuple),
    proxies=st.lists(peers, max_size=3).map(tuple),
    resolvers=st.lists(st.ip_addresses(), max_size=3).map(tuple),
    allow=st.lists(opened, max_size=5).map(tuple),
    dhcp=st.booleans(),
)


@given(rules)
def test_rules_survive_the_disk(one: IsolationRules) -> None:
    """What boot reads is what was in force: types and all."""
    back = rules_of(json.loads(json.dumps(rules_json(one))))
    assert back == one
    assert [type(opening.network) for opening in back.allow] == [type(opening.network) for opening in one.allow]


def test_rules_are_written_without_what_goes_without_saying() -> None:
    """Ten thousand networks must not fill the journal with nulls."""
    server = Peer(address=ip_address("192.0.2.1"), port=8443)
    assert rules_json(IsolationRules(servers=(server,))) == {"servers": [{"address": "192.0.2.1", "port": 8443}]}


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"servers": "192.0.2.1"},
        {"servers": [{"address": "x", "port": 1}]},
        {"servers": [{"address": "192.0.2.1", "port": 0}]},
        {"servers": [], "allow": [{"network": "10.0.0.0/33"}]},
        {"servers": [], "allow": [{"network": "10.0.0.0/8", "transport": "sctp"}]},
        {"servers": [], "resolvers": ["example.com"]},
    ],
)
def test_what_are_no_rules_is_refused(plain: dict[str, Any]) -> None:
    """A journal of another version says which part cannot be read."""
    with pytest.raises(Invalid, match="no isolation rules"):
        rules_of(plain)


# --- the release code ------------------------------------------------------------------------------------------------

codes = st.text(CODE_ALPHABET, min_size=CODE_LENGTH, max_size=CODE_LENGTH)
CODE, SALT = "0123ABCDV9YZ1QRS", bytes(range(16))
KNOWN = ReleaseCode.of(CODE, SALT, iterations=2)


@given(codes, st.data())
def test_any_spelling_opens(code: str, data: st.DataObject) -> None:
    """Small letters, dashes and spaces anywhere, O for 0, I or L for 1, U for V."""
    known = ReleaseCode.of(code, SALT, iterations=1)
    looks_like = {"0": "0Oo", "1": "1IiLl", "V": "VvUu"}
    letters = [data.draw(st.sampled_from(looks_like.get(one, one + one.lower()))) for one in code]
    typed = "".join(one + data.draw(st.sampled_from(["", "-", " ", "\t", ".", "_"])) for one in letters)
    assert known.opens(typed)
    assert known.opens(show_code(code))
    assert plain_code(typed) == code == plain_code(show_code(code))


@given(st.text(max_size=200) | codes)
def test_nothing_else_opens(typed: str) -> None:
    """Only what reads as the code."""
    assert KNOWN.opens(typed) is (plain_code(typed) == CODE)


@pytest.mark.parametrize(
    "typed", ["", CODE[:-1], CODE + "0", CODE[1:] + CODE[0], "0" * 1_000_000, KNOWN.key, KNOWN.salt]
)
def test_wrong_codes(typed: str) -> None:
    """A part, too much, another order, nothing, and what the endpoint itself knows."""
    assert not KNOWN.opens(typed)


def test_it_is_shown_in_groups() -> None:
    """As it is read aloud."""
    assert show_code(CODE) == "0123-ABCD-V9YZ-1QRS"
    assert show_code("") == ""


def test_the_code_cannot_be_read_from_what_the_endpoint_keeps() -> None:
    """It keeps a salted PBKDF2 key, as many times as it says; another salt makes another key."""
    known = ReleaseCode.of(show_code(CODE), SALT)
    assert known.iterations == ITERATIONS
    assert known.key == hashlib.pbkdf2_hmac("sha256", CODE.encode(), SALT, ITERATIONS).hex()
    assert known.key != ReleaseCode.of(CODE, bytes(16)).key
    assert CODE not in known.model_dump_json()
    assert ReleaseCode.model_validate_json(known.model_dump_json()) == known


def test_it_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it takes says nothing about how much of it was right."""
    compared = list[tuple[bytes, bytes]]()
    compare = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr("stanch.core.isolation.hmac.compare_digest", spy)
    assert KNOWN.opens(CODE)
    assert not KNOWN.opens("0" * 16)
    assert [len(one) for pair in compared for one in pair] == [32] * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"salt": "00"},
        {"salt": "0" * 32 + "\n"},
        {"salt": "G" * 32},
        {"key": "0" * 63},
        {"iterations": 0},
        {"iterations": MAX_ITERATIONS + 1},
        {"extra": 1},
    ],
)
def test_what_an_order_may_bring_is_bounded(wrong: dict[str, Any]) -> None:
    """A server cannot make an endpoint compute for hours."""
    with pytest.raises(ValidationError):
        ReleaseCode.model_validate(KNOWN.model_dump() | wrong)


@pytest.mark.parametrize(
    "more",
    [
        {"unheard": 1},
        {"allow": [{"network": "0.0.0.0/0", "only": "on Sundays"}]},
        {"allow": [{"network": "0.0.0.0/0", "transport": "tcp", "remote": {"first": 1, "last": 2, "except": 1}}]},
        {"servers": [{"address": "192.0.2.1", "port": 1, "only": "x"}]},
    ],
)
def test_rules_with_a_word_of_another_version_are_none(more):
    """What it narrows would be open without it."""
    with pytest.raises(Invalid):
        rules_of({"servers": [], **more})


def test_what_was_ordered_is_read_word_by_word():
    """A word of another version is told, and takes no other with it; what is no list at all is nothing."""
    allow, profiles, lost = readable_order({"allow": ["10.0.0.0/8", "in quic any", 7], "profiles": ["dhcp", "x"]})
    assert ([str(one) for one in allow], profiles) == (["10.0.0.0/8"], (Profile.DHCP,))
    assert [line.partition(" ")[0] for line in lost] == ["in", "7", "x"]
    assert readable_order({"allow": 7, "profiles": {}}) == ((), (), ())
    assert readable_order({}) == ((), None, ())
