"""Facts of files for indicators: those that real files have, and no more than is asked."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stanch.core.ioc.items import Value
from stanch.core.ioc.terms import DOCUMENTS
from stanch.worker.scan import file_facts as module
from stanch.worker.scan.file_facts import FileFacts, of_content, prepare

PASSWD = "root:x:0:0:root:/root:/bin/bash\nother:x:0:0::/:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbroken:x\n"
GROUP = "root:x:0:\nalice:x:1000:alice\n"
OF_CONTENT = {"Md5sum", "Sha1sum", "Sha256sum", "StringList/string"}
ALL = frozenset(DOCUMENTS["FileItem"]) - OF_CONTENT

Told = Callable[..., dict[str, tuple[Value, ...]]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the names of owners stand."""
    etc = tmp_path / "root/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(PASSWD)
    (etc / "group").write_text(GROUP)
    return tmp_path / "root"


@pytest.fixture
def told(root: Path) -> Told:
    """Facts of a path."""
    known = prepare(root)

    def tell(path: Path, wanted: frozenset[str] = ALL, *, facts: FileFacts = known) -> dict[str, tuple[Value, ...]]:
        opened = os.open(path, os.O_RDONLY)
        try:
            return facts.facts(os.fsencode(path), opened, os.fstat(opened), wanted)
        finally:
            os.close(opened)

    return tell


def test_every_fact_of_a_real_file_is_known(told: Told, tmp_path: Path) -> None:
    """A copy of a program: all that the catalogue has, what the content gives apart."""
    path = tmp_path / "some.folder/my.tool.sh"
    path.parent.mkdir()
    shutil.copy(Path(sys.executable).resolve(), path)
    path.chmod(0o4755)
    os.utime(path, ns=(1_600_000_000_999_999_999, 1_500_000_000_000_000_000))
    found = told(path)
    made = found.pop("Created", None)
    assert set(found) == ALL - {"Created"} - ({"Username", "Group"} if os.getuid() else set())
    assert found["FullPath"] == (str(path),)
    assert found["FilePath"] == (str(path.parent), f"{path.parent}/")
    assert found["FileName"] == ("my.tool.sh",)
    assert found["FileExtension"] == ("sh", ".sh")
    assert found["SizeInBytes"] == (path.stat().st_size,)
    assert (found["Accessed"], found["Modified"]) == ((1_600_000_000,), (1_500_000_000,))
    assert found["Changed"] == (path.stat().st_ctime_ns // 10**9,)
    assert found["Permissions"] == (4755,)
    assert found["INode"] == (path.stat().st_ino,)
    assert {"Executable", "SetUserID"} <= set(found["FileAttributes"])
    assert made is None or made[0] > 1_600_000_000


@pytest.mark.root
def test_the_owner_has_name_and_number(told: Told, tmp_path: Path) -> None:
    """Of two names for one number the first counts; a number without a name here has none that is known."""
    path = tmp_path / "file"
    path.touch()
    os.chown(path, 1000, 0)
    found = told(path)
    assert (found["Username"], found["SecurityID"]) == (("alice",), ("1000",))
    assert (found["Group"], found["GroupID"]) == (("root",), ("0",))
    os.chown(path, 4242, 4242)
    found = told(path)
    assert not {"Username", "Group"} & set(found)
    assert (found["SecurityID"], found["GroupID"]) == (("4242",), ("4242",))


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        (".bashrc", ()),
        (".x.conf", ("conf", ".conf")),
        ("a.", ()),
        ("a.tar.gz", ("gz", ".gz")),
        ("plain", ()),
        ("..a", ()),
    ],
)
def test_extensions(told: Told, tmp_path: Path, name: str, extension: tuple[str, ...]) -> None:
    """The dot that hides a file is none."""
    path = tmp_path / name
    path.touch()
    assert told(path)["FileExtension"] == extension


def test_attributes(told: Told, tmp_path: Path) -> None:
    """What the name, the mode and the blocks say."""
    path = tmp_path / ".hidden"
    path.touch(mode=0o444)
    os.truncate(path, 1_000_000)
    assert {"Hidden", "ReadOnly", "Sparse"} <= set(told(path)["FileAttributes"])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o1777)
    assert {"Directory", "Sticky"} <= set(told(tmp_path / "folder")["FileAttributes"])
    (tmp_path / "plain").write_bytes(bytes(5000))
    assert told(tmp_path / "plain")["FileAttributes"] == ()


@pytest.mark.root
def test_an_immutable_file_is_told(told: Told, tmp_path: Path) -> None:
    """As chattr made it."""
    path = tmp_path / "file"
    path.touch()
    if subprocess.run(["chattr", "+i", path], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no such attribute")
    try:
        assert "Immutable" in told(path)["FileAttributes"]
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_odd_bytes_are_surrogates(told: Told, tmp_path: Path) -> None:
    """So that the name can be made of the value again."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xffb"))
    path.touch()
    assert told(path)["FileName"] == ("a\udcffb",)


def test_in_the_topmost_folder(told: Told) -> None:
    """Its folder is a slash."""
    opened = os.open("/", os.O_RDONLY)
    try:
        found = prepare().facts(b"/x", opened, os.fstat(opened), frozenset({"FilePath", "FileName"}))
    finally:
        os.close(opened)
    assert found == {"FilePath": ("/",), "FileName": ("x",)}


def test_only_what_is_asked_is_looked_at(told: Told, tmp_path: Path) -> None:
    """A name costs no question to the kernel."""

    def never(_descriptor: int) -> bytes | None:
        raise AssertionError("the kernel was asked")

    path = tmp_path / "file"
    path.touch()
    asked = frozenset({"FileName", "Modified"})
    assert set(told(path, asked, facts=FileFacts(ask=never))) == asked


def test_where_the_kernel_does_not_answer(told: Told, tmp_path: Path) -> None:
    """When it was made is not known; the attributes that the mode tells are."""
    path = tmp_path / ".file"
    path.touch(mode=0o755)
    found = told(path, frozenset({"Created", "FileAttributes"}), facts=FileFacts(ask=lambda _descriptor: None))
    assert found == {"FileAttributes": ("Hidden", "Executable")}


def test_without_account_files(tmp_path: Path) -> None:
    """No name is known, and nothing is raised; a pipe in the place of one holds nobody up."""
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    found = prepare(tmp_path)
    assert (found.users, found.groups) == ({}, {})


def test_the_child_starts_without_pydantic() -> None:
    """It would take longer to import than many a scan takes."""
    program = f"import sys, {module.__name__}; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_is_content_is_told_apart() -> None:
    """All terms that only a regular file can have, and no others."""
    elf = {one for one in ALL if one.startswith("ELFInfo/")}
    assert of_content(DOCUMENTS["FileItem"]) == OF_CONTENT | elf


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_held_without_being_opened_has_facts(root: Path, tmp_path: Path, kind: str) -> None:
    """Of a link its own; nothing of a program."""
    path = tmp_path / kind
    {"link": lambda: path.symlink_to("/bin/sh"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    held = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        found = prepare(root).facts(os.fsencode(path), held, os.fstat(held), ALL)
    finally:
        os.close(held)
    assert not any(one.startswith("ELFInfo/") for one in found)
    assert found["INode"] == (path.lstat().st_ino,)
    words = {"link": {"SymbolicLink"}, "pipe": set(), "folder": {"Directory"}}[kind]
    assert {"SymbolicLink", "Directory"} & set(found["FileAttributes"]) == words
