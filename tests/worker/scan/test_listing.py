"""Folders are listed in parts, and what is in them is told apart without asking for it."""

import os
from pathlib import Path

import pytest

from stanch.worker.scan.listing import LISTED, How, begin, enter, more, statuses_of


@pytest.fixture
def folder(tmp_path: Path) -> int:
    """A folder, a file, a pipe and a link."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"four")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("folder")
    return os.open(tmp_path, os.O_RDONLY)


@pytest.mark.parametrize("links", [False, True])
def test_links_are_told_only_to_who_asks(folder: int, links: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """They are neither folders nor files, wherever they lead."""
    _, (folders, last, files, found, statuses) = begin(folder, How(links=links))
    assert (folders, sorted(files), found) == ([b"folder"], [b"file", b"pipe"], [b"link"] if links else [])
    assert last
    assert statuses is None
    os.close(folder)


def test_links_count_as_names_that_are_listed_together(tmp_path: Path) -> None:
    """A folder of links only is listed in parts, too."""
    for n in range(LISTED + 1):
        (tmp_path / str(n)).symlink_to("/")
    fd = os.open(tmp_path, os.O_RDONLY)
    entries, first = begin(fd, How(links=True))
    assert (len(first[3]), first[1]) == (LISTED, False)
    rest = more(fd, entries, How(links=True))
    assert (len(rest[3]), rest[1]) == (1, True)
    os.close(fd)


def test_statuses_come_with_the_files(folder: int) -> None:
    """And none for what is gone."""
    _, listed = begin(folder, How(at_once=True))
    assert {name: one is not None and one.st_size for name, one in listed[4] or ()} == {b"file": 4, b"pipe": 0}
    assert statuses_of(folder, [b"gone"]) == [(b"gone", None)]
    os.close(folder)


def test_a_folder_is_entered_without_following_a_link(folder: int) -> None:
    """On the same device it is begun at once; a link is refused."""
    device = os.fstat(folder).st_dev
    fd, _, begun = enter(b"folder", (folder, device), How())
    assert begun is not None
    os.close(fd)
    fd, _, begun = enter(b"folder", (folder, device + 1), How())
    assert begun is None
    os.close(fd)
    with pytest.raises(OSError, match="link"):
        enter(b"link", (folder, device), How())
    os.close(folder)
