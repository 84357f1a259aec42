"""Recordings: each byte with its time, as players read it, and mended after a crash."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.core.errors import TooLarge
from stanch.server import recordings as module
from stanch.server.recordings import Recording, mend

BEGAN = datetime(2026, 11, 24, 12, tzinfo=UTC)


def recording(path: Path, times: list[float] | None = None) -> Recording:
    clock = iter(times or [float(n) for n in range(1000)])
    return Recording(path, columns=80, rows=24, began=BEGAN, title="a title", seconds=lambda: next(clock))


def events(path: Path) -> list[list[Any]]:
    """All events after the head."""
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def bytes_of(path: Path, code: str) -> bytes:
    """What was shown or typed, put together again."""
    text = "".join(one[2] for one in events(path) if one[1] == code)
    return text.encode("utf-8", "surrogateescape")


def test_the_head_is_an_asciicast_of_version_2(tmp_path: Path) -> None:
    """The first line says version, size, and when."""
    recording(tmp_path / "one.cast").close()
    head = json.loads((tmp_path / "one.cast").read_text().splitlines()[0])
    assert (head["version"], head["width"], head["height"]) == (2, 80, 24)
    assert head["timestamp"] == int(BEGAN.timestamp())


def test_events_have_their_times(tmp_path: Path) -> None:
    """Output, input, size and markers, each in seconds since the beginning."""
    one = recording(tmp_path / "one.cast", [10.0, 10.5, 11.0, 12.25, 13.0])
    one.output(b"$ ")
    one.typed(b"id\r")
    one.resized(120, 40)
    one.note("ada joined")
    one.close()
    assert events(tmp_path / "one.cast") == [
        [0.5, "o", "$ "],
        [1.0, "i", "id\r"],
        [2.25, "r", "120x40"],
        [3.0, "m", "ada joined"],
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from("oi"), st.binary(max_size=50)), max_size=20))
def test_every_byte_comes_back(tmp_path: Path, written: list[tuple[str, bytes]]) -> None:
    """Whatever the bytes are and wherever they are cut, the recording gives them back exactly."""
    path = tmp_path / "one.cast"
    path.unlink(missing_ok=True)
    one = recording(path)
    for code, data in written:
        (one.output if code == "o" else one.typed)(data)
    one.close()
    for code in "oi":
        assert bytes_of(path, code) == b"".join(data for of, data in written if of == code)


def test_it_is_in_the_file_before_anybody_closes_it(tmp_path: Path) -> None:
    """A crash after an event loses nothing of it."""
    recording(tmp_path / "one.cast").output(b"seen")
    assert bytes_of(tmp_path / "one.cast", "o") == b"seen"


def test_only_we_read_it(tmp_path: Path) -> None:
    """It holds passwords that were typed."""
    recording(tmp_path / "one.cast")
    assert (tmp_path / "one.cast").stat().st_mode & 0o777 == 0o600


def test_it_never_writes_over_another(tmp_path: Path) -> None:
    """One that is there already is an error, not an empty page."""
    (tmp_path / "one.cast").write_text("precious")
    with pytest.raises(FileExistsError):
        recording(tmp_path / "one.cast")
    assert (tmp_path / "one.cast").read_text() == "precious"


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood is refused, and what was recorded stays whole."""
    monkeypatch.setattr(module, "MAX_BYTES", 300)
    one = recording(tmp_path / "one.cast")
    one.output(b"first")
    with pytest.raises(TooLarge):
        one.output(b"x" * 400)
    assert bytes_of(tmp_path / "one.cast", "o") == b"first"


@pytest.mark.parametrize("torn", ["[1.0,", '[1.0,"o","half', "x" * 200_000])
def test_a_torn_line_is_cut_off(tmp_path: Path, torn: str) -> None:
    """What a crash left half-written is removed, and nothing else."""
    one = recording(tmp_path / "one.cast")
    one.output(b"whole")
    one.close()
    whole = (tmp_path / "one.cast").read_text()
    with (tmp_path / "one.cast").open("a") as file:
        file.write(torn)
    mend(tmp_path / "one.cast")
    assert (tmp_path / "one.cast").read_text() == whole


def test_a_file_without_a_whole_line_is_emptied(tmp_path: Path) -> None:
    """A crash in the very first line leaves nothing to keep."""
    (tmp_path / "one.cast").write_text('{"version":')
    mend(tmp_path / "one.cast")
    assert (tmp_path / "one.cast").read_text() == ""


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    """And the middle of a character that never ended is kept, too."""
    one = recording(tmp_path / "one.cast")
    one.output(b"\xe2\x82")
    one.close()
    one.close()
    assert bytes_of(tmp_path / "one.cast", "o") == b"\xe2\x82"
