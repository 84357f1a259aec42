"""Does nothing lead out of the root, and is nothing read beyond a bound?"""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import autorun_tree as module
from stanch.agent.host.autorun_tree import Line, Tree, endpoint_path, joined, joined_lines
from stanch.agent.host.mounts import Mount
from stanch.core.autoruns import disabled_line
from stanch.core.types import MAX_PATH_BYTES
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path / "machine")


@pytest.fixture
def tree(root):
    """A look at it."""
    tree = Tree(root.folder)
    yield tree
    tree.close()


def whys(tree):
    return [(one.path, one.why) for one in tree.unread]


def test_a_link_out_of_the_root_leads_inside(root, tree, tmp_path):
    """What is outside is never read, however the link is written."""
    (tmp_path / "secret").write_text("outside")
    root.link("/etc/absolute", str(tmp_path / "secret"))
    root.link("/etc/relative", "../../../../../../../../secret")
    root.write("/secret", "inside")
    assert tree.text("/etc/absolute") == ""
    assert tree.text("/etc/relative") == "inside"
    assert tree.real("/etc/relative") == "/secret"


@pytest.mark.parametrize(("kind", "why"), [("fifo", "it is a FIFO"), ("folder", "it is a folder")])
def test_what_is_no_file_is_told_and_not_opened(root, tree, kind, why):
    """A FIFO would make us wait for ever."""
    if kind == "fifo":
        root.fifo("/etc/crontab")
    else:
        root.at("/etc/crontab").mkdir(parents=True)
    assert tree.read("/etc/crontab") is None
    assert whys(tree) == [("/etc/crontab", why)]


def test_null_is_an_empty_file(root, tree):
    """A link to it is how people switch things off: nothing to tell."""
    root.link("/etc/profile", "/dev/null")
    root.at("/dev").mkdir()
    os.mknod(root.at("/dev/null"), 0o20666, os.makedev(1, 3))
    assert tree.read("/etc/profile") == b""
    assert not tree.unread


def test_a_circle_of_links_is_told(root, tree):
    """And ends."""
    root.link("/etc/a", "b")
    root.link("/etc/b", "a")
    assert tree.read("/etc/a") is None
    assert whys(tree) == [("/etc/a", "Too many levels of symbolic links")]


def test_what_is_not_there_is_nothing_to_tell(root, tree):
    """Most places are on no machine."""
    root.write("/etc/file")
    assert (tree.text("/etc/none"), tree.names("/none"), tree.target("/none")) == ("", [], None)
    assert tree.read("/etc/file/below") is None
    assert tree.read("/etc/\0") is None
    assert tree.read("/" + "x" * 5000) is None
    assert not tree.unread


def test_a_large_file_is_read_to_the_bound(root, tree):
    """And told to be larger."""
    root.write("/etc/crontab", b"x" * (module.MAX_FILE + 1))
    assert tree.read("/etc/crontab") == b"x" * module.MAX_FILE
    assert whys(tree) == [("/etc/crontab", f"only its first {module.MAX_FILE} bytes were read")]
    assert tree.sha256("/etc/crontab", most=10) is None


def test_many_lines_and_long_ones_are_bounded(root, tree, monkeypatch):
    """Each bound is told."""
    monkeypatch.setattr(module, "MAX_LINES", 3)
    monkeypatch.setattr(module, "MAX_LINE", 5)
    root.write("/etc/crontab", "a\nbbbbbbb\nc\nd\n")
    assert [one.text for one in tree.lines("/etc/crontab")] == ["a", "bbbbb", "c"]
    assert len(tree.unread) == 2


def test_many_names_are_bounded(root, tree, monkeypatch):
    """And told to be more."""
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    for name in "abc":
        root.write(f"/etc/cron.d/{name}")
    assert len(tree.names("/etc/cron.d")) == 2
    assert whys(tree) == [("/etc/cron.d", "only 2 of its names were looked at")]


def test_what_is_unread_is_bounded_too(root, tree, monkeypatch):
    """A million pipes are not a million rows."""
    monkeypatch.setattr(module, "MAX_UNREAD", 2)
    for name in "abc":
        root.fifo(f"/etc/cron.d/{name}")
        tree.read(f"/etc/cron.d/{name}")
    assert len(tree.unread) == 2


def test_a_disabled_line_is_told_as_it_was(root, tree):
    """With the task that disabled it, and the number that it has."""
    root.write("/etc/crontab", "one\r\n" + disabled_line("tsk_1", "  two") + "\n# three\n")
    assert list(tree.lines("/etc/crontab")) == [
        Line(1, "one"),
        Line(2, "  two", "tsk_1"),
        Line(3, "# three"),
        Line(4, ""),
    ]


def test_lines_that_go_on_are_one(root, tree):
    """Comments and blank lines between them are none, disabled ones are as they were."""
    text = "# c\na \\\n  b\n\n" + disabled_line("tsk_1", "c\\") + "\n" + disabled_line("tsk_1", "d") + "\nend\\"
    root.write("/etc/sudoers", text)
    found = list(joined_lines(tree.lines("/etc/sudoers")))
    assert [(line.number, line.disabled_by, text.split()) for line, text in found] == [
        (2, "", ["a", "b"]),
        (5, "tsk_1", ["c", "d"]),
        (7, "", ["end"]),
    ]


def test_a_mark_of_stanch_without_text_is_blank(root, tree):
    """It disables nothing."""
    assert Line(1, "").is_blank
    assert Line(1, "  # x").is_blank
    assert not Line(1, "x # y").is_blank


def test_accounts_are_those_of_this_root(root, tree):
    """Wrong lines are passed over; somebody of a directory service has a home without one."""
    root.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nwrong\nx:x:y:0::/:/\n\udcff:x:5:5:::\n")
    root.at("/home/carol").mkdir()
    names = {one.name: one.home for one in tree.accounts()}
    assert names == {"root": "/root", "\udcff": "", "alice": "/home/alice", "carol": "/home/carol"}
    assert [one.name for one in tree.homes()] == ["root", "alice", "carol"]
    assert (tree.user(0), tree.user(4711)) == ("root", "4711")


def test_a_shared_home_is_looked_at_once_and_a_home_of_the_system_never(root, tree):
    """Daemons have / or /usr/sbin as their home."""
    root.write("/etc/passwd", "a:x:1:1::/home/alice:\nb:x:2:2::/home/alice/:\nc:x:3:3::/:\nd:x:4:4::/usr/sbin:\n")
    root.at("/usr/sbin").mkdir(parents=True)
    assert [one.name for one in tree.homes()] == ["a"]


def test_a_home_that_would_be_mounted_is_left_alone(root, tree, monkeypatch):
    """Going there would mount it, and those of thousands of accounts."""
    monkeypatch.setattr(module, "mount_of", lambda _held: Mount(kind="autofs"))
    assert tree.homes() == []
    assert {path for path, _why in whys(tree)} == {"/root", "/home/alice"}


def test_the_hash_is_of_the_content(root, tree):
    """Through links; of what is no file there is none."""
    root.write("/bin/x", "abc")
    root.link("/bin/y", "x")
    assert tree.sha256("/bin/y", most=3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert tree.sha256("/bin", most=100) is None
    assert tree.sha256("/none", most=100) is None


def test_a_file_that_grows_while_it_is_hashed_has_no_hash():
    """More came than was allowed."""
    assert module._hashes_of(iter([b"ab", b"cd"]), ["sha256"], 3) == {}
    assert module._hashes_of(iter([b"ab", b"c"]), ["md5"], 3) == {"md5": "900150983cd24fb0d6963f7d28e17f72"}


def test_only_a_regular_file_is_opened(root, tree):
    """Whoever opened a pipe would wait."""
    root.write("/etc/x", "abc")
    root.fifo("/etc/pipe")
    with tree.opened("/etc/x") as file:
        assert file.read() == b"abc"
    for path in ("/etc/pipe", "/etc", "/none"):
        with tree.opened(path) as file:
            assert file is None


def test_the_space_of_a_file_system_is_told(tree):
    """Its kind with it; of what is not there, nothing."""
    mount, (size, free) = tree.space("/etc")
    assert mount.kind
    assert size >= free > 0
    assert tree.space("/none") is None


def test_nothing_stays_open(root):
    """Neither after a read nor after an error."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    tree = Tree(root.folder)
    root.fifo("/etc/x")
    tree.read("/etc/x")
    tree.names("/etc")
    tree.lines("/etc/passwd")
    tree.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@given(st.binary(max_size=5000))
def test_any_path_can_be_told(raw):
    """Within what a path may be."""
    found = endpoint_path(os.fsdecode(raw))
    assert found.raw.startswith(b"/")
    assert len(found.raw) <= MAX_PATH_BYTES
    assert b"\0" not in found.raw


def test_links_are_joined_by_their_text():
    """As a person would read them."""
    assert joined("/etc/rc2.d", "../init.d/x") == "/etc/init.d/x"
    assert joined("/etc/rc2.d", "/bin/x") == "/bin/x"
