"""A file gets another content: with all that it is, or not at all."""

import os
import stat
from pathlib import Path

import pytest

from stanch.agent.host import rewriting
from stanch.agent.host.inode_flags import IMMUTABLE, change_flags, flags_of
from stanch.agent.host.rewriting import MOST, Rewrite, content_of, held_below
from stanch.core.errors import Conflict, TargetGone, TooLarge, Unsupported
from stanch.core.types import EndpointPath

TAB = EndpointPath("/etc/crontab")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file below a root."""
    (tmp_path / "etc").mkdir()
    found = tmp_path / "etc/crontab"
    found.write_bytes(b"old")
    found.chmod(0o640)
    return found


def opened(tmp_path: Path) -> Rewrite:
    """The file, held."""
    return Rewrite.open(tmp_path, TAB, "line-1")


def rewrite(tmp_path: Path, new: bytes = b"new", *, flags: int | None = None, modified_ns: int | None = None) -> None:
    """All of it."""
    one = opened(tmp_path)
    try:
        one.build(new, modified_ns=modified_ns)
        one.commit(flags=flags)
    finally:
        one.close()


def names(file: Path) -> list[str]:
    """What is in its folder."""
    return sorted(one.name for one in file.parent.iterdir())


def test_another_content_with_the_same_metadata(tmp_path: Path, file: Path) -> None:
    """The file has the new content and its own mode, and nothing is left beside it."""
    os.utime(file, ns=(5, 7))
    rewrite(tmp_path)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.stat().st_mtime_ns > 7
    assert names(file) == ["crontab"]


def test_its_time_can_be_given(tmp_path: Path, file: Path) -> None:
    """A file that becomes what it was gets the time that it had."""
    rewrite(tmp_path, modified_ns=7)
    assert file.stat().st_mtime_ns == 7


@pytest.mark.root
def test_owner_and_attributes_stay(tmp_path: Path, file: Path) -> None:
    """Owner, group and extended attributes are those of the old file."""
    os.chown(file, 1234, 4321)
    os.setxattr(file, "trusted.a", b"\0\xff")
    os.setxattr(file, "security.stanch", b"label")
    rewrite(tmp_path)
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 4321)
    assert (os.getxattr(file, "trusted.a"), os.getxattr(file, "security.stanch")) == (b"\0\xff", b"label")


def flags(file: Path) -> int | None:
    """Its inode flags."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return flags_of(descriptor)
    finally:
        os.close(descriptor)


def make_immutable(file: Path, *, on: bool = True) -> int:
    """Give or take the flag; the flags now. Skips where the file system has none."""
    now = flags(file)
    if now is None:
        pytest.skip("this file system has no inode flags")
    descriptor = os.open(file, os.O_RDONLY)
    try:
        change_flags(descriptor, now | IMMUTABLE if on else now & ~IMMUTABLE)
    except OSError as error:
        pytest.skip(f"no flags can be set here: {error}")
    finally:
        os.close(descriptor)
    return flags(file) or 0


@pytest.mark.root
def test_an_immutable_file_is_rewritten_and_stays_immutable(tmp_path: Path, file: Path) -> None:
    """Malware makes its lines immutable: that keeps nobody from changing them, and the flag is there afterwards."""
    before = make_immutable(file)
    try:
        rewrite(tmp_path, flags=before)
        assert file.read_bytes() == b"new"
        assert flags(file) == before
        assert names(file) == ["crontab"]
    finally:
        make_immutable(file, on=False)


@pytest.mark.root
def test_what_was_cut_short_is_finished(tmp_path: Path, file: Path) -> None:
    """The agent was killed after the exchange: the old file goes, and the flags come."""
    before = make_immutable(file)
    make_immutable(file, on=False)
    (file.parent / ".stanch-line-1").write_bytes(b"old")
    one = opened(tmp_path)
    try:
        one.finish(before)
        assert flags(file) == before
        assert names(file) == ["crontab"]
    finally:
        one.close()
        make_immutable(file, on=False)


def test_a_change_in_between_is_a_conflict(tmp_path: Path, file: Path) -> None:
    """What somebody wrote after it was read stays, in the file that they wrote it to."""
    one = opened(tmp_path)
    one.build(b"new")
    file.write_bytes(b"theirs")
    with pytest.raises(Conflict, match="changed meanwhile"):
        one.commit(flags=None)
    one.close()
    assert file.read_bytes() == b"theirs"
    assert names(file) == ["crontab"]


def test_another_file_in_between_is_a_conflict(tmp_path: Path, file: Path) -> None:
    """A file that was put in its place meanwhile, as crontab(1) does, stays."""
    one = opened(tmp_path)
    one.build(b"new")
    (file.parent / "other").write_bytes(b"theirs")
    (file.parent / "other").rename(file)
    with pytest.raises(Conflict):
        one.commit(flags=None)
    one.close()
    assert file.read_bytes() == b"theirs"


@pytest.mark.parametrize("knows_exchange", [True, False])
def test_a_swap_at_the_last_moment(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, *, knows_exchange: bool
) -> None:
    """Even between the last look and the rename, what another program wrote gets its name again."""
    one = opened(tmp_path)
    one.build(b"new")
    real = rewriting.exchange

    def late(folder: int, first: bytes, second: bytes) -> None:
        if file.read_bytes() == b"old":
            file.write_bytes(b"theirs")
        if not knows_exchange:
            raise OSError(22, "not known")
        real(folder, first, second)

    monkeypatch.setattr(rewriting, "exchange", late)
    with pytest.raises(Conflict):
        one.commit(flags=None)
    one.close()
    assert file.read_bytes() == b"theirs"
    assert names(file) == ["crontab"]


def test_a_file_system_without_exchange(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names cannot be exchanged, the new file replaces the old one."""

    def unknown(_folder: int, _one: bytes, _other: bytes) -> None:
        raise OSError(22, "not known")

    monkeypatch.setattr(rewriting, "exchange", unknown)
    rewrite(tmp_path)
    assert file.read_bytes() == b"new"
    assert names(file) == ["crontab"]


def test_nothing_is_left_of_what_was_not_to_be(tmp_path: Path, file: Path) -> None:
    """A new file that is not wanted after all goes, and so does what an earlier run left."""
    (file.parent / ".stanch-line-1").write_bytes(b"left")
    one = opened(tmp_path)
    one.build(b"new")
    one.close()
    assert (names(file), file.read_bytes()) == (["crontab"], b"old")


def test_a_link_is_not_written_through(tmp_path: Path, file: Path) -> None:
    """A name that is a link is refused, with where it leads."""
    file.rename(file.with_name("real"))
    file.symlink_to("real")
    with pytest.raises(Unsupported, match="is a link") as caught:
        opened(tmp_path)
    assert caught.value.got == "real"


def test_no_link_leads_out_of_the_root(tmp_path: Path, file: Path) -> None:
    """A folder that is a link to an absolute path is the one below the root."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/cfg").symlink_to("/etc")
    with pytest.raises(TargetGone):
        Rewrite.open(tmp_path / "root", EndpointPath("/cfg/crontab"), "line-1")
    (tmp_path / "root/etc").mkdir()
    (tmp_path / "root/etc/crontab").write_bytes(b"inside")
    with held_below(tmp_path / "root", EndpointPath("/cfg/crontab")) as pinned:
        assert (pinned.path, content_of(pinned)) == ("/etc/crontab", b"inside")
    assert file.read_bytes() == b"old"


@pytest.mark.parametrize("path", ["/etc/none", "/none/crontab", "/etc/crontab/x"])
def test_nothing_is_there(tmp_path: Path, file: Path, path: str) -> None:
    """A path that leads to nothing is said to be gone."""
    with pytest.raises(TargetGone):
        Rewrite.open(tmp_path, EndpointPath(path), "line-1")


def test_a_file_has_a_bound(tmp_path: Path, file: Path) -> None:
    """A file larger than any crontab is not read; one of the very bound is."""
    with file.open("wb") as content:
        content.truncate(MOST)
    with held_below(tmp_path, TAB) as pinned:
        assert len(content_of(pinned)) == MOST
    with file.open("ab") as content:
        content.write(b"x")
    with pytest.raises(TooLarge):
        opened(tmp_path)


def test_only_files_have_a_content(tmp_path: Path, file: Path) -> None:
    """A FIFO under such a name is refused, and nobody waits for it."""
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(Unsupported):
        opened(tmp_path)
