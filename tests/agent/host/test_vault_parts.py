"""What all work on a vault shares: one works on one thing, room is kept, numbers grow."""

from pathlib import Path

import pytest

from stanch.agent.host.vault_items import Items
from stanch.agent.host.vault_parts import Busy, Numbers, Room, here, path_of
from stanch.core.errors import Conflict, VaultFull
from stanch.core.types import EndpointPath


def test_one_at_a_time_works_on_one_thing() -> None:
    """The second one hears it at once; another thing is free, and so is the first afterwards, also after an error."""
    busy = Busy()
    with busy.claim(1, "one"), busy.claim(2, "two"):
        with pytest.raises(Conflict, match="one"), busy.claim(1, "one"):
            pass
        with pytest.raises(Conflict), busy.claim(1, "one"):
            pass
    with pytest.raises(RuntimeError), busy.claim(1, "one"):
        raise RuntimeError
    with busy.claim(1, "one"):
        pass


def test_what_was_promised_counts(tmp_path: Path) -> None:
    """Room that somebody uses at the moment is not given to another; it is free again afterwards."""
    (tmp_path / "used").write_bytes(bytes(100))
    room = Room(Items(tmp_path), lambda: 1000)
    with room.promise(600, "one"):
        with pytest.raises(VaultFull, match="two") as found, room.promise(301, "two"):
            pass
        assert found.value.got == "301 bytes"
        with room.promise(300, "three"):
            pass
    with room.promise(900, "four"):
        pass


def test_more_than_the_disk_has_is_refused(tmp_path: Path) -> None:
    """A limit of the policy makes no disk larger."""
    room = Room(Items(tmp_path), lambda: 2**62)
    with pytest.raises(VaultFull, match="disk"), room.promise(2**60, "it"):
        pass


def test_numbers_grow() -> None:
    """After the greatest that was ever seen."""
    numbers = Numbers()
    numbers.seen(7)
    numbers.seen(3)
    assert [numbers.next(), numbers.next()] == [8, 9]


@pytest.mark.parametrize("raw", [b"/a", b"/\xff\xfe", b"/new\nline/\\x41", "/é".encode()])
def test_paths_go_there_and_back(raw: bytes) -> None:
    """Any bytes mean the same here as in an order."""
    path = EndpointPath.of(raw)
    assert path_of(here(path)) == path
