"""`stanch ioc check`."""

import os
import subprocess
import sys

import pytest

from stanch.cli import ioc as module
from tests.core.ioc.openioc_files import OR, file_10, file_11
from tests.core.ioc.test_stix import bundled, indicator


@pytest.fixture
def write(tmp_path):
    """Puts a file here."""

    def put(name: str, data: bytes) -> str:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return name

    return put


def test_a_wrong_file(run, write):
    """Is named with line, got and expected; the others are explained; the exit code is that of invalid input."""
    wrong = write("wrong.ioc", file_11(OR.replace("OR", "XOR")))
    ended = run("ioc", "check", wrong, write("right.ioc", file_10(OR)))
    assert ended.code == 2
    assert ended.err == ("error[invalid]: wrong.ioc: The operator is unknown, at line 3, got XOR, expected AND or OR\n")
    assert "format:   OpenIOC 1.0" in ended.out
    assert ended.out.endswith("2 files, 1 wrong: 1 indicators, 1 terms, 0 unknown.\n")


def test_folders_are_searched(run, write, tmp_path):
    """For names of indicators, in order; links to folders are not followed, and no file is read twice."""
    write("some/b/two.XML", file_11(OR, key="i-2"))
    write("some/a/one.ioc", file_11(OR))
    write("some/c.json", bundled(indicator()))
    write("some/readme.txt", b"x")
    (tmp_path / "some" / "again").symlink_to(tmp_path / "some")
    found = run("ioc", "check", "some", "some/c.json", "--json").json
    assert [one["file"] for one in found["files"]] == ["some/c.json", "some/a/one.ioc", "some/b/two.XML"]


def test_a_folder_that_cannot_be_read_is_told(run, write, monkeypatch):
    """Among others that can be: nobody should think that its files were checked."""
    write("some/one.ioc", file_11(OR))
    write("some/closed/two.ioc", file_11(OR))
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    ended = run("ioc", "check", "some", "--json")
    assert [(one["file"], one["error"] is None) for one in ended.json["files"]] == [
        ("some/one.ioc", True),
        ("some/closed", False),
    ]
    assert ended.code == 2


def test_a_folder_without_indicators(run, tmp_path):
    """Is probably not what was meant."""
    (tmp_path / "empty").mkdir()
    ended = run("ioc", "check", "empty")
    assert ended.code == 2
    assert "error[invalid]: There are no indicators" in ended.err


def test_too_many_files(run, write, monkeypatch):
    """Are refused before they are read."""
    monkeypatch.setattr(module, "MAX_FILES", 1)
    ended = run("ioc", "check", write("a.ioc", file_11(OR)), write("b.ioc", file_11(OR)))
    assert (ended.code, ended.out) == (2, "")
    assert "too many files" in ended.err


def test_no_such_file(run):
    """The command line's own error."""
    assert run("ioc", "check", "nowhere.ioc").code == 2


def test_a_pipe_is_not_waited_for(run, tmp_path):
    """Nor is a device read."""
    os.mkfifo(tmp_path / "pipe.ioc")
    ended = run("ioc", "check", "pipe.ioc", "/dev/zero")
    assert ended.code == 2
    assert ended.err.count("This is no file") == 2


@pytest.mark.shared
def test_the_files_of_the_field(run, shared_data):
    """All of them are explained, and none is wrong."""
    ended = run("ioc", "check", str(shared_data / "openioc"))
    assert ended.code == 0
    assert "68 files, 0 wrong: 68 indicators, 1533 terms" in ended.out


def test_reading_needs_no_heavy_library():
    """The scanner's worker reads indicators, and starts for each scan."""
    code = (
        "import sys; from stanch.core.ioc.formats import read_indicators; "
        "print([one for one in ('pydantic', 'antlr4', 'stix2patterns', 'click') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
