"""Searches find what fits, once, in flat memory, and say what they left out."""

import hashlib
import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.searching import DEEPEST, Pattern, Searcher
from stanch.core.errors import ForbiddenHere, TargetGone
from stanch.core.files import MOUNTED, Found, HashKind, Kind, Search, Skipped
from stanch.core.types import EndpointPath, Glob
from tests.mounts import bind, inside

EVERYTHING = tuple(Kind)


def path_of(path: Path | bytes) -> EndpointPath:
    return EndpointPath.of(os.fsencode(path))


def nothing_forbidden(_path: EndpointPath) -> None:
    """No owner."""


def run(search: Search, forbidden=nothing_forbidden) -> list[Found | Skipped]:
    searcher, found = Searcher(search, forbidden=forbidden), []
    try:
        while (batch := searcher.next()) is not None:
            found += batch
    finally:
        searcher.close()
    return found


def names(root: Path, search: Search, forbidden=nothing_forbidden) -> list[str]:
    """What was found, below the root, in order of name."""
    raw = os.fsencode(root)
    return sorted(
        os.fsdecode(os.path.relpath(one.path.raw, raw)) for one in run(search, forbidden) if isinstance(one, Found)
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two folders deep, with a hidden file, a link to a folder, a FIFO, and a name that is no UTF-8."""
    for name in ("a.sh", "b.txt", "sub/c.sh", "sub/.hidden.sh", "sub/deep/d.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("sub")
    os.mkfifo(tmp_path / "pipe")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")).write_text("odd")
    return tmp_path


def test_files_below_a_folder(tree: Path):
    """All of them, hidden ones and odd names too; no link is followed, and a FIFO is no file."""
    found = names(tree, Search(roots=(path_of(tree),)))
    assert found == sorted(["a.sh", "b.txt", "sub/c.sh", "sub/.hidden.sh", "sub/deep/d.sh", os.fsdecode(b"\xff\n")])


def test_kinds(tree: Path):
    """Only what was asked for, the root among it; folders come before what is in them."""
    assert names(tree, Search(roots=(path_of(tree),), kinds=(Kind.FOLDER,))) == [".", "sub", "sub/deep"]
    assert names(tree, Search(roots=(path_of(tree),), kinds=(Kind.LINK, Kind.FIFO))) == ["link", "pipe"]
    order = [one.path.name for one in run(Search(roots=(path_of(tree / "sub"),), kinds=EVERYTHING))]
    assert order.index("sub") < order.index("deep") < order.index("d.sh")


def test_depth(tree: Path):
    """0 is the root alone, 1 its own entries."""
    root = path_of(tree)
    assert names(tree, Search(roots=(root,), kinds=EVERYTHING, depth=0)) == ["."]
    assert "sub/c.sh" not in names(tree, Search(roots=(root,), depth=1))
    assert {"a.sh", "sub"} <= set(names(tree, Search(roots=(root,), kinds=EVERYTHING, depth=1)))
    assert "sub/c.sh" in names(tree, Search(roots=(root,), depth=2))
    assert "sub/deep/d.sh" not in names(tree, Search(roots=(root,), depth=2))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.sh", ["a.sh"]),
        ("**/*.sh", ["a.sh", "sub/.hidden.sh", "sub/c.sh", "sub/deep/d.sh"]),
        ("sub/*", ["sub/.hidden.sh", "sub/c.sh"]),
        ("sub/**", ["sub/.hidden.sh", "sub/c.sh", "sub/deep/d.sh"]),
        ("*/deep/?.sh", ["sub/deep/d.sh"]),
        ("[ab].*", ["a.sh", "b.txt"]),
        ("[!a]*.txt", ["b.txt"]),
        ("link/*", ["sub/.hidden.sh", "sub/c.sh"]),
        ("*/*/d.sh", ["sub/deep/d.sh"]),
        ("none/*", []),
        ("**/deep/**/d.sh", ["sub/deep/d.sh"]),
    ],
)
def test_patterns(tree: Path, pattern: str, expected: list[str]):
    """Within a name, across folders; links are followed only in the part without a pattern."""
    assert names(tree, Search(pattern=Glob.parse(f"{tree}/{pattern}"))) == expected


def test_a_root_that_is_a_link_is_what_it_leads_to(tree: Path):
    """Whoever names a link means its folder; a root that is a file is that file."""
    assert names(tree, Search(roots=(path_of(tree / "link"),), depth=1)) == ["sub/.hidden.sh", "sub/c.sh"]
    assert names(tree, Search(roots=(path_of(tree / "a.sh"),))) == ["a.sh"]


def test_a_root_that_is_not_there(tree: Path):
    """It is an error, not an empty answer."""
    with pytest.raises(TargetGone, match="none"):
        run(Search(roots=(path_of(tree / "none"),)))


def test_what_the_owner_forbids_is_left_out_and_told(tree: Path):
    """A forbidden folder is not entered."""

    def forbidden(path: EndpointPath) -> None:
        if "/sub" in path:
            raise ForbiddenHere("no")

    found = run(Search(roots=(path_of(tree),)), forbidden)
    assert [one.path.name for one in found if isinstance(one, Skipped)] == ["sub"]
    assert not [one for one in found if isinstance(one, Found) and "/sub" in one.path]


def test_file_systems_that_the_kernel_makes_up_are_left_out():
    """/proc would never end, and reading there does things."""
    found = run(Search(roots=(EndpointPath("/proc"),), depth=2))
    assert [one.why for one in found if isinstance(one, Skipped)] == ["made up by the kernel"]
    assert not [one for one in found if isinstance(one, Found)]


def test_an_unreadable_place_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch):
    """What cannot be opened is skipped with the kernel's reason, and the rest goes on."""
    real = os.open

    def refusing(path, flags, mode=0o777, *, dir_fd=None):
        if path == b"deep":
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing)
    found = run(Search(roots=(path_of(tree),)))
    assert [(one.path.name, one.why) for one in found if isinstance(one, Skipped)] == [("deep", "Permission denied")]
    assert "sub/c.sh" in {os.path.relpath(one.path, tree) for one in found if isinstance(one, Found)}


def test_a_search_ends_at_its_bound(tree: Path):
    """It says so, instead of pretending to be complete."""
    found = run(Search(roots=(path_of(tree),), most_looked_at=3))
    assert [one.why for one in found if isinstance(one, Skipped)] == ["the search ended after 3 names"]


def test_a_search_that_is_stopped_ends(tree: Path):
    """At the next name, and everything is closed."""
    searcher = Searcher(Search(roots=(path_of(tree),)), forbidden=nothing_forbidden)
    searcher.stop()
    assert searcher.next() is None
    searcher.close()


def test_a_search_that_is_left_closes_its_folders(tree: Path):
    """However deep it was."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    searcher = Searcher(Search(roots=(path_of(tree),)), forbidden=nothing_forbidden)
    assert searcher.next()
    searcher.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_very_deep_folders_are_told(tmp_path: Path):
    """Descriptors are not without end."""
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(DEEPEST + 5):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        found = run(Search(roots=(path_of(tmp_path),)))
        assert [one.why for one in found] == ["nested too deep"]
    finally:
        os.close(here)


PIECES = st.sampled_from([b"a", b"b", b"*", b"?", b"[ab]", b".", b"\xff"])


@given(
    st.lists(PIECES, min_size=1, max_size=6),
    st.binary(min_size=1, max_size=8).filter(lambda raw: b"/" not in raw and b"\0" not in raw),
)
def test_one_name_fits_as_the_standard_library_says(pieces: list[bytes], name: bytes):
    """A pattern for one name means what fnmatch means."""
    part = b"".join(pieces)
    if not set(part) & set(b"*?[") or b"**" in part:
        return
    pattern = Pattern.of(Glob.parse(EndpointPath.of(b"/" + part)))
    fits = pattern.fits(pattern.step(pattern.begin(), name))
    assert fits == fnmatchcase(name, part)


def test_no_pattern_takes_for_ever():
    """A hundred stars over a long name end at once: they would not, if each were tried at each place."""
    pattern = Pattern.of(Glob.parse("/" + "*a" * 60 + "b"))
    assert not pattern.step(pattern.begin(), b"a" * 255)


def test_hashes_are_taken_on_the_way(tree: Path):
    """Of files that are not too large; a link or a FIFO has none, and neither has a root that is a file."""
    (tree / "large").write_bytes(bytes(100))
    search = Search(
        roots=(path_of(tree), path_of(tree / "a.sh")), kinds=EVERYTHING, hashes=(HashKind.MD5,), hash_at_most=50
    )
    found = {(one.path.name, one.digests and one.digests.md5) for one in run(search) if isinstance(one, Found)}
    assert ("a.sh", hashlib.md5(b"a.sh", usedforsecurity=False).hexdigest()) in found
    assert {("large", None), ("pipe", None), ("link", None), ("sub", None), ("a.sh", None)} <= found


@pytest.mark.root
@inside
def test_what_is_mounted_can_be_left_out(tmp_path: Path) -> None:
    """Folders and files alike, also of the same file system, and the root itself; told as mounted."""
    for name in ("other/deep", "root/mount", "root/own"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("other/deep/x", "root/own/y", "root/file"):
        (tmp_path / name).write_text("x")
    bind(tmp_path / "other", tmp_path / "root" / "mount")
    bind(tmp_path / "other" / "deep" / "x", tmp_path / "root" / "file")

    def left_out(folder: Path, *, leaves_mounts: bool) -> set[EndpointPath]:
        found = run(Search(roots=(path_of(folder),), kinds=EVERYTHING, leaves_mounts=leaves_mounts))
        return {one.path for one in found if isinstance(one, Skipped) and one.why == MOUNTED}

    root = tmp_path / "root"
    assert left_out(root, leaves_mounts=True) == {path_of(root / "mount"), path_of(root / "file")}
    assert left_out(root / "mount", leaves_mounts=True) == {path_of(root / "mount")}
    assert left_out(root, leaves_mounts=False) == set()
    kept = run(Search(roots=(path_of(root),), leaves_mounts=True))
    assert [one.path for one in kept if isinstance(one, Found)] == [path_of(root / "own" / "y")]
