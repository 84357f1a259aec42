"""Shredding: the very file that was meant, really overwritten, gone by its name; and nothing else."""

import os
import tempfile
from pathlib import Path

import pytest

from stanch.agent.host import pinned, shredding
from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE, flags_of
from stanch.agent.host.shredding import shred
from stanch.core.errors import ActionFailed, ForbiddenHere, Protected, TargetGone, Unsupported
from stanch.core.files import FileId
from tests.agent.host.vault_killing.program import killed_at
from tests.agent.host.vault_world import path_of, set_flags

CONTENT = b"secret! " * 40_000

pytestmark = pytest.mark.root


def open_descriptors():
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def memory():
    """A folder on a file system in memory, which knows inode flags and holes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def id_of(path):
    """Its identity."""
    found = path.lstat()
    return FileId(device=found.st_dev, inode=found.st_ino)


def shredded(path, expected=None, *, forbidden=lambda _path: None):
    """Shred what is there, or what was meant."""
    return shred(path_of(path), expected or id_of(path), forbidden=forbidden)


def left(folder):
    """All names there."""
    return sorted(one.name for one in folder.iterdir())


@pytest.fixture
def secret(memory):
    """A file to shred."""
    file = memory / "secret"
    file.write_bytes(CONTENT)
    return file


# --- destroyed -------------------------------------------------------------------------------------------------------


def test_the_bytes_are_overwritten_and_the_name_is_gone(secret):
    """Whoever holds the file open reads nothing of it any more, and finds it as long as before."""
    held = os.open(secret, os.O_RDONLY)
    try:
        done = shredded(secret)
        after = os.pread(held, 2 * len(CONTENT), 0)
    finally:
        os.close(held)
    assert left(secret.parent) == []
    assert done.overwritten == len(after) == len(CONTENT)
    assert b"secret!" not in after
    assert len(set(after[:4096])) > 200, "random, not zeros"


def test_other_names_stay_and_lose_the_content_too(secret):
    """A hard link is the same file: it is told, and its content is destroyed."""
    other = secret.with_name("other")
    other.hardlink_to(secret)
    done = shredded(secret)
    assert left(secret.parent) == ["other"]
    assert b"secret!" not in other.read_bytes()
    assert any("1 other name (hard link)" in one for one in done.caveats)


def test_holes_stay_holes(memory):
    """A sparse file of a terabyte takes no more room than before, and no longer than its data."""
    file, other = memory / "sparse", memory / "other"
    with file.open("wb") as out:
        out.write(CONTENT[:4096])
        out.seek(2**30)
        out.write(CONTENT[:4096])
        out.truncate(2**40)
    other.hardlink_to(file)
    before = file.stat().st_blocks
    done = shredded(file)
    assert (done.overwritten, other.stat().st_blocks, other.stat().st_size) == (8192, before, 2**40)
    with other.open("rb") as reading:
        assert b"secret!" not in reading.read(4096)
        reading.seek(2**30)
        assert b"secret!" not in reading.read(4096)


def test_an_empty_file_is_removed(memory):
    """There is nothing to overwrite, and that is no error."""
    (memory / "empty").touch()
    assert shredded(memory / "empty").overwritten == 0
    assert left(memory) == []


@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND_ONLY])
def test_flags_do_not_save_it(secret, flag):
    """Immutable and append-only are cleared."""
    set_flags(secret, flag)
    shredded(secret)
    assert left(secret.parent) == []


def test_links_of_folders_are_followed(secret, memory):
    """The real path is what the owner of the machine is asked about."""
    (memory / "folder").symlink_to(".")
    asked = []
    shredded(memory / "folder" / "secret", forbidden=asked.append)
    assert asked == [path_of(secret)]
    assert left(memory) == ["folder"]


# --- spared ----------------------------------------------------------------------------------------------------------


def test_another_file_is_spared(secret, memory):
    """What is there by now is not what was meant."""
    (memory / "meant").write_bytes(b"x")
    with pytest.raises(TargetGone):
        shredded(secret, id_of(memory / "meant"))
    assert secret.read_bytes() == CONTENT


def test_a_link_to_it_is_no_way_to_it(secret, memory):
    """If the name became a link to the very file, that is something else; so is a name that is gone."""
    meant = id_of(secret)
    secret.rename(memory / "moved")
    with pytest.raises(TargetGone):
        shredded(secret, meant)
    secret.symlink_to("moved")
    with pytest.raises(TargetGone):
        shredded(secret, meant)
    assert (memory / "moved").read_bytes() == CONTENT


def test_a_swap_in_the_middle_spares_what_came(secret, memory, monkeypatch):
    """What gets the name while it is overwritten keeps it."""
    real = shredding._overwrite

    def swapping(held):
        result = real(held)
        secret.rename(memory / "moved")
        secret.write_bytes(b"innocent")
        return result

    monkeypatch.setattr(shredding, "_overwrite", swapping)
    with pytest.raises(TargetGone):
        shredded(secret)
    assert secret.read_bytes() == b"innocent"
    assert left(memory) == ["moved", "secret"]


def test_only_regular_files_are_overwritten(memory):
    """Folders, links and pipes hold no bytes of their own; opening one could be an act."""
    (memory / "folder").mkdir()
    (memory / "link").symlink_to("nowhere")
    os.mkfifo(memory / "fifo")
    for name in ("folder", "link", "fifo"):
        with pytest.raises(Unsupported):
            shredded(memory / name)
    assert left(memory) == ["fifo", "folder", "link"]


def test_what_the_owner_of_the_machine_forbids_is_spared(secret):
    """The error comes through, and not one byte was touched."""

    def forbid(_path):
        raise ForbiddenHere("not here")

    with pytest.raises(ForbiddenHere):
        shredded(secret, forbidden=forbid)
    assert secret.read_bytes() == CONTENT


def test_what_cannot_be_removed_is_not_overwritten(secret, memory):
    """In an immutable folder the name would stay: so does the content."""
    set_flags(memory, IMMUTABLE)
    try:
        with pytest.raises(Unsupported):
            shredded(secret)
    finally:
        set_flags(memory, 0)
    assert secret.read_bytes() == CONTENT


def test_a_running_program_is_told(memory, child):
    """The kernel lets nobody write to it: the error says what to do, and its flags are back."""
    program = memory / "program"
    program.write_bytes(Path("/bin/sleep").resolve().read_bytes())
    program.chmod(0o700)
    child("", command=[str(program), "600"], until=lambda pid: Path(f"/proc/{pid}/exe").samefile(program))
    set_flags(program, IMMUTABLE)
    try:
        with pytest.raises(ActionFailed, match="program that runs"):
            shredded(program)
        opened = os.open(program, os.O_RDONLY)
        assert (flags_of(opened) or 0) & IMMUTABLE
        os.close(opened)
    finally:
        set_flags(program, 0)


def test_no_descriptor_is_left_open(secret):
    """After an error and after success."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(TargetGone):
        shredded(secret, FileId(device=1, inode=1))
    shredded(secret)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- killed ----------------------------------------------------------------------------------------------------------


def test_killed_at_any_step_a_repeat_finishes(memory):
    """Also when it was moved aside already: the repeat removes it, and no name is left."""
    step, aside = 0, False
    while True:
        step += 1
        folder = memory / f"{step}"
        folder.mkdir()
        file = folder / "secret"
        file.write_bytes(CONTENT)
        set_flags(file, IMMUTABLE)
        meant = id_of(file)

        async def run(file=file, meant=meant):
            shredded(file, meant)

        if not killed_at(run, step):
            assert left(folder) == []
            break
        aside |= not file.exists() and left(folder) != []
        if left(folder):
            assert shredded(file, meant).overwritten == len(CONTENT)
        assert left(folder) == []
    assert aside
    assert step > 3, "the flags, the move, the removal, the sync"


def test_a_name_that_somebody_made_is_in_nobodys_way(secret, memory):
    """Not even a hard link under the very name that the file gets while it is moved aside."""
    planted = memory / os.fsdecode(pinned.aside_name(shredding._token(id_of(secret))))
    planted.hardlink_to(secret)
    shredded(secret)
    assert left(memory) == [planted.name]
    assert b"secret!" not in planted.read_bytes()


# --- caveats ---------------------------------------------------------------------------------------------------------


def test_open_and_written_by_another_process_is_told(secret, child):
    """It may have the content in memory, or write it again."""
    program = "import sys, time\nheld = open(sys.argv[1], 'r+b')\nprint('ready', flush=True)\ntime.sleep(600)"
    process = child(program, str(secret))
    assert any(f"(pid {process.pid}) writes" in one for one in shredded(secret).caveats)


def test_memory_is_told(secret):
    """A file system in memory may have been swapped out; it has no disk."""
    caveats = shredded(secret).caveats
    assert any("tmpfs" in one and "swap" in one for one in caveats)
    assert not any("disk (" in one for one in caveats)
    assert "Backups" in caveats[-1]


def test_random_bytes_differ_from_block_to_block(memory, monkeypatch):
    """No block is a copy of another."""
    monkeypatch.setattr(shredding, "BLOCK", 4096)
    file, other = memory / "file", memory / "other"
    file.write_bytes(bytes(3 * 4096 + 100))
    other.hardlink_to(file)
    shredded(file)
    after = other.read_bytes()
    assert len({after[at : at + 64] for at in range(0, len(after), 4096)}) == 4
    assert len(after) == 3 * 4096 + 100


def test_what_must_stay_is_asked_of_the_very_file(memory):
    """A link that was swapped in after the order was judged does not lead to what the machine needs."""
    (memory / "real").mkdir()
    needed = memory / "real" / "needed"
    needed.write_bytes(CONTENT)
    (memory / "link").symlink_to(memory / "real")

    def protected(path, status):
        return "needed" if path == path_of(needed) and status.st_ino == needed.stat().st_ino else None

    named = path_of(memory / "link" / "needed")
    with pytest.raises(Protected, match="needed"):
        shred(named, id_of(needed), forbidden=lambda _path: None, protected=protected)
    assert needed.read_bytes() == CONTENT
