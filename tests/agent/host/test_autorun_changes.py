"""What starts by itself is disabled below a root folder, and enabled again: byte for byte, whatever happens between."""

import asyncio
import hashlib
import itertools
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import rewriting
from stanch.agent.host.autorun_changes import AutorunChanges
from stanch.agent.host.inode_flags import IMMUTABLE, change_flags, flags_of
from stanch.agent.host.run import Finished
from stanch.core.autoruns import Autorun, Method, Place, Way
from stanch.core.errors import ActionFailed, Conflict, ForbiddenHere, NotFound, StanchError, TargetGone, Unsupported
from stanch.core.types import EndpointPath
from tests import mounts

TASK = "tsk_1"
MARK = "# stanch-disabled tsk_1: "
ID = "0123456789abcdef"
CRON = "/etc/cron.d/miner"
UNIT = "/usr/lib/systemd/system/miner.service"


def autorun(root: Path, path: str, **fields: Any) -> Autorun:
    """Something that starts by itself, as a list tells it."""
    file = root / path[1:]
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    told = {"id": ID, "place": Place.CRON, "name": file.name, "path": EndpointPath(path), "sha256": sha256}
    return Autorun.model_validate(told | fields)


def write(root: Path, path: str, content: bytes | str = b"x") -> Path:
    """A file below the root."""
    file = root / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def way_of(changes: AutorunChanges, one: Autorun, task: str = TASK) -> Way:
    """How it would be disabled, in the hands of a task."""
    return asyncio.run(changes.way(one)).model_copy(update={"task": task})


def disabled(root: Path, one: Autorun, task: str = TASK, **more: Any) -> Way:
    """It is disabled now."""
    changes = AutorunChanges(root=root, **more)
    way = way_of(changes, one, task)
    asyncio.run(changes.disable(way))
    assert asyncio.run(changes.is_disabled(way))
    return way


def enable(root: Path, way: Way) -> tuple[str, ...]:
    """And enabled again."""
    return asyncio.run(AutorunChanges(root=root).enable(way))


def state(file: Path) -> tuple[Any, ...]:
    """All that a file is."""
    found = file.lstat()
    names = os.listxattr(file, follow_symlinks=False)
    attributes = {name: os.getxattr(file, name, follow_symlinks=False) for name in names}
    return file.read_bytes(), stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns, attributes


# --- lines -----------------------------------------------------------------------------------------------------------

texts = st.lists(
    st.one_of(
        st.binary(max_size=20).map(lambda one: one.replace(b"\n", b"")), st.sampled_from([b"", b"a", b" a", b"a\r"])
    ),
    min_size=1,
    max_size=8,
).map(b"\n".join)


@given(content=texts, number=st.integers(1, 8), mode=st.sampled_from([0o600, 0o644, 0o640]))
def test_enable_undoes_disable_exactly(content: bytes, number: int, mode: int) -> None:
    """Content, mode, owner, times and attributes are those of before, for any text and any of its lines."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        file = write(root, CRON, content)
        file.chmod(mode)
        os.utime(file, ns=(10**18, 10**18 + 1))
        before = state(file)
        try:
            way = disabled(root, autorun(root, CRON, line=number))
        except StanchError:
            assert state(file) == before
            return
        assert file.read_bytes() != content
        enable(root, way)
        assert state(file) == before
        assert [*file.parent.iterdir()] == [file]


@pytest.mark.root
def test_owner_acl_and_labels_survive(tmp_path: Path) -> None:
    """A file of somebody else, with attributes of its own, is theirs as before at each step."""
    file = write(tmp_path, "/home/a/.ssh/authorized_keys", "ssh-ed25519 AAAA evil\nssh-rsa BBBB good\n")
    os.chown(file, 1234, 4321)
    file.chmod(0o600)
    os.setxattr(file, "user.comment", b"kept")
    os.setxattr(file, "security.stanch", b"label")
    before = state(file)
    way = disabled(tmp_path, autorun(tmp_path, "/home/a/.ssh/authorized_keys", place=Place.SSH_KEY, line=1))
    now = state(file)
    assert now[0] == f"{MARK}ssh-ed25519 AAAA evil\nssh-rsa BBBB good\n".encode()
    assert (now[1:4], now[5]) == (before[1:4], before[5])
    enable(tmp_path, way)
    assert state(file) == before


def test_only_this_line(tmp_path: Path) -> None:
    """The line is commented out with the task; the others, and a missing last line end, stay."""
    file = write(tmp_path, CRON, "SHELL=/bin/sh\r\n* * * * * root /tmp/x\n@reboot root y")
    disabled(tmp_path, autorun(tmp_path, CRON, line=2))
    assert file.read_bytes() == f"SHELL=/bin/sh\r\n{MARK}* * * * * root /tmp/x\n@reboot root y".encode()


def test_two_lines_of_one_file(tmp_path: Path) -> None:
    """One task disables several lines of a file, one after the other; each comes back for itself."""
    file = write(tmp_path, CRON, "a\nb\nc\n")
    changes = AutorunChanges(root=tmp_path)
    ways = [way_of(changes, autorun(tmp_path, CRON, line=n, id=f"{n:016}")) for n in (1, 2)]
    for way in ways:
        asyncio.run(changes.disable(way))
    assert file.read_text() == f"{MARK}a\n{MARK}b\nc\n"
    enable(tmp_path, ways[0])
    assert file.read_text() == f"a\n{MARK}b\nc\n"
    enable(tmp_path, ways[1])
    assert file.read_text() == "a\nb\nc\n"


def test_what_others_change_meanwhile_stays(tmp_path: Path) -> None:
    """The line comes back where its mark is, into the file as it is by then."""
    file = write(tmp_path, CRON, "a\nb\n")
    way = disabled(tmp_path, autorun(tmp_path, CRON, line=2))
    file.write_text(f"new\na\n{MARK}b\nmore\n")
    enable(tmp_path, way)
    assert file.read_text() == "new\na\nb\nmore\n"


def test_every_step_can_be_repeated(tmp_path: Path) -> None:
    """Disabling what is disabled, and enabling what is enabled, changes nothing."""
    file = write(tmp_path, CRON, "a\n")
    way = disabled(tmp_path, autorun(tmp_path, CRON, line=1))
    again = state(file)
    asyncio.run(AutorunChanges(root=tmp_path).disable(way))
    assert state(file) == again
    enable(tmp_path, way)
    assert enable(tmp_path, way) == ()
    assert file.read_text() == "a\n"


def test_a_concurrent_change_is_a_conflict(tmp_path: Path) -> None:
    """A file that is another one than the list told, or than was planned, is not touched."""
    file = write(tmp_path, CRON, "a\nb\n")
    changes, told = AutorunChanges(root=tmp_path), autorun(tmp_path, CRON, line=1)
    way = way_of(changes, told)
    file.write_text("a\nb\nc\n")
    with pytest.raises(Conflict, match="was changed since"):
        asyncio.run(changes.disable(way))
    with pytest.raises(Conflict, match="was changed since"):
        way_of(changes, told)
    assert file.read_text() == "a\nb\nc\n"


def test_a_mark_that_is_gone_is_told_with_its_line(tmp_path: Path) -> None:
    """If somebody removed the mark, a person learns the line; nothing is written."""
    file = write(tmp_path, CRON, "a\n* * * * * root /tmp/x\n")
    way = disabled(tmp_path, autorun(tmp_path, CRON, line=2))
    file.write_text("a\n")
    assert not asyncio.run(AutorunChanges(root=tmp_path).is_disabled(way))
    with pytest.raises(Conflict, match="its mark is not there") as caught:
        enable(tmp_path, way)
    assert caught.value.expected == "* * * * * root /tmp/x"
    file.unlink()
    with pytest.raises(NotFound) as gone:
        enable(tmp_path, way)
    assert gone.value.expected == "* * * * * root /tmp/x"


def test_a_line_that_came_back_by_itself_shows(tmp_path: Path) -> None:
    """Malware that writes its line again beside the mark is seen."""
    file = write(tmp_path, CRON, "a\n")
    way = disabled(tmp_path, autorun(tmp_path, CRON, line=1))
    with file.open("a") as more:
        more.write("a\n")
    assert not asyncio.run(AutorunChanges(root=tmp_path).is_disabled(way))


def test_links_lead_neither_out_nor_elsewhere(tmp_path: Path) -> None:
    """A crontab that is a link is refused; a folder that became a link since it was planned, too."""
    outside = write(tmp_path, "/outside/miner", "a\n")
    root = tmp_path / "root"
    file = write(root, CRON, "a\n")
    changes = AutorunChanges(root=root)
    way = way_of(changes, autorun(root, CRON, line=1))
    file.parent.rename(root / "etc/other")
    (root / "etc/cron.d").symlink_to("other")
    with pytest.raises(Conflict, match="A link leads"):
        asyncio.run(changes.disable(way))
    (root / "etc/other/miner").unlink()
    (root / "etc/other/miner").symlink_to(outside)
    with pytest.raises(Unsupported, match="is a link"):
        way_of(changes, autorun(root, CRON, line=1))
    assert outside.read_text() == "a\n"


def test_what_the_owner_forbids(tmp_path: Path) -> None:
    """The local policy's word on a path holds for its lines, too."""
    write(tmp_path, CRON, "a\n")

    def forbid(path: EndpointPath) -> None:
        raise ForbiddenHere("Not this one", got=path)

    with pytest.raises(ForbiddenHere):
        way_of(AutorunChanges(root=tmp_path, forbidden=forbid), autorun(tmp_path, CRON, line=1))


@pytest.mark.parametrize(
    ("place", "content", "line"),
    [
        (Place.SHELL, "if true; then\n/tmp/x\nfi\n", 2),
        (
            Place.PAM,
            "auth [success=1 default=ignore] pam_unix.so\nauth optional pam_x.so\nauth requisite pam_deny.so\n",
            2,
        ),
    ],
)
def test_a_line_that_others_need_stays(tmp_path: Path, place: Place, content: str, line: int) -> None:
    """Where the rest would mean something else without the line, that is said instead."""
    write(tmp_path, "/etc/file", content)
    one = autorun(tmp_path, "/etc/file", place=place, line=line)
    assert asyncio.run(AutorunChanges(root=tmp_path).why_not(one))
    assert asyncio.run(AutorunChanges(root=tmp_path).why_not(one.model_copy(update={"place": Place.CRON}))) is None


@pytest.mark.root
def test_an_immutable_line_is_disabled(tmp_path: Path) -> None:
    """Malware makes its crontab immutable: its line is commented out all the same, and the flag is there afterwards."""
    file = write(tmp_path, CRON, "a\n")
    immutable(file, on=True)
    try:
        way = disabled(tmp_path, autorun(tmp_path, CRON, line=1))
        assert (file.read_text(), immutable(file)) == (f"{MARK}a\n", True)
        enable(tmp_path, way)
        assert (file.read_text(), immutable(file)) == ("a\n", True)
    finally:
        immutable(file, on=False)


def immutable(file: Path, *, on: bool | None = None) -> bool:
    """Give or take the flag, and tell whether it is there. Skips where the file system knows none."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        now = flags_of(descriptor)
        if now is None:
            pytest.skip("this file system has no inode flags")
        if on is not None:
            change_flags(descriptor, now | IMMUTABLE if on else now & ~IMMUTABLE)
        return bool((flags_of(descriptor) or 0) & IMMUTABLE)
    except OSError as error:
        pytest.skip(f"no flags can be set here: {error}")
    finally:
        os.close(descriptor)


@pytest.mark.root
@mounts.inside
def test_a_read_only_mount(tmp_path: Path) -> None:
    """What is mounted read-only is refused before anything is tried, and says what would help."""
    root = mounts.tmpfs(tmp_path)
    write(root, CRON, "a\n")
    write(root, UNIT)
    changes = AutorunChanges(root=root)
    line, mask = way_of(changes, autorun(root, CRON, line=1)), way_of(changes, unit(root))
    mounts.read_only(root)
    for way in (line, mask):
        with pytest.raises(Unsupported, match="read-only"):
            asyncio.run(changes.disable(way))


# --- sudoers ---------------------------------------------------------------------------------------------------------


def _content(path: str) -> bytes:
    return Path(path).read_bytes()


class Runner:
    """Runs no program, and remembers which it should have run."""

    def __init__(self, returncode: int = 0, error: StanchError | None = None) -> None:
        self.returncode, self.error = returncode, error
        self.calls: list[list[str]] = []
        self.seen: list[bytes] = []

    async def __call__(self, argv: Sequence[str], *, within: Any) -> Finished:
        self.calls.append([*argv])
        if argv[0] == "visudo":
            self.seen.append(_content(argv[-1]))
        if self.error is not None:
            raise self.error
        return Finished(self.returncode, b"", b"said no")


def test_visudo_sees_the_file_before_it_counts(tmp_path: Path) -> None:
    """The new file is checked beside the old one, under a name that sudo does not read."""
    file = write(tmp_path, "/etc/sudoers.d/x", "evil ALL=(ALL) NOPASSWD: \\\n  ALL\n")
    runner = Runner()
    way = disabled(tmp_path, autorun(tmp_path, "/etc/sudoers.d/x", place=Place.SUDO, line=1), run=runner)
    assert runner.seen == [f"{MARK}evil ALL=(ALL) NOPASSWD: \\\n{MARK}  ALL\n".encode()] == [file.read_bytes()]
    assert "." in Path(runner.calls[0][-1]).name
    enable(tmp_path, way)
    assert file.read_text() == "evil ALL=(ALL) NOPASSWD: \\\n  ALL\n"


def test_a_sudoers_that_visudo_refuses_stays(tmp_path: Path) -> None:
    """A file that would lock people out does not take its place."""
    file = write(tmp_path, "/etc/sudoers", "a\nb\n")
    changes = AutorunChanges(root=tmp_path, run=Runner(1))
    way = way_of(changes, autorun(tmp_path, "/etc/sudoers", place=Place.SUDO, line=1))
    with pytest.raises(Conflict, match="visudo refuses") as caught:
        asyncio.run(changes.disable(way))
    assert caught.value.got == "said no"
    assert file.read_text() == "a\nb\n"
    assert [*file.parent.iterdir()] == [file]


def test_without_visudo_the_comment_is_safe(tmp_path: Path) -> None:
    """Where visudo is not installed, the line is commented out all the same."""
    write(tmp_path, "/etc/sudoers", "a\nb\n")
    one = autorun(tmp_path, "/etc/sudoers", place=Place.SUDO, line=1)
    disabled(tmp_path, one, run=Runner(error=Unsupported("not installed")))


# --- masks -----------------------------------------------------------------------------------------------------------


def unit(root: Path, path: str = UNIT, **fields: Any) -> Autorun:
    """A unit."""
    return autorun(root, path, place=Place.SYSTEMD_UNIT, **fields)


def test_a_packaged_unit_is_masked(tmp_path: Path) -> None:
    """A link to /dev/null stands in /etc; the package's file stays; enabling removes the link."""
    file = write(tmp_path, UNIT)
    way = disabled(tmp_path, unit(tmp_path))
    mask = tmp_path / "etc/systemd/system/miner.service"
    assert (way.method, way.takes, way.path, way.file) == (
        Method.MASK,
        False,
        "/etc/systemd/system/miner.service",
        UNIT,
    )
    assert str(mask.readlink()) == "/dev/null"
    asyncio.run(AutorunChanges(root=tmp_path).disable(way))
    assert enable(tmp_path, way) == ()
    assert enable(tmp_path, way) == ()
    assert not os.path.lexists(mask)
    assert file.read_bytes() == b"x"


def test_a_unit_of_its_own_goes_and_is_masked_in_its_place(tmp_path: Path) -> None:
    """Its file goes to the vault first; then the mask keeps anybody from starting it by its name."""
    file = write(tmp_path, "/etc/systemd/system/miner.service")
    changes = AutorunChanges(root=tmp_path)
    way = way_of(changes, unit(tmp_path, "/etc/systemd/system/miner.service"))
    assert (way.method, way.takes, way.before) == (Method.MASK, True, hashlib.sha256(b"x").hexdigest())
    with pytest.raises(Conflict, match="by now"):
        asyncio.run(changes.disable(way))
    file.unlink()
    asyncio.run(changes.disable(way))
    assert str(file.readlink()) == "/dev/null"
    enable(tmp_path, way)
    assert not os.path.lexists(file)


def test_a_linked_unit_is_its_link(tmp_path: Path) -> None:
    """A unit that is a link to a file elsewhere: the link is what is taken and masked."""
    write(tmp_path, "/opt/x/miner.service")
    link = tmp_path / "etc/systemd/system/miner.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("/opt/x/miner.service")
    way = way_of(AutorunChanges(root=tmp_path), unit(tmp_path, "/opt/x/miner.service"))
    assert (way.method, way.takes, way.path, way.before) == (
        Method.MASK,
        True,
        "/etc/systemd/system/miner.service",
        None,
    )


def test_in_front_of_a_packaged_unit_only_the_file_goes(tmp_path: Path) -> None:
    """What stands in for a package's unit is taken away, and that one counts again."""
    write(tmp_path, "/usr/lib/systemd/system/ssh.service")
    write(tmp_path, "/etc/systemd/system/ssh.service", b"evil")
    way = way_of(AutorunChanges(root=tmp_path), unit(tmp_path, "/etc/systemd/system/ssh.service"))
    assert (way.method, way.takes) == (Method.VAULT, True)


def test_a_masked_unit_is_disabled_already(tmp_path: Path) -> None:
    """What somebody has masked is not masked again, so that it is not unmasked later."""
    write(tmp_path, UNIT)
    disabled(tmp_path, unit(tmp_path))
    with pytest.raises(Conflict, match="masked already"):
        way_of(AutorunChanges(root=tmp_path), unit(tmp_path))


@pytest.mark.parametrize(
    ("path", "front", "place"),
    [
        (UNIT, "/etc/systemd/system/miner.service", Place.SYSTEMD_UNIT),
        ("/usr/lib/udev/rules.d/x.rules", "/etc/udev/rules.d/x.rules", Place.UDEV),
    ],
)
def test_what_does_not_count_is_not_masked(tmp_path: Path, path: str, front: str, place: Place) -> None:
    """Another file that stands where the mask would be is not taken in the stead of what was named."""
    write(tmp_path, path)
    write(tmp_path, front)
    with pytest.raises(Conflict, match="stands in front of"):
        way_of(AutorunChanges(root=tmp_path), autorun(tmp_path, path, place=place))


def test_something_else_in_place_of_the_mask_stays(tmp_path: Path) -> None:
    """A file that somebody put where the mask was is theirs."""
    write(tmp_path, UNIT)
    way = disabled(tmp_path, unit(tmp_path))
    mask = tmp_path / "etc/systemd/system/miner.service"
    mask.unlink()
    mask.write_text("theirs")
    assert not asyncio.run(AutorunChanges(root=tmp_path).is_disabled(way))
    assert "left as it is" in enable(tmp_path, way)[0]
    assert mask.read_text() == "theirs"


def test_a_mask_that_was_half_removed(tmp_path: Path) -> None:
    """The agent was killed when the link was aside: the next run removes that."""
    write(tmp_path, UNIT)
    way = disabled(tmp_path, unit(tmp_path))
    mask = tmp_path / "etc/systemd/system/miner.service"
    mask.rename(mask.with_name(f".stanch-mask-{ID}"))
    enable(tmp_path, way)
    assert [*mask.parent.iterdir()] == []


def test_a_unit_of_a_user(tmp_path: Path) -> None:
    """It is taken from its home and masked there; no folder is made in a home, and no link there leads elsewhere."""
    own = "/home/a/.config/systemd/user/x.service"
    file = write(tmp_path, own)
    changes = AutorunChanges(root=tmp_path)
    way = way_of(changes, unit(tmp_path, own, name="x.service (a)"))
    assert (way.method, way.takes, way.path) == (Method.MASK, True, own)
    file.unlink()
    (tmp_path / "victim").mkdir()
    file.parent.rmdir()
    file.parent.symlink_to("/victim")
    with pytest.raises(Conflict, match="A link leads"):
        asyncio.run(changes.disable(way))
    assert [*(tmp_path / "victim").iterdir()] == []
    shared = "/home/b/.local/share/systemd/user/x.service"
    write(tmp_path, shared)
    assert way_of(changes, unit(tmp_path, shared)).method is Method.VAULT


@pytest.mark.parametrize("path", ["/etc/profile.d/x.sh", "/etc/systemd/system/a.service.d/b.conf", "/etc/init.d/x"])
def test_any_other_file_goes_to_the_vault(tmp_path: Path, path: str) -> None:
    """A whole file is taken away by the action; it is disabled as long as nothing is at its place."""
    file = write(tmp_path, path)
    changes = AutorunChanges(root=tmp_path)
    place = Place.SYSTEMD_UNIT if "systemd" in path else Place.SHELL
    way = way_of(changes, autorun(tmp_path, path, place=place))
    assert (way.method, way.takes, way.path, way.lines) == (Method.VAULT, True, path, ())
    asyncio.run(changes.disable(way))
    assert file.exists()
    assert not asyncio.run(changes.is_disabled(way))
    file.unlink()
    assert asyncio.run(changes.is_disabled(way))


def test_what_is_no_file_cannot_be_disabled(tmp_path: Path) -> None:
    """A FIFO or a folder is refused; what is gone is said to be gone."""
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/fifo")
    with pytest.raises(Unsupported):
        way_of(AutorunChanges(root=tmp_path), autorun(tmp_path, "/etc/fifo"))
    with pytest.raises(TargetGone):
        way_of(AutorunChanges(root=tmp_path), autorun(tmp_path, "/etc/none"))


# --- systemd and udev ------------------------------------------------------------------------------------------------


def booted(root: Path) -> Path:
    """A root from which systemd runs."""
    (root / "run/systemd/system").mkdir(parents=True)
    return root


def running(root: Path, name: str = "miner.service", **fields: Any) -> Way:
    """How a unit that runs is disabled."""
    write(root, UNIT)
    return way_of(AutorunChanges(root=root, run=Runner()), unit(root, name=name, running=True, **fields))


def test_systemd_is_told(tmp_path: Path) -> None:
    """It reads its units again, and stops and starts this one."""
    runner = Runner()
    changes, way = AutorunChanges(root=booted(tmp_path), run=runner), running(tmp_path)
    for work in (changes.reload((Place.SYSTEMD_UNIT, Place.UDEV)), changes.stop([way]), changes.start([way])):
        assert asyncio.run(work) == ()
    assert runner.calls == [
        ["systemctl", "daemon-reload"],
        ["udevadm", "control", "--reload"],
        ["systemctl", "stop", "--", "miner.service"],
        ["systemctl", "start", "--", "miner.service"],
    ]


def test_the_packaged_unit_goes_on_in_its_stead(tmp_path: Path) -> None:
    """Where a package's unit counts again, what runs is started anew, not stopped."""
    write(tmp_path, "/usr/lib/systemd/system/ssh.service")
    write(tmp_path, "/etc/systemd/system/ssh.service")
    runner = Runner()
    changes = AutorunChanges(root=booted(tmp_path), run=runner)
    way = way_of(changes, unit(tmp_path, "/etc/systemd/system/ssh.service", running=True))
    asyncio.run(changes.stop([way]))
    assert runner.calls == [["systemctl", "try-restart", "--", "ssh.service"]]


@pytest.mark.parametrize("name", ["x.service (a)", "-x.service", "a/b.service"])
def test_odd_units_are_not_stopped(tmp_path: Path, name: str) -> None:
    """A unit of a user's manager, or with a name that systemctl could mistake, is told to be running on."""
    runner = Runner()
    path = "/home/a/.config/systemd/user/x.service" if "(" in name else "/etc/systemd/system/x.service"
    write(tmp_path, path)
    changes = AutorunChanges(root=booted(tmp_path), run=runner)
    way = way_of(changes, unit(tmp_path, path, running=True)).model_copy(update={"name": name, "path": path})
    assert "goes on" in asyncio.run(changes.stop([way]))[0]
    assert runner.calls == []


def test_what_systemd_says_is_told(tmp_path: Path) -> None:
    """A unit that does not end in time, or a systemctl that fails, is a note: the autorun is disabled all the same."""
    way = running(booted(tmp_path))
    failing = AutorunChanges(root=tmp_path, run=Runner(5))
    assert asyncio.run(failing.stop([way])) == ("systemctl stop -- miner.service ended with 5: said no",)
    late = AutorunChanges(root=tmp_path, run=Runner(error=ActionFailed("systemctl did not finish")))
    assert "did not finish" in asyncio.run(late.reload((Place.SYSTEMD_TIMER,)))[0]


def test_an_image_stops_nothing_of_its_host(tmp_path: Path) -> None:
    """Where systemd does not run from this root, or programs are the machine's own, only files change."""
    runner = Runner()
    way = running(tmp_path)
    assert "only files" in asyncio.run(AutorunChanges(root=tmp_path, run=runner).reload((Place.SYSTEMD_UNIT,)))[0]
    assert asyncio.run(AutorunChanges(root=tmp_path, run=runner).stop([way])) == ()
    assert asyncio.run(AutorunChanges(root=booted(tmp_path)).stop([way])) == ()
    assert asyncio.run(AutorunChanges(root=tmp_path, run=runner).reload((Place.CRON,))) == ()
    assert runner.calls == []


def test_what_did_not_run_is_not_started(tmp_path: Path) -> None:
    """Only a unit that ran is stopped, and started again."""
    runner = Runner()
    changes = AutorunChanges(root=booted(tmp_path), run=runner)
    way = running(tmp_path).model_copy(update={"was_running": False})
    assert (asyncio.run(changes.stop([way])), asyncio.run(changes.start([way])), runner.calls) == ((), (), [])


def test_a_cancel_does_not_cut_a_change_in_half(tmp_path: Path) -> None:
    """Cancelled while visudo looks, the change comes to its end, and nothing is left beside the file."""
    file = write(tmp_path, "/etc/sudoers", "a\nb\n")
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(argv: Sequence[str], *, within: Any) -> Finished:
        asked.set()
        await answer.wait()
        return Finished(0, b"", b"")

    async def story() -> None:
        changes = AutorunChanges(root=tmp_path, run=slow)
        one = autorun(tmp_path, "/etc/sudoers", place=Place.SUDO, line=1)
        way = (await changes.way(one)).model_copy(update={"task": TASK})
        async with asyncio.TaskGroup() as group:
            task = group.create_task(changes.disable(way))
            await asked.wait()
            task.cancel()
            asyncio.get_running_loop().call_soon(answer.set)
        assert await changes.is_disabled(way)

    asyncio.run(story())
    assert [*file.parent.iterdir()] == [file]


# --- kill -9 ---------------------------------------------------------------------------------------------------------

CALLS = ("open", "write", "fsync", "unlink", "symlink", "mkdir", "chown", "utime", "link", "rename")


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do it in a process that is killed just before its n-th call of the system; was it?"""
    pid = os.fork()
    if pid == 0:
        try:
            count = itertools.count(1)
            for name in CALLS:
                setattr(os, name, dying(getattr(os, name), count, step))
            rewriting.exchange = dying(rewriting.exchange, count, step)
            rewriting.put_flags = dying(rewriting.put_flags, count, step)
            work()
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    _pid, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def dying(call: Callable[..., Any], count: Iterator[int], step: int) -> Callable[..., Any]:
    """The same call, but for the one at which the process is killed."""

    def counted(*arguments: Any, **more: Any) -> Any:
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **more)

    return counted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "place", "line"), [(CRON, Place.CRON, 2), (UNIT, Place.SYSTEMD_UNIT, 0), ("/etc/sudoers", Place.SUDO, 1)]
)
def test_killed_at_every_call(tmp_path: Path, path: str, place: Place, line: int) -> None:
    """Each file is the old or the new one at any moment; done again, it is disabled, and enabled, as if nothing was."""
    changes, deaths = AutorunChanges(root=tmp_path), 0
    file = write(tmp_path, path, "a\nb\n")
    (tmp_path / "etc").mkdir(exist_ok=True)
    before = portrait(tmp_path)
    way = way_of(changes, autorun(tmp_path, path, place=place, line=line))
    asyncio.run(changes.disable(way))
    after = {name: one[0] for name, one in portrait(tmp_path).items()}
    asyncio.run(changes.enable(way))
    for work, again in ((changes.disable, changes.enable), (changes.enable, changes.disable)):
        for step in itertools.count(1):
            was = killed_at(step, lambda work=work: asyncio.run(work(way)))
            assert file.read_bytes() in {b"a\nb\n", after[path]}
            deaths += was
            asyncio.run(work(way))
            now = portrait(tmp_path)
            if work == changes.disable:
                assert asyncio.run(changes.is_disabled(way))
                assert {name: one[0] for name, one in now.items()} == after
            else:
                assert now == before
            asyncio.run(again(way))
            if not was:
                break
        asyncio.run(changes.disable(way))
    assert deaths > 10


def portrait(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every file and link below the root."""
    found = {}
    for one in sorted(root.rglob("*")):
        if one.is_symlink():
            found[f"/{one.relative_to(root)}"] = (str(one.readlink()),)
        elif one.is_file():
            found[f"/{one.relative_to(root)}"] = state(one)
    return found
