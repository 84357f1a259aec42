"""Is a line that Stanch commented out read back exactly, and is an id as stable as it must be?"""

from hypothesis import given
from hypothesis import strategies as st

from stanch.core.autoruns import DISABLED, Place, autorun_id, disabled_line, read_disabled

TASKS = st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True)
LINES = st.text(st.characters(exclude_characters="\n"), max_size=200)


@given(TASKS, LINES)
def test_a_line_comes_back_as_it_was(task, line):
    """Whatever stands in it, spaces at its ends included."""
    assert read_disabled(disabled_line(task, line)) == (task, line)


@given(LINES)
def test_every_other_line_is_no_mark(line):
    """Only what begins with the mark, a task and a colon."""
    assert read_disabled(line) is None or line.startswith(DISABLED)


def test_an_editor_may_take_the_last_space():
    """The mark of an empty line is still one."""
    assert read_disabled("# stanch-disabled tsk_1:") == ("tsk_1", "")


@given(st.text(max_size=50), st.binary(max_size=50))
def test_an_id_is_of_the_text_however_odd_bytes_are_written(path, raw):
    r"""As surrogates or as `\xff`, with spaces around or without."""
    text = raw.decode("utf-8", "surrogateescape")
    shown = raw.decode("utf-8", "backslashreplace")
    made = autorun_id(Place.CRON, path, text)
    assert made == autorun_id(Place.CRON, path, shown) == autorun_id(Place.CRON, path, f"\t {text} \r")
    assert len(made) == 16


def test_an_id_tells_place_path_and_text_apart():
    """None of them runs into the next."""
    ids = {
        autorun_id(place, path, text)
        for place in (Place.CRON, Place.AT)
        for path, text in (("/a", "b"), ("/a", "c"), ("/ab", ""), ("/a", ""), ("/b", "b"))
    }
    assert len(ids) == 10
