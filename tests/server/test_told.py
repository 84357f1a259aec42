"""What the server keeps of what endpoints tell of themselves."""

import json

from stanch.core.frames import MAX_EFFECTS, Interface, Inventory
from stanch.core.host import Effect
from stanch.core.isolation import IsolationStatus, Tampering
from stanch.core.network import IsolationState
from stanch.server.told import MAX_BYTES, MAX_ITEMS, MAX_TEXT, kept_effects, kept_inventory, kept_isolation

SINCE = "2026-11-24T12:00:00Z"


def an_effect(number: int, **more: object) -> Effect:
    return Effect.model_validate(
        {
            "name": f"block:{number}", "task": f"tsk_{number}", "since": SINCE, "until": None,
            "lift_action": "unblock_address", **more,
        }
    )  # fmt: skip


def test_an_honest_effect_is_kept_as_it_is():
    """All that it tells; what is private is not told, and is not kept if somebody tells it."""
    effect = an_effect(1, detail={"network": "192.0.2.7/32"}, lift_params={"network": "192.0.2.7/32"}, reason="why")
    private = effect.model_copy(update={"private": {"release_code": "x"}})
    assert kept_effects([private]) == [effect.model_dump(mode="json", exclude={"private"})]
    assert Effect.model_validate(kept_effects([private])[0]) == effect


def test_hostile_effects_are_bounded():
    """As many as may be, each with as much as fits: what they are is kept, what is behind them not."""
    small = an_effect(0, detail={"x": 1})
    hostile = [an_effect(n, detail={"x": "y" * 13_000}, reason="z" * 4000) for n in range(1, MAX_EFFECTS)]
    kept = kept_effects([small, *hostile])
    assert len(json.dumps(kept)) < 2 * MAX_BYTES
    assert [one["name"] for one in kept] == [f"block:{n}" for n in range(MAX_EFFECTS)]
    assert kept[0]["detail"] == {"x": 1}
    assert kept[-1]["detail"] == {}
    assert [Effect.model_validate(one).task for one in kept] == [f"tsk_{n}" for n in range(MAX_EFFECTS)]


def test_an_honest_isolation_is_kept_as_it_is():
    """Without defaults; a thousand exclusions are honest."""
    told = IsolationStatus(
        state=IsolationState.ISOLATED,
        since=SINCE,
        allow=tuple(f"out tcp 10.0.{n % 250}.0/24 remote {n + 1}" for n in range(1000)),
    )
    kept = kept_isolation(told)
    assert kept is not None
    assert IsolationStatus.model_validate(kept) == told
    assert kept.keys() == {"state", "since", "allow"}
    assert kept_isolation(None) is None


def test_a_hostile_isolation_is_cut():
    """The state stays, texts and lists are cut, and it is said how many lines are missing."""
    told = IsolationStatus(
        state=IsolationState.TAMPERED,
        why="w" * 4000,
        allow=("x" * 4000,) * 900,
        not_open=("n" * 4000,) * MAX_ITEMS,
        tampered=Tampering(at=SINCE, what="a" * 4000, who="b" * 4000, repaired=False),
    )
    kept = kept_isolation(told)
    assert kept is not None
    assert len(json.dumps(kept)) < MAX_BYTES
    assert (kept["state"], len(kept["why"])) == ("tampered", MAX_TEXT)
    assert kept["allow"][-1] == f"... and {900 - MAX_ITEMS} more"
    assert kept["tampered"]["who"] == "b" * 4000
    IsolationStatus.model_validate(kept)


def test_an_honest_inventory_is_kept_as_it_is():
    """A machine with many devices too."""
    devices = tuple(Interface(name=f"veth{n}", mac="aa:bb", addresses=(f"10.0.0.{n}",)) for n in range(256))
    told = Inventory(hostname="web-01", os="Debian", interfaces=devices, users=("ann",))
    assert kept_inventory(told) is told


def test_a_hostile_inventory_is_cut():
    """Name and devices stay recognisable."""
    devices = tuple(Interface(name=f"eth{n}", addresses=("a" * 4000,) * 256) for n in range(256))
    told = Inventory(hostname="web-01", os="o" * 4000, kernel="6.1", interfaces=devices, users=("u" * 4000,) * 256)
    kept = kept_inventory(told)
    assert len(kept.model_dump_json()) < MAX_BYTES
    assert (kept.hostname, kept.kernel, kept.interfaces[0].name) == ("web-01", "6.1", "eth0")
    assert Inventory.model_validate(kept.model_dump(mode="json")) == kept
