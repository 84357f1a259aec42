"""Are dpkg's own files read as dpkg means them, whatever else is in them?"""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import package_dpkg as module
from stanch.agent.host.package_database import Brought
from stanch.agent.host.package_dpkg import Dpkg, parse_checksums, parse_configuration, parse_diversions

NAMES = st.binary(min_size=1, max_size=30).map(lambda raw: b"/" + raw.replace(b"\n", b"-").replace(b"\0", b"-"))
SUM = "0123456789abcdef" * 2


def database(root, lists, **more):
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    for package, names in lists.items():
        (info / f"{package}.list").write_bytes(b"".join(name + b"\n" for name in names))
    for name, content in more.items():
        (root / "var/lib/dpkg" / name).write_bytes(content)
    return Dpkg(root)


@given(st.dictionaries(NAMES, NAMES, max_size=5))
def test_diversions_are_read_back(moved):
    """Three lines for each, whatever the bytes of the names."""
    raw = b"".join(b"%s\n%s\nowner\n" % one for one in moved.items())
    assert parse_diversions(raw).moved == {name: (there, b"owner") for name, there in moved.items()}


@given(st.binary(max_size=300))
def test_garbage_is_read_or_passed_over(raw):
    """No bytes make the parsers fail."""
    for there, owner in parse_diversions(raw).moved.values():
        assert there
        assert owner
    assert all(name.startswith(b"/") and len(digest) == 32 for name, digest in parse_checksums(raw))
    assert all(name.startswith(b"/") and len(digest) == 32 for name, digest in parse_configuration(raw))


@given(st.lists(NAMES.filter(lambda name: not name.startswith(b"//")), max_size=6, unique=True))
def test_checksums_are_read_back(names):
    """Names stand there without the slash in front; blanks in them are theirs."""
    raw = b"".join(b"%s  %s\n" % (SUM.encode(), name[1:]) for name in names)
    found = [name for name, _ in parse_checksums(raw)]
    assert found == names


def test_configuration_is_read_with_its_remarks_and_nothing_else():
    """`obsolete` behind it changes nothing; a new one has no checksum; a description is no configuration."""
    raw = (
        f"Package: a\nConffiles:\n /etc/a b.conf {SUM}\n /etc/old {SUM} obsolete\n /etc/new newconffile\n"
        f"Description: x\n /etc/not {SUM}\n\nPackage: b\nConffiles:\n /etc/b {SUM}"
    ).encode()
    assert dict(parse_configuration(raw)) == {b"/etc/a b.conf": SUM, b"/etc/old": SUM, b"/etc/b": SUM}


DIVERSIONS = b"/bin/tool\n/bin/tool.real\nwrapper\n/bin/mine\n/bin/mine.theirs\n:\n"
LISTS = {"tools:amd64": [b"/bin/tool", b"/bin/mine"], "wrapper": [b"/bin/tool"]}


@pytest.mark.parametrize(
    ("name", "package"),
    [
        (b"/bin/tool", "wrapper"),
        (b"/bin/tool.real", "tools"),
        (b"/bin/mine", None),  # of the owner of the machine
        (b"/bin/mine.theirs", "tools"),
    ],
)
def test_a_diverted_file_is_of_the_package_that_brought_it(tmp_path, name, package):
    """One package's file stands aside for another's, or for one that the machine's owner puts there."""
    dpkg = database(tmp_path, LISTS, diversions=DIVERSIONS)
    assert dpkg.owners([name]).get(name) == package


def test_the_checksum_of_a_diverted_file_is_the_one_of_its_own_package(tmp_path):
    """The wrapper is not compared with what it wraps."""
    dpkg = database(tmp_path, LISTS, diversions=DIVERSIONS)
    info = tmp_path / "var/lib/dpkg/info"
    (info / "tools:amd64.md5sums").write_text(f"{'1' * 32}  bin/tool\n")
    (info / "wrapper.md5sums").write_text(f"{'2' * 32}  bin/tool\n")
    assert dpkg.brought([b"/bin/tool", b"/bin/tool.real"]) == {
        b"/bin/tool": Brought("md5", "2" * 32),
        b"/bin/tool.real": Brought("md5", "1" * 32),
    }


def test_a_file_of_several_packages_gets_the_first_by_name(tmp_path):
    """Two architectures of a package share their documentation: the answer does not change from run to run."""
    dpkg = database(tmp_path, {"lib:i386": [b"/doc"], "lib:amd64": [b"/doc"], "zoo": [b"/doc"]})
    assert dpkg.owners([b"/doc"]) == {b"/doc": "lib"}


@given(
    st.dictionaries(
        st.sampled_from(["a", "b:amd64", "c"]), st.lists(st.sampled_from([b"/x", b"/y", b"/z z", b"/x/y"]))
    ),
    st.sets(st.sampled_from([b"/x", b"/y", b"/z z", b"/x/y", b"/nobody", b"/x/"])),
)
def test_every_file_is_found_by_its_whole_name(lists, asked):
    """What stands in a list is found, and nothing else: no part of a name, no other name."""
    with tempfile.TemporaryDirectory() as folder:
        found = database(Path(folder), lists).owners(asked)
    known = {name: package for package, names in sorted(lists.items(), reverse=True) for name in names}
    assert found == {name: known[name].partition(":")[0] for name in asked & known.keys()}


def test_a_list_that_is_too_long_is_read_so_far(tmp_path, monkeypatch):
    """Memory is bounded, whatever lies there."""
    monkeypatch.setattr(module, "MAX_LIST", 8)
    dpkg = database(tmp_path, {"a": [b"/one", b"/two", b"/three"]})
    assert dpkg.owners([b"/one", b"/two", b"/three"]) == {b"/one": "a"}


def test_what_is_no_list_is_passed_over(tmp_path):
    """A folder, a link and a pipe with the name of a list."""
    dpkg = database(tmp_path, {"a": [b"/one"]})
    info = tmp_path / "var/lib/dpkg/info"
    (info / "folder.list").mkdir()
    (info / "link.list").symlink_to("a.list")
    os.mkfifo(info / "pipe.list")
    assert dpkg.owners([b"/one"]) == {b"/one": "a"}


def test_nothing_is_asked_about_nothing(tmp_path):
    """No names, no look at the disk that could fail."""
    assert Dpkg(tmp_path / "nowhere").owners([]) == {}
    assert Dpkg(tmp_path / "nowhere").brought([b"/x"]) == {}
