"""The values that cross the host protocols: a process has an identity, an effect has a zone in its times."""

import pytest
from pydantic import ValidationError

from stanch.core.host import Effect
from stanch.core.network import Peer
from stanch.core.processes import Process, ProcessId


def test_a_process_is_named_by_pid_and_start() -> None:
    """Two processes with one pid are two processes."""
    one = Process(
        pid=5, parent=1, started=100, user="root", name="sh", executable=None, arguments="sh", state="S", memory=0
    )
    assert one.id == ProcessId(pid=5, started=100)
    assert one.id != ProcessId(pid=5, started=101)


@pytest.mark.parametrize(
    "wrong", [{"pid": 0, "started": 1}, {"pid": 2**22 + 1, "started": 1}, {"pid": 1, "started": -1}]
)
def test_process_ids_are_bounded(wrong: dict[str, int]) -> None:
    """A pid that no kernel gives is refused."""
    with pytest.raises(ValidationError):
        ProcessId.model_validate(wrong)


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_peers_have_real_ports(port: int) -> None:
    """A peer that no socket can reach is refused."""
    with pytest.raises(ValidationError):
        Peer.model_validate({"address": "10.0.0.1", "port": port})


def test_times_of_an_effect_have_a_zone() -> None:
    """Times of an effect are compared with aware clocks: one without a zone is refused at the door."""
    with pytest.raises(ValidationError):
        Effect.model_validate(
            {"name": "isolation", "task": "t", "since": "2026-11-24T12:00:00", "until": None, "lift_action": "release"}
        )
