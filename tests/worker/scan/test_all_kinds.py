"""What is no regular file is found by indicators as files are, by all but the content, and is never opened."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.core.ioc.expression import Condition, Operator
from tests.core.ioc.openioc_files import file_11, group, term, written
from tests.mounts import inside, tmpfs
from tests.worker.scan.driving import FIND_EVIL, Done, worker

OTHER = 12_345
NOBODY = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
MADE = 1_234_567_890
"""When the planted things were changed last."""
KINDS = ("folder", "link", "dangling", "fifo", "socket", "device")
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices, and give files away")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of each kind, and a file that no term is to fit."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "file.txt").write_bytes(b"some E-V-I-L here, long enough")
    (folder / "folder").mkdir()
    (folder / "folder/inner").write_bytes(b"")
    (folder / "link").symlink_to("file.txt")
    (folder / "dangling").symlink_to("/nowhere/at/all")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(folder / "socket"))
        if os.geteuid() == 0:
            os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.chown(folder / "link", OTHER, OTHER, follow_symlinks=False)
            os.chown(folder / "folder", OTHER + 1, OTHER + 1)
        os.utime(folder / "folder", (MADE, MADE))
        os.utime(folder / "link", (MADE + 1, MADE + 1), follow_symlinks=False)
        yield folder


def looked(folder: Path, *parts: object, **job: object) -> Done:
    """A scan with an indicator for each of these terms and groups, called by its place."""
    materials = [
        ("openioc", f"{n}.ioc", file_11(written(group(Operator.OR, one)), key=str(n)))  # type: ignore[arg-type]
        for n, one in enumerate(parts)
    ]
    with worker(materials, **job) as driver:  # type: ignore[arg-type]
        driver.targets(folder)
        return driver.finish()


def found_in(folder: Path, *parts: object, **job: object) -> list[set[str]]:
    """What each of them finds, by names below the folder."""
    done = looked(folder, *parts, **job)
    names = [(int(one["rule"]), one["objects"][0]["name"]) for one in done.findings]
    assert len(names) == len(set(names))
    return [{os.path.relpath(name, folder) for n, name in names if n == place} for place in range(len(parts))]


def path_is(folder: Path, name: str) -> object:
    """A whole path."""
    return term(path="FullPath", content=str(folder / name))


def test_each_is_found_by_its_path_and_nothing_else(planted: Path) -> None:
    """One by one; the folder that was named itself, too; each once."""
    there = [one for one in KINDS if os.path.lexists(planted / one)]
    assert found_in(planted, *(path_is(planted, one) for one in there)) == [{one} for one in there]
    assert found_in(planted, term(path="FullPath", content=str(planted))) == [{"."}]


def test_they_are_found_by_what_they_are(planted: Path) -> None:
    """Attributes and times are those of the link, not of what it leads to."""
    asked = [
        term(path="FileAttributes", content="Directory"),
        term(path="FileAttributes", content="SymbolicLink"),
        term(path="Modified", content="2009-02-13T23:31:30Z", type="date"),
        term(path="Modified", content="2009-02-13T23:31:31Z", type="date"),
        term(path="FileName", content="dangling"),
        group(Operator.AND, term(path="SizeInBytes", content="8", type="int"), term(path="FileName", content="link")),
    ]
    assert found_in(planted, *asked) == [
        {".", "folder"},
        {"link", "dangling"},
        {"folder"},
        {"link"},
        {"dangling"},
        {"link"},
    ]


def test_when_a_folder_was_read_last_is_not_changed_by_the_scan(planted: Path) -> None:
    """It has the time that it had, and is found by it, once and again."""
    os.utime(planted / "folder", (MADE, MADE))
    asked = term(path="Accessed", content="2009-02-13T23:31:30Z", type="date")
    for _ in range(2):
        assert found_in(planted, asked) == [{"folder"}]
    assert (planted / "folder").stat().st_atime == MADE


@root
def test_they_are_found_by_owner(planted: Path) -> None:
    """The link by its own owner."""
    asked = [term(path="SecurityID", content=str(one)) for one in (OTHER, OTHER + 1)]
    assert found_in(planted, *asked) == [{"link"}, {"folder"}]


def test_created_is_known_of_what_cannot_be_opened(planted: Path) -> None:
    """It is asked through a descriptor that opens nothing."""
    created = term(path="Created", condition=Condition.GREATER_THAN, content="2020-01-01T00:00:00Z", type="date")
    fifo = group(Operator.AND, created, term(path="FileName", content="fifo"))
    file = group(Operator.AND, created, term(path="FileName", content="file.txt"))
    of_fifo, of_file = found_in(planted, fifo, file)
    assert bool(of_fifo) == bool(of_file)  # where the file system keeps it


def test_content_is_known_not_to_be_there(planted: Path) -> None:
    """No hash fits; that it has not this one is true, so that a socket does not leave anything open."""
    md5 = term(path="Md5sum", content="0" * 32, type="md5")
    no_md5 = term(path="Md5sum", content="0" * 32, type="md5", negate=True)
    no_elf = term(path="ELFInfo/Type", content="Executable", negate=True)
    no_text = term(path="StringList/string", content="nowhere", negate=True)
    names = [term(path="FileName", content=one) for one in ("folder", "link", "fifo", "socket")]
    without = [group(Operator.AND, one, no_md5, no_elf, no_text) for one in names]
    having = [group(Operator.AND, one, md5) for one in names]
    assert found_in(planted, *without, *having) == [{"folder"}, {"link"}, {"fifo"}, {"socket"}, *[set()] * 4]


def test_only_files_count_as_files(planted: Path) -> None:
    """The others are items; of them, those that nobody opened are told as skipped, once each."""
    done = looked(planted, term(path="FileName", content="nothing"))
    there = [one for one in KINDS if os.path.lexists(planted / one)]
    assert done.tally["files"] == 2
    assert done.tally["items"] == {"FileItem": 2 + 1 + len(there)}
    special = [one for one in there if one in {"fifo", "socket", "device"}]
    assert sorted((one["name"], one["reason"]) for one in done.skips) == [
        (str(planted / one), "not-regular") for one in sorted(special)
    ]


@pytest.mark.parametrize(
    "material",
    [("yara", "e", FIND_EVIL), ("hashes", "h", b"0" * 32)],
)
def test_who_asks_for_content_alone_does_not_meet_them(planted: Path, material: tuple[str, str, bytes]) -> None:
    """Folders and links are not handed over to rules and lists of hashes."""
    with worker([material]) as driver:
        driver.targets(planted)
        done = driver.finish()
    assert done.tally["files"] == 2
    assert not done.tally["items"]
    assert {one["reason"] for one in done.skips} == {"not-regular"}


def test_nor_does_an_indicator_that_only_content_can_fulfil(planted: Path) -> None:
    """A hash is of regular files: nothing else is an item then."""
    done = looked(planted, term(path="Md5sum", content="0" * 32, type="md5"))
    assert done.tally["items"] == {"FileItem": 2}


def test_yara_and_indicators_in_one_scan(planted: Path) -> None:
    """Rules see the file once, not again through the link."""
    ioc = file_11(written(group(Operator.OR, path_is(planted, "link"))), key="0")  # type: ignore[arg-type]
    with worker([("yara", "e", FIND_EVIL), ("openioc", "0.ioc", ioc)]) as driver:
        driver.targets(planted)
        done = driver.finish()
    assert done.found == {("Evil", str(planted / "file.txt")), ("0", str(planted / "link"))}


def test_excludes_and_hints_hold_for_them(planted: Path) -> None:
    """What is left out is told once; a folder that no hint finds is walked all the same."""
    any_name = term(path="FullPath", condition=Condition.CONTAINS, content=str(planted))
    done = looked(planted, any_name, exclude=[f"{planted}/folder", f"{planted}/link"])
    assert sorted(one["name"] for one in done.skips if one["reason"] == "excluded") == [
        str(planted / "folder"),
        str(planted / "link"),
    ]
    names = {os.path.relpath(one["objects"][0]["name"], planted) for one in done.findings}
    assert names >= {".", "dangling", "fifo", "file.txt", "socket"}
    assert not names & {"folder", "link", "folder/inner"}
    assert found_in(planted, any_name, hint="(inner|link)$") == [{"folder/inner", "link"}]


def test_threads_do_it_as_processes_do(planted: Path) -> None:
    """Where no other processes can look."""
    there = [one for one in KINDS if os.path.lexists(planted / one)]
    asked = [path_is(planted, one) for one in there]
    assert found_in(planted, *asked, at=None) == [{one} for one in there]


@pytest.mark.parametrize("name", ["fifo", "socket", "device"])
def test_what_is_named_itself_is_judged(planted: Path, name: str) -> None:
    """As in critical areas, whose places are named one by one."""
    if not os.path.lexists(planted / name):
        pytest.skip("only root can make devices")
    data = file_11(written(group(Operator.OR, path_is(planted, name))), key="0")  # type: ignore[arg-type]
    with worker([("openioc", "0.ioc", data)]) as driver:
        driver.targets(planted / name, below=False)
        done = driver.finish()
    assert done.found == {("0", str(planted / name))}
    assert done.skipped == {(str(planted / name), "not-regular")}


@root
def test_a_folder_that_cannot_be_read_has_its_name(tmp_path: Path) -> None:
    """Who may not enter it, still finds it, and it is told once that what is in there is not known."""
    (tmp_path / "secret").mkdir(mode=0)
    (tmp_path / "secret/inner").write_bytes(b"")
    os.chown(tmp_path / "secret", OTHER, OTHER)
    done = looked(tmp_path, path_is(tmp_path, "secret"), prefix=NOBODY)
    assert done.found == {("0", str(tmp_path / "secret"))}
    assert [(one["name"], one["reason"]) for one in done.skips] == [(str(tmp_path / "secret"), "unreadable")]


def test_no_negation_is_left_open_by_them(planted: Path) -> None:
    """`no file has this hash` is known although there are pipes: a process that is there decides the rest."""
    no_hash = term(path="Md5sum", content="0" * 32, type="md5", negate=True)
    no_name = term(path="FileName", content="marker", negate=True)
    there = term(document="SystemInfoItem", path="hostname", content="me")
    no_link = term(path="FileName", content="link", negate=True)
    parts = [group(Operator.AND, there, no_hash, no_name), group(Operator.AND, there, no_link)]
    materials = [("openioc", f"{n}.ioc", file_11(written(one), key=str(n))) for n, one in enumerate(parts)]
    with worker(materials) as driver:
        driver.targets(planted)
        me = {"document": "SystemInfoItem", "name": "me", "values": {"hostname": ["me"]}}
        driver.say(type="items", items=[me])
        done = driver.finish()
    assert {one["rule"] for one in done.findings} == {"0"}


@pytest.mark.root
@inside
def test_what_is_mounted_is_met_where_it_is(tmp_path: Path) -> None:
    """Its root is a folder as others are; with `one_file_system` it is left out, and told."""
    (tmp_path / "mount").mkdir()
    tmpfs(tmp_path / "mount")
    (tmp_path / "mount/below").mkdir()
    folders = term(path="FileAttributes", content="Directory")
    assert found_in(tmp_path, folders) == [{".", "mount", "mount/below"}]
    done = looked(tmp_path, folders, one_file_system=True)
    assert done.found == {("0", str(tmp_path))}
    assert [one["name"] for one in done.skips] == [str(tmp_path / "mount")]
