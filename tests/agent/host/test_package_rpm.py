"""Are rpm's answers read as what they are, and is a path that looks like an answer none?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import package_rpm as module
from stanch.agent.host.package_database import Brought
from stanch.agent.host.package_rpm import Rpm, parse_files, parse_packages
from stanch.core.errors import ActionFailed

BASH = "bash-5.2.26-3.fc40.x86_64"
SHA256 = "ab" * 32
FILES = f""":bash\t0\t{SHA256}\t/usr/bin/bash
:bash\t0\t\t/usr/bin/sh
:bash\t17\t{SHA256}\t/etc/skel/.bashrc
:bash\t64\t{SHA256}\t/var/ghost
:bash\t0\t{"cd" * 16}\t/usr/share/doc/a file
""".encode()


class Program:
    """Answers in the place of rpm."""

    def __init__(self):
        self.asked = []

    def __call__(self, argv):
        self.asked.append(list(argv))
        if "-qf" not in argv:
            return FILES
        lines = [f":{BASH}" if "bash" in one else f"file {one} is not owned by any package" for one in argv[7:]]
        return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "usr/lib/sysimage/rpm").mkdir(parents=True)
    return tmp_path


def test_owners_and_digests(machine):
    """Two questions: who is concerned, and what they have."""
    program = Program()
    rpm = Rpm(machine, ask=program)
    assert rpm.owners([b"/usr/bin/bash", b"/tmp/x"]) == {b"/usr/bin/bash": "bash"}
    assert program.asked[0][-3:] == ["--", "/tmp/x", "/usr/bin/bash"]
    assert program.asked[1][-2:] == ["--", BASH]
    assert rpm.brought([b"/usr/bin/bash", b"/usr/share/doc/a file", b"/bash/x"]) == {
        b"/usr/bin/bash": Brought("sha256", SHA256),
        b"/usr/share/doc/a file": Brought("md5", "cd" * 16),
    }


def test_what_has_no_content_of_its_own_has_an_owner_and_no_digest(machine):
    """Links and folders have none; a ghost is brought by nobody."""
    rpm = Rpm(machine, ask=Program())
    names = [b"/usr/bin/sh", b"/var/ghost", b"/bash"]
    assert rpm.owners(names) == {b"/usr/bin/sh": "bash", b"/var/ghost": "bash"}
    assert rpm.brought(names) == {}


def test_a_path_that_looks_like_an_answer_is_none(machine):
    """A line break in a name makes a package be asked; it owns nothing for that."""
    liar = f"/tmp/\n:{BASH}\n".encode()
    program = Program()
    assert Rpm(machine, ask=program).owners([liar]) == {}
    assert program.asked[1][-1] == BASH


def test_many_files_are_asked_for_in_parts(machine, monkeypatch):
    """A command line has a limit; each package is asked for once all the same."""
    monkeypatch.setattr(module, "FILES_AT_ONCE", 2)
    program = Program()
    Rpm(machine, ask=program).owners([b"/bash/%d" % number for number in range(5)])
    assert ["-qf" in one for one in program.asked] == [True, True, True, False]


def test_without_a_database_nobody_is_asked(tmp_path):
    """Debian may have the program, and no packages of it."""
    program = Program()
    assert Rpm(tmp_path, ask=program).owners([b"/usr/bin/bash"]) == {}
    assert program.asked == []


def test_a_program_that_fails_knows_nothing(machine):
    """A broken database makes files ownerless, not the answer an error."""

    def fails(_argv):
        raise ActionFailed("rpm did not finish")

    assert Rpm(machine, ask=fails).owners([b"/usr/bin/bash"]) == {}


@given(st.binary(max_size=200))
def test_garbage_is_read_or_passed_over(raw):
    """No bytes make the parsers fail, and no name begins like an option."""
    assert all(not name.startswith("-") for name in parse_packages(raw))
    assert all(one.name.startswith(b"/") for one in parse_files(raw))
