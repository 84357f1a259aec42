"""What a worker was at, from its shared memory."""

from hypothesis import given
from hypothesis import strategies as st

from stanch.core.scan_wire import AT_SLOT, looked_at


def test_only_slots_that_hold_something() -> None:
    """Odd bytes come as surrogates."""
    slot = (3).to_bytes(2, "little") + b"/a\xff"
    assert looked_at(bytes(AT_SLOT) + slot.ljust(AT_SLOT, b"\0")) == ["/a\udcff"]


@given(st.binary(max_size=3 * AT_SLOT))
def test_any_memory_is_read(shared: bytes) -> None:
    """A worker that is taken over may write anything: never more names than slots."""
    assert len(looked_at(shared)) <= 3
