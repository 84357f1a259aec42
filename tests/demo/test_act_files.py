"""The act of the files believes only what it sees past the agent."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stanch.demo.act_files import SECOND_NAME, Files
from stanch.demo.report import NotSeen
from stanch.demo.stage import AGENT_PLACES, STOLEN
from tests.demo.acting import Answered, Witness, ordered, scene_of

ITEM = "qrt_0123456789abcdef"


class Machine:
    """An endpoint in a folder, whose vault is a folder beside it; what commands do to it is a lie, or not."""

    def __init__(self, root: Path, *, honest: bool) -> None:
        self.root, self.honest = root, honest
        self.aside = root / "aside"
        self.path(STOLEN).parent.mkdir(parents=True)
        self.path(STOLEN).write_bytes(b"stolen" * 100)
        self.vault = self.path(f"{AGENT_PLACES['STANCH_AGENT_STATE']}/vault")
        self.vault.mkdir(parents=True)

    def path(self, path: str) -> Path:
        """Past the agent."""
        return self.root / path.lstrip("/")

    def take(self) -> None:
        """Both names go, as the agent says."""
        if self.honest:
            self.path(STOLEN).rename(self.aside)
            self.path(SECOND_NAME).unlink()
            (self.vault / "a.age").write_bytes(b"sealed")

    def back(self) -> None:
        """Both names come back; to one file, if it is honest."""
        self.aside.rename(self.path(STOLEN))
        os.link(self.path(STOLEN), self.path(SECOND_NAME))


class Commands(Answered):
    """Commands that do something to the machine before they are answered."""

    def stanch(self, *arguments: str, say: str = ""):
        """Do it, and answer."""
        does = {"quarantine": "take", "restore": "back", "delete-file": "take", "order": "back"}
        if arguments[0] in does:
            getattr(self.places["machine"], does[arguments[0]])()
        return super().stanch(*arguments, say=say)


def act(tmp_path: Path, *, honest: bool = True) -> Files:
    machine = Machine(tmp_path, honest=honest)
    scene = scene_of(Witness(), lab=SimpleNamespace(endpoint=machine))
    files = Files(scene)
    sha256 = "0" * 64
    item = {"id": ITEM, "path": STOLEN, "sha256": sha256, "by": ""}
    answers = {
        "machine": machine,
        "quarantine": [ordered("quarantine", {"items": [item]})],
        "quarantine-list": [ordered("quarantine_list", {"items": [item]})],
        "restore": [ordered("restore", {})],
        "delete-file": [ordered("delete_file", {})],
        "order": [ordered("restore", {})],
    }
    files._responder = Commands((), Path("/"), answers)  # type: ignore[arg-type]
    return files


def told(files: Files) -> dict[str, str]:
    return {name: do() for name, do in files.chapters() if name != "quarantine-list"}


def test_honest_work_is_told(tmp_path):
    """Gone under both names, back as it was, twice."""
    said = told(act(tmp_path))
    assert "both names gone" in said["quarantine"]
    assert "2 names as before" in said["restore"]
    assert "undone by restore" in said["delete-and-undo"]


def test_a_file_that_is_still_there_is_seen(tmp_path):
    """A report that nothing of it is left is not believed."""
    with pytest.raises(NotSeen, match="can still be read"):
        told(act(tmp_path, honest=False))


def test_bytes_in_the_clear_are_seen(tmp_path):
    """A vault that holds the file as it was is none."""
    files = act(tmp_path)
    (tmp_path / AGENT_PLACES["STANCH_AGENT_STATE"].lstrip("/") / "vault" / "copy").write_bytes(b"stolen" * 100)
    with pytest.raises(NotSeen, match="in the clear"):
        files.quarantine()


def test_a_file_that_came_back_otherwise_is_seen(tmp_path):
    """One lost setuid bit is enough."""
    files = act(tmp_path)
    files.quarantine()
    (tmp_path / "aside").chmod(0o750)
    with pytest.raises(NotSeen, match="not as it was"):
        files.restore()


def test_a_list_that_tells_something_else_is_seen(tmp_path):
    """The hash in the list is compared with the file's."""
    files = act(tmp_path)
    files.quarantine()
    with pytest.raises(NotSeen, match="something else"):
        files.quarantine_list()
