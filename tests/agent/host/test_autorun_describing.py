"""Is everything said of an autorun that a responder needs to judge it?"""

import os
from datetime import UTC, datetime

import pytest

from stanch.agent.host import autorun_describing as module
from stanch.agent.host.autorun_describing import Describer, NoPackages, told
from stanch.agent.host.autorun_found import Item, Programs
from stanch.agent.host.autorun_tree import Tree
from stanch.core.autoruns import CHANGED_PROGRAM, UNPACKAGED_PROGRAM, Place
from stanch.core.types import EndpointPath
from tests.agent.host.autorun_root import new_root

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Packages:
    """Packages by path; counts the questions."""

    def __init__(self, owned=(), changed=()):
        self.owned, self.changed, self.questions = dict(owned), set(changed), 0

    def owners(self, paths):
        self.questions += 1
        return {EndpointPath(one): self.owned[one] for one in paths if one in self.owned}

    def differs_many(self, paths):
        return {one: one in self.changed for one in paths}


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


@pytest.fixture
def describe(root):
    """Describes items of it."""
    tree = Tree(root.folder)

    def describe(*items, packages=None):
        return Describer(tree, packages or NoPackages(), Programs(tree)).describe(items)

    yield describe
    tree.close()


def item(path="/etc/cron.d/job", **fields):
    fields = {"place": Place.CRON, "name": "job", "id": "0" * 16, "line": 1, "command": "/opt/x", **fields}
    return Item(path=path, **fields)


def test_all_that_is_known_is_told(root, describe):
    """Hashes, owner, mode, time, package."""
    file = root.write("/etc/cron.d/job", mode=0o640)
    root.program("/opt/x", "abc")
    os.utime(file, ns=(0, 1_000_000_000))
    os.chown(file, 1000, 0)
    one = describe(item(user="root"), packages=Packages({"/etc/cron.d/job": "cron", "/opt/x": "x"}))[0]
    assert (one.sha256, one.owner, one.mode, one.package, one.differs) == (EMPTY, "alice", 0o640, "cron", False)
    assert one.modified == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert one.program == "/opt/x"
    assert one.program_sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (one.name, one.line, one.user, one.enabled, one.notes) == ("job", 1, "root", True, ())


def test_what_deserves_a_look_is_noted(root, describe):
    """Rights to write, no package, changes, places for temporary and hidden files, what is gone."""
    root.write("/etc/cron.d/job", mode=0o664)
    root.program("/tmp/.x/run").chmod(0o777)
    packages = Packages({"/etc/cron.d/job": "cron"}, changed=["/etc/cron.d/job"])
    one = describe(item(command="/tmp/.x/run"), packages=packages)[0]
    assert one.notes == (
        "its file may be written by its group",
        "its file is not as its package brought it",
        "its program may be written by everybody",
        UNPACKAGED_PROGRAM,
        "its program is in a folder for temporary files",
    )
    assert one.differs is True
    root.at("/etc/cron.d/job").chmod(0o644)
    gone = describe(item(command="/opt/.x/run"))[0]
    assert gone.notes == ("no package has brought its file", "its program is not there")
    root.program("/opt/.x/run")
    assert "its program is hidden" in describe(item(command="/opt/.x/run"))[0].notes


def test_a_changed_program_is_noted(root, describe):
    """Though its own file is as it was."""
    root.write("/etc/cron.d/job")
    root.program("/opt/x")
    packages = Packages({"/etc/cron.d/job": "cron", "/opt/x": "x"}, changed=["/opt/x"])
    one = describe(item(), packages=packages)[0]
    assert (one.notes, one.differs) == ((CHANGED_PROGRAM,), False)


def test_a_program_is_looked_at_where_it_is(root, describe):
    """Packages know it by the end of its links; it is told as it was named."""
    root.write("/etc/cron.d/job")
    root.program("/usr/lib/x/run")
    root.link("/opt/x", "/usr/lib/x/run")
    packages = Packages({"/etc/cron.d/job": "cron", "/usr/lib/x/run": "x"})
    one = describe(item(), packages=packages)[0]
    assert (one.program, one.program_sha256 is None, one.notes) == ("/opt/x", False, ())


def test_a_link_that_counts_itself_is_not_followed(root, describe):
    """Of a mask, the link is what is there."""
    root.link("/etc/systemd/system/x.service", "/dev/null")
    one = describe(item("/etc/systemd/system/x.service", is_link=True, command=""))[0]
    assert (one.sha256, one.mode, one.notes) == (None, 0o777, ("no package has brought its file",))


def test_a_batch_asks_once_and_hashes_each_file_once(root, describe, monkeypatch):
    """Fifty jobs of one program are one reading of it."""
    root.write("/etc/cron.d/job")
    root.program("/opt/x")
    hashed = []
    real = Tree.sha256
    monkeypatch.setattr(Tree, "sha256", lambda *a, **k: hashed.append(a[1]) or real(*a, **k))
    packages = Packages()
    found = describe(*[item(line=n) for n in range(1, 51)], packages=packages)
    assert len(found) == 50
    assert sorted(hashed) == ["/etc/cron.d/job", "/opt/x"]
    assert packages.questions == 1


def test_hashes_are_remembered_within_a_bound(root, describe, monkeypatch):
    """Many files are forgotten again, and right all the same."""
    monkeypatch.setattr(module, "MAX_HASHES", 1)
    root.write("/etc/cron.d/job")
    root.program("/opt/x")
    assert [one.sha256 for one in describe(item(), item())] == [EMPTY, EMPTY]


def test_homes_are_not_told_to_have_no_package(root, describe):
    """They never have one."""
    root.write("/home/alice/.bashrc")
    one = describe(item("/home/alice/.bashrc", place=Place.SHELL, command="", user="alice"))[0]
    assert one.notes == ()


def test_hostile_texts_become_plain_ones(root, describe):
    """Control characters, odd bytes, and far too much of them."""
    path = "/etc/cron.d/j\udcffb\x1b[2J"
    root.write(path)
    one = describe(item(path, name="\x1b[31m\n", command="a\x00b\udcff" + "c" * 10_000, user="u" * 500))[0]
    assert one.name == "[31m"
    assert one.command.startswith("a b\\xffccc")
    assert (len(one.command), len(one.user)) == (4000, 200)
    assert one.path.raw == os.fsencode(path)
    assert one.sha256 == EMPTY


def test_what_is_gone_meanwhile_is_told_all_the_same(describe):
    """Without what nobody can know any more."""
    one = describe(item("/etc/cron.d/gone"))[0]
    assert (one.sha256, one.mode, one.modified, one.owner) == (None, None, None, "")


def test_a_text_is_told_on_one_line():
    """Whatever turns the direction of writing is no part of it."""
    assert told("a\tb\u202ec\n") == "a b c"
