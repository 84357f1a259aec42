"""The act of tampering tells which of both it saw: a kernel that refuses, or a repair."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from stanch.demo import act_tampered as module
from stanch.demo import scene as scenes
from stanch.demo.act_tampered import Tampered, is_refusal, window
from stanch.demo.lab import Ran
from stanch.demo.report import NotSeen
from tests.demo.acting import Witness, detection, endpoint, heard, scene_of

DONE = Ran(0, "", "")
REFUSED = Ran(1, "", "Error: Could not process rule: Operation not permitted")
ABSENT = Ran(1, "", "Error: Could not process rule: No such file or directory")
TABLES = "table inet stanch { # progname\n}"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there now does not come, and a moment is silence enough."""
    monkeypatch.setattr(scenes, "WAIT_SECONDS", 1.0)
    for one in (scenes, module):
        monkeypatch.setattr(one, "QUIET_SECONDS", 0.05)


def act(witness: Witness, *, deleted: Ran, leaks: bool, rules: str = TABLES, detections: Any = ()) -> Tampered:
    """The act on an endpoint whose nft answers so; with leaks, a beacon comes out at each command."""

    def run(*argv: str) -> Ran:
        if leaks:
            heard(witness, "tcp4", [time.monotonic()])
        return deleted if "delete" in argv else DONE

    lab = SimpleNamespace(endpoint=SimpleNamespace(run=run))
    answers = {"detections": [list(detections)], "endpoint": [endpoint()]}
    return Tampered(scene_of(witness, answers=answers, lab=lab, ruleset=lambda: rules))


def test_owned_tables_refuse():
    """Refused, silent, and still there: the chapter says so."""
    said = act(Witness(), deleted=REFUSED, leaks=False).tamper()
    assert said.startswith("refused:")
    assert "0 foreign frames" in said


def test_one_frame_of_refused_tables_is_a_leak():
    """Where the kernel refuses, nothing may come out."""
    with pytest.raises(NotSeen, match="heard outside"):
        act(Witness(), deleted=REFUSED, leaks=True).tamper()


def test_tables_that_are_gone_were_not_refused():
    """A refusal that left no table is none."""
    with pytest.raises(NotSeen, match="gone"):
        act(Witness(), deleted=REFUSED, leaks=False, rules="").tamper()


@pytest.mark.parametrize("deleted", [DONE, ABSENT])
def test_an_older_kernel_is_repaired(deleted: Ran):
    """The window is measured, and whoever did it is named."""
    found = detection("isolation-tampered", who="/usr/sbin/nft (pid 7)", pid=7)
    said = act(Witness(), deleted=deleted, leaks=True, detections=[found]).tamper()
    assert said.startswith("repaired:")
    assert "2 foreign frames in " in said
    assert said.endswith("isolation-tampered by /usr/sbin/nft (pid 7)")


def test_a_repair_without_a_culprit_is_not_enough():
    """The running agent must have seen the process."""
    found = detection("isolation-tampered", who="unknown", pid=0)
    with pytest.raises(NotSeen, match="does not tell the process"):
        act(Witness(), deleted=DONE, leaks=True, detections=[found]).tamper()


def test_a_repair_that_nobody_detects_is_not_enough(monkeypatch: pytest.MonkeyPatch):
    """The server must hear of it."""
    monkeypatch.setattr(scenes, "WAIT_SECONDS", 0.2)
    with pytest.raises(NotSeen, match="not detected"):
        act(Witness(), deleted=DONE, leaks=True).tamper()


def test_only_the_kernels_refusal_is_one():
    """A table that is not there is no refusal, and neither is success."""
    assert [is_refusal(one) for one in (REFUSED, ABSENT, DONE)] == [True, False, False]


def test_a_window_is_as_long_as_its_frames():
    """From the first to the last of all forbidden kinds; others do not count."""
    witness = Witness()
    heard(witness, "server", [1.0, 9.0])
    assert window(witness.seen()) == "0 foreign frames"
    heard(witness, "udp6", [2.0])
    heard(witness, "other", [2.01])
    assert window(witness.seen()) == "2 foreign frames in 10 ms"
