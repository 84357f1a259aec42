"""The agent's clock: only signed times move it, boot time carries it on."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.clock import EPOCH, LATEST, AgentClock
from stanch.agent.journal import Journal
from stanch.core.errors import Invalid


class Boot:
    """A boot clock that a test sets."""

    def __init__(self, seconds: float = 100.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


class Memory:
    """As much of a journal as a clock needs."""

    def __init__(self) -> None:
        self.entries: dict[str, object] = {}

    def get(self, key: str) -> object:
        return self.entries.get(key)

    def stage(self, key: str, value: object) -> None:
        self.entries[key] = value


def clock_on(memory: Memory, boot: Boot, boot_id: str = "b1") -> AgentClock:
    return AgentClock(memory, boot, boot_id)  # type: ignore[arg-type]  # a stand-in with the two methods it uses


def test_it_knows_no_time_before_the_first_envelope() -> None:
    """Before any signed time there is none, and stamps say 1970."""
    clock = clock_on(Memory(), Boot())
    assert clock.now() is None
    assert clock.stamp() == EPOCH
    clock.checkpoint()
    assert clock.now() is None


def test_boot_time_carries_it_on() -> None:
    """The time is the signed one plus what has passed since."""
    boot = Boot()
    clock = clock_on(Memory(), boot)
    clock.observe(1_000_000)
    boot.seconds += 90.5
    assert clock.now() == datetime.fromtimestamp(1_000_090.5, UTC)


def test_an_old_time_does_not_set_it_back() -> None:
    """An envelope that was held back by somebody does not turn the time back; a fresh answer does."""
    boot = Boot()
    clock = clock_on(Memory(), boot)
    clock.observe(2_000_000)
    assert clock.observe(1_000_000).total_seconds() == 0
    assert clock.stamp().timestamp() == 2_000_000
    assert clock.observe(1_000_000, fresh=True).total_seconds() == -1_000_000
    assert clock.stamp().timestamp() == 1_000_000


def test_a_fresh_time_within_the_same_second_changes_nothing() -> None:
    """Signed times have whole seconds, so a fraction is no difference."""
    boot = Boot()
    clock = clock_on(Memory(), boot)
    clock.observe(1000)
    boot.seconds += 0.9
    assert clock.observe(1000, fresh=True).total_seconds() == 0
    assert clock.stamp().timestamp() == 1000.9


@pytest.mark.parametrize("iat", [-1, LATEST + 1, 2**60])
def test_absurd_times_are_refused(iat: int) -> None:
    """A time that no clock can have changes nothing."""
    clock = clock_on(Memory(), Boot())
    with pytest.raises(Invalid):
        clock.observe(iat, fresh=True)
    assert clock.now() is None


def test_after_a_reboot_it_goes_on_from_what_was_written() -> None:
    """The time off is unknown: the last checkpoint plus the new boot's seconds is a lower bound."""
    memory, boot = Memory(), Boot()
    clock = clock_on(memory, boot)
    clock.observe(1_000_000)
    boot.seconds += 60
    clock.checkpoint()
    again = clock_on(memory, Boot(5.0), "b2")
    assert again.stamp().timestamp() == 1_000_065


async def test_it_survives_a_restart_on_a_real_journal(tmp_path: Path) -> None:
    """What was observed goes to the disk with the next transaction."""
    boot = Boot()
    journal = Journal(tmp_path / "journal.db")
    AgentClock(journal, boot, "b1").observe(1_000_000)
    await journal.close()
    journal = Journal(tmp_path / "journal.db")
    boot.seconds += 10
    assert AgentClock(journal, boot, "b1").stamp().timestamp() == 1_000_010
    journal.stage("clock", {"time": "no"})
    assert AgentClock(journal, boot, "b1").now() is None
    await journal.close()


@given(
    st.lists(
        st.tuples(st.sampled_from(["pass", "old", "fresh", "restart", "reboot"]), st.integers(0, 10**9)), max_size=20
    )
)
def test_without_fresh_answers_time_never_goes_back(steps: list[tuple[str, int]]) -> None:
    """Whatever arrives, and however often the agent or the machine starts again: time only goes on."""
    memory, boot, boots = Memory(), Boot(), 0
    clock, last = clock_on(memory, boot), 0.0
    for what, number in steps:
        if what == "pass":
            boot.seconds += number
        elif what in {"restart", "reboot"}:
            clock.checkpoint()
            boots += what == "reboot"
            boot.seconds = 0.0 if what == "reboot" else boot.seconds
            clock = clock_on(memory, boot, f"b{boots}")
        else:
            clock.observe(number, fresh=what == "fresh")
        now = clock.stamp().timestamp()
        assert now >= last - 1e-3 or what == "fresh"
        last = now
