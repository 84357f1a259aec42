"""Reading configuration files with bounds."""

import os

import pytest

from stanch.agent.host.configured import MAX_FILES, MAX_LINE, files_in, lines_of, text_of


def test_only_the_beginning_of_a_large_file_is_read(tmp_path):
    """However large a file is, so much of it is read."""
    (tmp_path / "f").write_bytes(b"x" * 100)
    assert text_of(tmp_path / "f", limit=10) == "x" * 10


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "loop", "zero"])
def test_what_is_no_file_is_empty(tmp_path, kind):
    """A pipe, a device, a folder or nothing in its place neither blocks nor fails."""
    path = tmp_path / ("zero\0" if kind == "zero" else kind)
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    assert text_of(path) == ""


def test_lines_are_stripped_and_absurd_ones_left_out(tmp_path):
    """Bytes that are no text do not stop the reading."""
    (tmp_path / "f").write_bytes(b" a \n" + b"x" * (MAX_LINE + 1) + b"\n\xff b\r\n")
    assert list(lines_of(tmp_path / "f")) == ["a", "� b", ""]


def test_the_files_of_a_folder_in_order(tmp_path):
    """By their endings, and not without bound."""
    for n in range(MAX_FILES + 5):
        (tmp_path / f"{n:04}.list").touch()
    (tmp_path / "0000.save").touch()
    found = files_in(tmp_path, ".list", ".sources")
    assert (len(found), found[0].name) == (MAX_FILES, "0000.list")
    assert files_in(tmp_path / "nothing") == []
