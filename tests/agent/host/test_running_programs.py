"""Are exactly those found who run a program: by path, in a container too, by the file that lies there, by hash?"""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from stanch.agent.host import running_programs as module
from stanch.agent.host.procfs import read_stat
from stanch.agent.host.running_programs import RunningPrograms
from stanch.core.processes import ProcessId, Sought
from stanch.core.types import EndpointPath


@pytest.fixture
def programs():
    return RunningPrograms()


@pytest.fixture
def cat(tmp_path):
    """A program with a content of its own, that waits for its input."""
    path = tmp_path / "cat"
    shutil.copy("/bin/cat", path)
    with path.open("ab") as file:
        file.write(os.urandom(32))
    return path


def sought(path):
    return Sought(path=EndpointPath.of(os.fsencode(path)))


def started(child, *command, runs):
    """Start it, and come back when it runs this program."""
    inode = runs.stat().st_ino
    return child("", command=[*map(str, command)], until=lambda pid: _inode(pid) == inode)


def _inode(pid):
    try:
        return Path(f"/proc/{pid}/exe").stat().st_ino
    except OSError:
        return None


def program_of(process):
    return Path(f"/proc/{process.pid}/exe").readlink()


def identity(process):
    return ProcessId(pid=process.pid, started=read_stat(process.pid).started)


async def test_a_path_finds_whoever_runs_it(programs, child, cat):
    """And nobody who runs a program of the same content elsewhere."""
    mine = started(child, cat, runs=cat)
    other = cat.with_name("other")
    shutil.copy(cat, other)
    started(child, other, runs=other)
    assert await programs.that_run(sought(cat)) == [identity(mine)]


async def test_a_deleted_program_is_found_by_its_path(programs, child, cat):
    """Whether or not the kernel's remark is asked for."""
    mine = started(child, cat, runs=cat)
    cat.unlink()
    assert await programs.that_run(sought(cat)) == [identity(mine)]
    assert await programs.that_run(sought(f"{cat} (deleted)")) == [identity(mine)]


async def test_links_in_the_folders_are_followed_and_the_last_is_not(programs, child, cat, tmp_path):
    """Who names a link to a shell does not mean every shell."""
    mine = started(child, cat, runs=cat)
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(cat)
    assert await programs.that_run(sought(tmp_path / "folder" / "cat")) == [identity(mine)]
    assert await programs.that_run(sought(tmp_path / "link")) == []


@pytest.mark.root
@pytest.mark.parametrize("whose", ["the link", "the folder", "a folder above"])
async def test_a_link_that_another_account_put_there_leads_to_nobody(programs, child, cat, tmp_path, whose):
    """Who runs a bad program gives its folder away for a link to the good ones of the same name."""
    started(child, cat, runs=cat)
    above = tmp_path / "above"
    (above / "folder").mkdir(parents=True)
    link = above / "folder" / "x"
    link.symlink_to(tmp_path)
    assert len(await programs.that_run(sought(link / "cat"))) == 1
    os.chown({"the link": link, "the folder": link.parent}.get(whose, above), 65534, 65534, follow_symlinks=False)
    assert await programs.that_run(sought(link / "cat")) == []
    await programs.hunt(sought(link / "cat"), lambda one: pytest.fail(f"took {one}"))


async def test_another_name_of_a_good_program_is_not_that_program(programs, child, cat, tmp_path):
    """A hard link that is put where the bad one was must not end those who run the good one."""
    started(child, cat, runs=cat)
    (tmp_path / "bad").hardlink_to(cat)
    assert await programs.that_run(sought(tmp_path / "bad")) == []


@pytest.mark.root
async def test_in_a_container_it_is_found_by_its_own_name_and_by_where_it_lies(programs, child, cat, tmp_path):
    """A mount namespace that shows the program elsewhere: by what is seen inside, and by the file that is seen here."""
    inside = tmp_path / "inside"
    inside.mkdir()
    script = f"mount --bind {tmp_path} {inside} && exec {inside}/cat"
    mine = started(child, "unshare", "--mount", "--propagation", "private", "sh", "-c", script, runs=cat)
    assert program_of(mine) == inside / "cat"
    assert await programs.that_run(sought(inside / "cat")) == [identity(mine)]
    assert await programs.that_run(sought(cat)) == [identity(mine)]


@pytest.mark.parametrize("kind", ["sha256", "md5"])
async def test_a_hash_finds_whoever_runs_that_content(programs, child, cat, kind):
    """Several files of it, deleted ones too; not the file that lies at the path now."""
    wanted = hashlib.new(kind, cat.read_bytes()).hexdigest()
    mine = started(child, cat, runs=cat)
    other = cat.with_name("other")
    shutil.copy(cat, other)
    second = started(child, other, runs=other)
    cat.unlink()
    shutil.copy("/bin/sleep", cat)
    third = started(child, cat, 1000, runs=cat)
    found = await programs.that_run(Sought(**{kind: wanted}))
    assert set(found) == {identity(mine), identity(second)}
    assert identity(third) not in found


async def test_each_content_is_hashed_once(programs, child, cat, monkeypatch):
    """However many run it, and however often it is asked for."""
    hashed = []
    digest = module._digest
    monkeypatch.setattr(module, "_digest", lambda *all_: (hashed.append(all_[2]), digest(*all_))[1])
    for _ in range(3):
        started(child, cat, runs=cat)
    wanted = Sought(sha256=hashlib.sha256(cat.read_bytes()).hexdigest())
    assert len(await programs.that_run(wanted)) == 3
    assert hashed.count(cat.stat().st_size) == 1
    before = len(hashed)
    assert len(await programs.that_run(wanted)) == 3
    assert len(hashed) == before


async def test_too_large_a_program_is_not_hashed(programs, child, cat, monkeypatch):
    """The time for a look is bounded."""
    monkeypatch.setattr(module, "MAX_PROGRAM", 10)
    started(child, cat, runs=cat)
    assert await programs.that_run(Sought(sha256=hashlib.sha256(cat.read_bytes()).hexdigest())) == []


@pytest.mark.parametrize("by", ["path", "sha256"])
async def test_a_hunt_hands_over_whoever_runs_it(programs, child, cat, by):
    """Each once, and it ends when nobody is new."""
    ones = [identity(started(child, cat, runs=cat)) for _ in range(2)]
    taken = []

    def take(one):
        new = one not in taken
        taken.append(one)
        return new

    wanted = sought(cat) if by == "path" else Sought(sha256=hashlib.sha256(cat.read_bytes()).hexdigest())
    await programs.hunt(wanted, take)
    assert set(taken) == set(ones)
    assert len(taken) < module.MAX_HUNTS


async def test_a_hunt_for_what_nobody_runs_takes_nobody(programs, tmp_path):
    """Neither by path nor by hash."""
    for one in (sought(tmp_path / "nothing"), Sought(md5="ab" * 16)):
        await programs.hunt(one, lambda one: pytest.fail(f"took {one}"))


def test_the_youngest_are_looked_at_first(monkeypatch):
    """From the number that was given last, back and around."""
    monkeypatch.setattr(module, "pids", lambda: iter([1, 5, 9, 70]))
    monkeypatch.setattr(module, "last_pid", lambda: 6)
    assert module._youngest_first() == [5, 1, 70, 9]
