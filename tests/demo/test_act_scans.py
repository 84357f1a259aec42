"""The act of the scans believes only what it planted itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stanch.core.ioc.openioc import read_openioc
from stanch.demo import act_scans as module
from stanch.demo.act_scans import CONTENT, IMPLANT, Scans, indicator
from stanch.demo.report import NotSeen
from tests.demo.acting import Answered, Witness, ordered, scene_of


class Commands(Answered):
    """The malware scan takes the implant away before it is answered."""

    def stanch(self, *arguments: str, say: str = "") -> Any:
        """Do it, and answer."""
        if arguments[0] == "malware-scan":
            for path in self.places["taken"]:
                self.places["path"](path).unlink()
        return super().stanch(*arguments, say=say)


def finding(rule: str, path: str) -> dict[str, Any]:
    return {"rule": rule, "objects": [{"path": path}], "why": [{"text": "$mark at 4"}]}


def act(tmp_path: Path, *, taken: tuple[str, ...] = (IMPLANT,), **results: Any) -> Scans:
    """The act on an endpoint in a folder, whose scans find what the test says."""

    def path(one: str) -> Path:
        return tmp_path / "root" / one.lstrip("/")

    lab = SimpleNamespace(endpoint=SimpleNamespace(path=path), folder=tmp_path)
    scans = Scans(scene_of(Witness(), lab=lab))
    found = {
        "update_content": {},
        "list_content": {"content": [{"name": "stanch-base"}, {"name": CONTENT}]},
        "yara_scan": {"complete": True, "findings": [finding("demo_implant", IMPLANT)]},
        "ioc_scan": {
            "complete": True,
            "findings": [finding("the-implant", IMPLANT), finding("the-process", "/usr/bin/python3")],
        },
        "malware_scan": {"removed": [{"path": IMPLANT}]},
        **results,
    }
    answers = {name.replace("_", "-"): [ordered(name, result)] for name, result in found.items()}
    places = {"taken": taken, "path": path, "content": [{}], **answers}
    scans._responder = Commands((), Path("/"), places)  # type: ignore[arg-type]
    return scans


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come is not waited for."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)


def told(scans: Scans) -> dict[str, str]:
    return {name: do() for name, do in scans.chapters()}


def test_honest_scans_are_told(tmp_path: Path) -> None:
    """Published, found by rule and by indicator, put away."""
    said = told(act(tmp_path))
    assert list(said) == ["publish-rules", "yara-scan", "ioc-scan", "malware-scan"]
    assert IMPLANT in said["malware-scan"]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"list_content": {"content": []}}, "does not have the rules"),
        ({"yara_scan": {"complete": True, "findings": []}}, "something else"),
        ({"yara_scan": {"complete": False, "findings": []}}, "look everywhere"),
        ({"ioc_scan": {"complete": True, "findings": [finding("two-files", IMPLANT)]}}, "Other indicators"),
        ({"malware_scan": {"removed": []}}, "Other files were taken"),
    ],
)
def test_scans_that_find_something_else_are_seen(tmp_path: Path, result: dict[str, Any], words: str) -> None:
    """Too little, too much and half a scan end the story."""
    with pytest.raises(NotSeen, match=words):
        told(act(tmp_path, **result))


def test_a_file_that_is_still_there_is_seen(tmp_path: Path) -> None:
    """What is said to be taken away, and lies where it was, ends the story."""
    with pytest.raises(NotSeen, match="Other files are left"):
        told(act(tmp_path, taken=()))


def test_its_indicators_are_readable() -> None:
    """What the demo writes is OpenIOC 1.1 as our own reader has it."""
    read = read_openioc(indicator("x", ("FileItem", "FileName", "is", "string", "a")).encode())
    assert (read.id, read.format) == ("x", "OpenIOC 1.1")
