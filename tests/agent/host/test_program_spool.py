"""Is a program's output kept whole, readable for nobody else, and gone when it should be?"""

import os
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.program_spool import SHOWN, KeptStream, Spool, shown, sweep
from stanch.core.errors import ActionFailed


@pytest.fixture
def place(tmp_path):
    """Where the agent keeps output."""
    return tmp_path / "spool"


async def test_what_was_kept_is_read_as_it_is(place):
    """Any part of it; beyond its end it is shorter than promised, and that is said."""
    with ExitStack() as stack:
        spool = Spool(place, "tsk_1", stack)
        os.write(spool.files[1], b"0123456789")
        source = KeptStream("tool.stderr", spool, 1, 10)
        assert (source.name, source.size, await source.read(3, 4)) == ("tool.stderr", 10, b"3456")
        with pytest.raises(ActionFailed, match="shorter"):
            await source.read(5, 6)
        assert spool.output(1, 99, 10).model_dump() == {"written": 99, "kept": 10, "text": "0123456789"}
        assert await KeptStream("tool.stdout", spool, 0, 0).extents() == ()
    with pytest.raises(ActionFailed, match="no longer there"):
        await source.read(0, 1)


def test_it_is_gone_with_its_stack(place):
    """Files, names, folder; another run's stay."""
    with ExitStack() as other:
        Spool(place, "tsk_2", other)
        with ExitStack() as stack:
            Spool(place, "tsk_1", stack)
            assert len(list(place.iterdir())) == 2
        (left,) = place.iterdir()
        assert "tsk_2" in left.name
    assert list(place.iterdir()) == []


def test_a_folder_that_is_a_link_is_not_followed(place, tmp_path):
    """Whoever could put one there could have the output elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    with ExitStack() as stack, pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        Spool(place, "tsk_1", stack)


def test_what_is_left_is_swept(place):
    """Only what looks like ours: a foreign file makes its folder stay."""
    assert sweep(place) == 0
    for name in ("run-tsk_1.0123456789abcdef", "run-tsk_2.0123456789abcdef", "other"):
        (place / name).mkdir(parents=True)
        (place / name / "stdout").write_text("x")
    (place / "run-tsk_2.0123456789abcdef" / "foreign").write_text("x")
    (place / "run-tsk_3.0123456789abcdef").symlink_to(place / "other")
    assert sweep(place) == 1
    assert (place / "other" / "stdout").exists()
    assert sorted(one.name for one in place.iterdir()) == [
        "other", "run-tsk_2.0123456789abcdef", "run-tsk_3.0123456789abcdef",
    ]  # fmt: skip


@given(st.binary(max_size=5 * SHOWN), st.booleans())
def test_any_bytes_can_be_shown(data, whole):
    """Bounded, and without what no wire carries."""
    text = shown(data, whole=whole)
    assert len(text) <= SHOWN
    text.encode()


@given(st.text(max_size=100))
def test_text_is_shown_as_it_is(text):
    """Cut in the middle of a character, it is the text before it."""
    data = text.encode("utf-8", "surrogatepass")
    if "\\" not in text and data.decode("utf-8", "ignore") == text:
        assert shown(data, whole=True) == text
        assert text.startswith(shown(data[:-1], whole=False))
