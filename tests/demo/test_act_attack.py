"""The first act: what a dry run must tell, and must not do."""

import json
import threading
import time
from types import SimpleNamespace

import pytest

from stanch.core.exclusion import Exclusion
from stanch.demo import act_attack as module
from stanch.demo import scene as scenes
from stanch.demo.act_attack import SHOP_OPEN, Attack
from stanch.demo.attack import ROLES
from stanch.demo.report import NotSeen
from stanch.demo.scene import BEACONS, CLIENT, PINGS
from tests.demo.acting import Witness, heard, ordered, scene_of

KINDS = (*BEACONS, *PINGS, *CLIENT)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there soon does not come."""
    for one in (scenes, module):
        monkeypatch.setattr(one, "WAIT_SECONDS", 1.0)


def act(witness: Witness, *, kept: tuple[str, ...] = SHOP_OPEN, rules: str = "") -> Attack:
    """The act on an endpoint whose plan keeps these open, and which has these rules afterwards."""
    steps = [{"what": "Drop all traffic", "target": ""}, *({"what": "Keep open", "target": one} for one in kept)]
    answers = {"isolate": [ordered("isolate", {"changes": True, "steps": steps})]}
    return Attack(scene_of(witness, answers=answers, ruleset=lambda: rules))


@pytest.fixture
def flowing() -> Witness:
    """An outside on which all goes on, as far ahead as the act looks."""
    witness = Witness()
    for kind in KINDS:
        heard(witness, kind, [time.monotonic() + number / 10 for number in range(1, 10)])
    return witness


def test_exclusions_are_written_as_they_are_told():
    """The demo's exclusions are in the form in which everybody shows them."""
    assert [str(Exclusion.parse(one)) for one in SHOP_OPEN] == list(SHOP_OPEN)


def test_a_dry_run_lists_the_exclusions_and_does_nothing(flowing: Witness):
    """All goes on, no rule is there, and the plan has both."""
    assert "2 exclusions" in act(flowing).dry_run()


def test_a_plan_without_an_exclusion_is_not_enough(flowing: Witness):
    """Both must be listed."""
    with pytest.raises(NotSeen, match="does not list"):
        act(flowing, kept=SHOP_OPEN[:1]).dry_run()


def test_a_dry_run_that_leaves_rules_is_none(flowing: Witness):
    """The kernel is asked."""
    with pytest.raises(NotSeen, match="has rules"):
        act(flowing, rules="table inet stanch {}").dry_run()


def test_a_dry_run_that_stops_something_is_none():
    """Everything must go on afterwards."""
    with pytest.raises(NotSeen, match="stopped"):
        act(Witness()).dry_run()


def test_every_process_of_the_attack_is_waited_for(tmp_path):
    """They start on their own: one that has not said who it is yet is waited for, not left out."""
    log = tmp_path / "attack.log"
    said = [json.dumps({"role": role, "pid": number}) + "\n" for number, role in enumerate(ROLES)]
    log.write_text("".join(said[:-1]) + said[-1][:7])
    witness = Witness()
    for kind in KINDS:
        heard(witness, kind, [1.0, 2.0])
    nothing = SimpleNamespace(open_world=lambda: None, start_client=lambda: None, start_attack=lambda: None)
    attack = SimpleNamespace(said=log.read_text)
    scene = scene_of(witness, program=lambda _name: attack, **vars(nothing))
    late = threading.Timer(0.1, lambda: log.write_text("".join(said)))
    late.start()
    with pytest.raises(NotSeen, match="idle connections"):  # nobody opened one here, and that is looked at last
        Attack(scene).attack()
    late.join()
    assert set(scene.plot.pids) == set(ROLES)
