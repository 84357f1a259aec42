"""When a scan steps back: for others, not for itself, and never for ever."""

import os

from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.scanner_pressure import (
    HIGH,
    LITTLE_BYTES,
    LITTLE_PROCESSOR,
    LITTLE_TIME,
    SHORT,
    Patient,
    State,
    processor_time,
    read_totals,
)

SECOND = 1_000_000


class Machine:
    """A clock, and counters that somebody moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.totals = dict.fromkeys(HIGH, 0)
        self.patient = Patient()
        self.worked = self.waited = 0.0

    def second(self, resource: str = "io", *, others: float = 0.0, own: float = 0.0, little: bool = False) -> bool:
        """One second passes, in which others wait so much, and the scan, if it works."""
        paused = self.patient.paused
        share = others if paused else max(others, own)
        self.now += 1
        self.totals[resource] += int(share * SECOND)
        self.waited += paused
        self.worked += not paused
        return self.patient.tell(self.now, dict(self.totals), little=little)


def test_a_quiet_machine_is_scanned_without_a_pause():
    """Nobody waits: it works."""
    machine = Machine()
    assert not any(machine.second(others=0.1) for _ in range(100))


def test_it_waits_while_others_wait_and_goes_on_afterwards():
    """Pressure that goes on without the scan is that of others."""
    machine = Machine()
    for _ in range(20):
        machine.second()
    assert any(machine.second(others=0.9) for _ in range(5))
    for _ in range(10):
        assert machine.second(others=0.9)
    assert machine.patient.why == {"io"}
    assert not all(machine.second(others=0.0) for _ in range(2))


def test_its_own_pressure_is_no_reason_to_wait_for_long():
    """It tries a pause, sees that the pressure is gone, and does not try again so soon."""
    machine = Machine()
    for _ in range(600):
        machine.second(own=0.95)
    assert machine.patient.why == set()
    assert machine.waited <= 0.05 * 600
    assert machine.patient.pauses < 10


def test_each_resource_counts():
    """Processor, disk and memory, each with its own measure."""
    for resource in HIGH:
        machine = Machine()
        for _ in range(10):
            machine.second()
        for _ in range(5):
            machine.second(resource, others=1.0)
        assert machine.patient.state is State.WAITS, resource


def test_looks_that_are_too_close_say_nothing():
    """A moment of pressure in a tiny piece of time is no pressure."""
    patient = Patient()
    patient.tell(1.0, {"io": 0})
    assert not patient.tell(1.01, {"io": 10_000})


def test_what_was_measured_before_an_ordered_pause_is_forgotten():
    """The time of that pause is not taken for pressure."""
    patient = Patient()
    patient.tell(1.0, {"io": 0})
    patient.forget()
    assert not patient.tell(100.0, {"io": 99 * SECOND})


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=400))
def test_a_scan_takes_at_most_about_twice_its_time(seconds):
    """Whatever the others do, it works about as long as it waits."""
    machine = Machine()
    for others, own in seconds:
        machine.second(others=others, own=own)
    assert machine.waited <= machine.worked + SHORT + 2


@given(st.lists(st.floats(0, 1), max_size=200))
def test_one_that_has_hardly_done_anything_does_not_wait(seconds):
    """Whatever others wait for: they do not wait for that."""
    machine = Machine()
    assert not any(machine.second(others=others, little=True) for others in seconds)


def test_a_short_scan_waits_a_short_time():
    """The longer it has worked, the longer it may wait; the first pause is no minute."""
    machine = Machine()
    for _ in range(4):
        machine.second()
    for _ in range(60):
        machine.second(others=1.0)
        assert machine.waited <= machine.worked + SHORT + 1


def test_little_is_little_of_everything():
    """Time of the processor, bytes and time itself: much of one of them is enough to step back."""
    patient = Patient()
    assert patient.has_done_little(0.2, 40_000)
    assert not patient.has_done_little(LITTLE_PROCESSOR, 0)
    assert not patient.has_done_little(0, LITTLE_BYTES)
    patient.worked = LITTLE_TIME
    assert not patient.has_done_little(0, 0)


def test_the_processor_time_is_that_of_all_processes_of_a_worker(tmp_path):
    """What it has forked works for it; of whoever is gone, or says nonsense, nothing is counted."""
    ticks = os.sysconf("SC_CLK_TCK")
    for pid, children, user in ((5, b"6 7", ticks), (6, b"", 2 * ticks)):
        task = tmp_path / str(pid) / "task" / str(pid)
        task.mkdir(parents=True)
        (task / "children").write_bytes(children)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a ) b) S {'1 ' * 10}{user} {ticks} 0 0 20 0 1 0 99\n")
    assert processor_time(5, tmp_path) == 5.0
    (tmp_path / "6" / "stat").write_text("nonsense")
    assert processor_time(5, tmp_path) == 2.0


def test_the_processor_time_of_a_real_process_is_more_than_nothing():
    """Where the kernel counts it, it is found."""
    before = os.times()
    while (now := os.times()).user + now.system < before.user + before.system + 0.03:
        pass
    assert processor_time(os.getpid()) > 0
    assert processor_time(2**22 + 1) == 0


@given(st.lists(st.dictionaries(st.sampled_from(["cpu", "io", "memory", "irq"]), st.integers(0, 2**60)), max_size=50))
def test_any_counters_are_survived(totals):
    """Counters that vanish, jump and go back change nothing but when it waits."""
    patient = Patient()
    for n, one in enumerate(totals):
        patient.tell(float(n * 2), one)


def test_the_counters_of_the_kernel_are_read(tmp_path):
    """`some`, not `full`; what is not there, or is switched off, is left out."""
    (tmp_path / "cpu").write_text("some avg10=0.00 avg60=0.92 avg300=0.71 total=816\nfull avg10=0.00 total=5\n")
    (tmp_path / "io").write_text("nonsense")
    assert read_totals(tmp_path) == {"cpu": 816}
    assert read_totals(tmp_path / "nowhere") == {}
