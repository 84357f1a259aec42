"""The mark of an isolation: there as long as it is in force, and harmless in every other way."""

import pytest

from stanch.agent.marker import MARK, is_marked, mark_isolated, unmark


def test_the_mark_comes_and_goes(tmp_path):
    """Both may be said again."""
    assert not is_marked(tmp_path)
    for _ in range(2):
        mark_isolated(tmp_path)
        assert is_marked(tmp_path)
    for _ in range(2):
        unmark(tmp_path)
        assert not is_marked(tmp_path)


def test_a_mark_that_is_there_is_not_written_again(tmp_path):
    """The keeper says it every time it looks: the disk must not pay for that."""
    mark_isolated(tmp_path)
    before = (tmp_path / MARK).stat()
    mark_isolated(tmp_path)
    assert (tmp_path / MARK).stat().st_ino == before.st_ino


@pytest.mark.parametrize("change", [mark_isolated, unmark])
def test_a_missing_folder_is_an_error(tmp_path, change):
    """Whoever believes to have left a mark must hear that there is none."""
    with pytest.raises(OSError, match="gone"):
        change(tmp_path / "gone")
