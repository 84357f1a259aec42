"""Is what will be executed what was looked at, and is it said what it is?"""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import program_file as module
from stanch.agent.host.program_file import ELF, SCRIPT, not_executed, open_folder, open_program
from stanch.agent.path_rules import PathRules
from stanch.core.errors import ActionFailed, Invalid, StanchError, TargetGone, Unsupported
from stanch.core.types import EndpointPath
from tests.mounts import inside, tmpfs

RULES = PathRules()


@pytest.fixture
def stack():
    """What is opened is closed when the test ends."""
    with ExitStack() as made:
        yield made


def executable(path: Path, content: bytes, mode: int = 0o755) -> EndpointPath:
    """A file that may be executed."""
    path.write_bytes(content)
    path.chmod(mode)
    return EndpointPath.of(os.fsencode(path))


def test_an_elf_program(tmp_path, stack):
    """It is held open, by its real path."""
    (tmp_path / "link").symlink_to("/bin/true")
    found = open_program(EndpointPath(f"{tmp_path}/link"), RULES, stack)
    assert (found.kind, found.path, found.script) == (ELF, os.path.realpath("/bin/true"), ())
    assert os.path.samestat(found.status, Path("/bin/true").stat())
    assert list(found.warnings()) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"#!/bin/sh", ("/bin/sh",)),
        (b"#! \t/bin/sh  -e -u \t\r\n", ("/bin/sh", "-e -u")),
        (b"#!/bin/sh -\xff\n", ("/bin/sh", "-\udcff")),
    ],
)
def test_the_first_line_of_a_script_is_read_as_the_kernel_does(tmp_path, stack, line, words):
    """One interpreter, and all that follows as one argument."""
    found = open_program(executable(tmp_path / "tool", line), RULES, stack)
    assert (found.kind, found.script) == (SCRIPT, words)
    assert found.interpreter == os.path.realpath("/bin/sh")


@given(st.binary(max_size=300))
def test_whatever_a_file_begins_with_is_a_program_or_refused(tmp_path_factory, content):
    """Nothing else is raised for hostile bytes."""
    path = executable(tmp_path_factory.mktemp("any") / "tool", b"#!" + content)
    with ExitStack() as stack:
        try:
            found = open_program(path, RULES, stack)
        except (Invalid, TargetGone, Unsupported, ActionFailed):
            return
        assert found.script[0].startswith("/")


@pytest.mark.root
def test_by_its_path_only_where_root_alone_can_change_it(tmp_path):
    """Neither the file, nor a folder on the way, nor a link in between may be anybody else's."""

    def by_path(path: EndpointPath) -> bool:
        with ExitStack() as stack:
            return open_program(path, RULES, stack).by_path

    path = executable(tmp_path / "tool", b"#!/bin/sh\n")
    assert by_path(path)
    (tmp_path / "tool").chmod(0o757)
    assert not by_path(path)
    (tmp_path / "tool").chmod(0o755)
    os.chown(tmp_path / "tool", 65534, 0)
    assert not by_path(path)
    os.chown(tmp_path / "tool", 0, 0)
    tmp_path.chmod(0o777)
    assert not by_path(path)
    tmp_path.chmod(0o1777)
    assert by_path(path)
    between = tmp_path / "sh"
    between.symlink_to("/bin/sh")
    script = executable(tmp_path / "by-link", b"#!" + os.fsencode(between))
    assert by_path(script)
    os.chown(between, 65534, 0, follow_symlinks=False)
    assert not by_path(script)


def test_links_in_a_circle_are_nobodys(tmp_path):
    """The walk ends."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert module._is_roots_alone(EndpointPath(f"{tmp_path}/a")) is False
    assert module._is_roots_alone(EndpointPath(f"{tmp_path}/none")) is False


def test_the_hash_is_that_of_what_is_held(tmp_path, stack):
    """Wherever its name leads by then."""
    path = executable(tmp_path / "tool", b"#!/bin/sh\n")
    found = open_program(path, RULES, stack)
    before = found.sha256()
    (tmp_path / "tool").unlink()
    executable(tmp_path / "tool", b"#!/bin/sh\nevil\n")
    assert found.sha256() == before
    found.check_hash(before.upper())
    with pytest.raises(TargetGone, match="another file"):
        found.check_hash("0" * 64)


def test_its_state_changes_with_its_content(tmp_path, stack):
    """A write after the look is seen."""
    path = executable(tmp_path / "tool", b"#!/bin/sh\n")
    found = open_program(path, RULES, stack)
    before = found.state
    (tmp_path / "tool").write_bytes(b"#!/bin/zsh\n")
    assert found.state != before


@pytest.mark.root
def test_what_is_mounted_noexec_is_refused(tmp_path):
    """With the reason, instead of the kernel's `Permission denied`."""

    @inside
    def work():
        path = executable(tmpfs(tmp_path / "mounted", "noexec") / "tool", b"#!/bin/sh\n")
        with ExitStack() as stack, pytest.raises(Invalid, match="noexec"):
            open_program(path, RULES, stack)

    (tmp_path / "mounted").mkdir()
    work()


def test_the_folder_to_start_in(tmp_path, stack):
    """Links to it are followed; the root is a folder, too."""
    (tmp_path / "link").symlink_to(tmp_path)
    held = open_folder(EndpointPath(f"{tmp_path}/link"), RULES, stack)
    assert os.path.samestat(os.fstat(held), tmp_path.stat())
    assert os.path.samestat(os.fstat(open_folder(EndpointPath("//"), RULES, stack)), Path("/").stat())
    with pytest.raises(Invalid):
        open_folder(EndpointPath("/dev/null"), RULES, stack)


@pytest.mark.parametrize("stage", ["start", "group", "user", "folder", "execute"])
@pytest.mark.parametrize("code", [0, errno.EPERM, errno.ENOENT, errno.EAGAIN, 9999])
def test_every_failure_has_a_reason(stage, code):
    """Whatever the kernel says, a person reads what it was about."""
    error = not_executed(stage, code, EndpointPath("/opt/tool"))
    assert isinstance(error, StanchError)
    assert stage in error.got
