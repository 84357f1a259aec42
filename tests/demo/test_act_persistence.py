"""The act of the responder's other hand believes only the endpoint's process table and its crontab."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stanch.core.rest_evidence import EvidenceView
from stanch.demo import act_persistence as module
from stanch.demo.act_persistence import CHILDREN, CRONTAB, REPORT, Persistence
from stanch.demo.report import NotSeen
from stanch.demo.stage import STOLEN
from tests.demo.acting import Answered, Witness, ordered, scene_of

ID = "0123456789abcdef"


class Machine:
    """An endpoint in a folder; what commands do to it is a lie, or not."""

    def __init__(self, root: Path, *, honest: bool) -> None:
        self.root, self.honest = root, honest
        self.living: tuple[int, ...] = ()
        self.path(REPORT).parent.mkdir(parents=True)
        self.path(REPORT).write_text(STOLEN)

    def path(self, path: str) -> Path:
        """Past the agent."""
        return self.root / path.lstrip("/")

    def running(self, _word: str) -> tuple[int, ...]:
        """The process table."""
        return self.living

    def start_cron(self, _crontab: str) -> None:
        """Something reads the crontab."""
        self.appear(100)

    def appear(self, first: int) -> None:
        """A tree is there, its root first."""
        self.living = tuple(range(first, first + CHILDREN + 1))
        for pid in self.living:
            self.path(f"/proc/{pid}").mkdir(parents=True, exist_ok=True)
            self.path(f"/proc/{pid}/comm").write_text("updater\n" if pid == first else "updater-child\n")

    def run(self, *argv: str) -> None:
        """One is killed by hand, and replaced."""
        assert argv[:2] == ("kill", "-9")
        self.living = (*(pid for pid in self.living if pid != int(argv[2])), 999)

    def disable(self) -> None:
        """The line becomes a comment, if it is honest; another one does, if not."""
        lines = self.path(CRONTAB).read_text().splitlines()
        at = 1 if self.honest else 2
        lines[at] = f"# stanch-disabled tsk_1: {lines[at]}"
        self.path(CRONTAB).write_text("\n".join(lines) + "\n")

    def enable(self) -> None:
        """The line comes back, and cron starts what it says."""
        lines = [one.removeprefix("# stanch-disabled tsk_1: ") for one in self.path(CRONTAB).read_text().splitlines()]
        self.path(CRONTAB).write_text("\n".join(lines) + "\n")
        self.appear(2000)

    def kill(self) -> None:
        """All of it ends, if it is honest."""
        if self.honest:
            self.living = ()


class Commands(Answered):
    """Commands that do something to the machine before they are answered."""

    def stanch(self, *arguments: str, say: str = "") -> Any:
        """Do it, and answer."""
        machine = self.places["machine"]
        does = {"disable-autorun": "disable", "enable-autorun": "enable", "kill-process": "kill"}
        if arguments[0] in does:
            getattr(machine, does[arguments[0]])()
        if arguments[:2] == ("evidence", "get"):
            Path(arguments[-1]).write_bytes(self.places["copy"])
            return {}
        return super().stanch(*arguments, say=say)


def act(tmp_path: Path, *, honest: bool = True, copy: bytes = STOLEN.encode(), **result: Any) -> Persistence:
    machine = Machine(tmp_path / "root", honest=honest)
    lab = SimpleNamespace(endpoint=machine, folder=tmp_path)
    persistence = Persistence(scene_of(Witness(), lab=lab, start_cron=machine.start_cron))
    view = EvidenceView(
        id="evd_1", task="tsk_1", endpoint="end_1", name=REPORT, size=1, sha256="0" * 64, complete=True, received=1,
        created="2026-11-24T12:00:00Z",
    )  # fmt: skip
    ran = {"exit": {"code": 0}, "stdout": {"text": STOLEN, "written": len(STOLEN)}}
    found = {"id": ID, "path": CRONTAB, "line": 2, "user": "root", "enabled": True, "package": "", **result}
    answers = {
        "machine": machine,
        "copy": copy,
        "run-process": [ordered("run_process", ran)],
        "get-file": [ordered("get_file", {})],
        "evidence": [[json.loads(view.model_dump_json())]],
        "list-autoruns": [ordered("list_autoruns", {"autoruns": [found]})],
        "disable-autorun": [ordered("disable_autorun", {})],
        "kill-process": [ordered("kill_process", {"processes": [{}] * (CHILDREN + 1)})],
        "enable-autorun": [ordered("enable_autorun", {})],
    }
    persistence._responder = Commands((), Path("/"), answers)  # type: ignore[arg-type]
    return persistence


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come is not waited for."""
    monkeypatch.setattr(module, "DEAD_SECONDS", 0.01)
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)


def told(persistence: Persistence) -> dict[str, str]:
    chapters = [*persistence.chapters_of_the_attack(), *persistence.chapters_to_clean()]
    return {name: do() for name, do in chapters}


def test_honest_work_is_told(tmp_path: Path) -> None:
    """Run, fetched, ended, disabled, enabled as it was, ended again."""
    said = told(act(tmp_path))
    assert "ended with 0" in said["run-process"]
    assert f"{len(STOLEN)} bytes" in said["fetch-what-it-wrote"]
    assert f"{CHILDREN + 1} processes ended" in said["kill-respawning-tree"]
    assert "byte for byte" in said["enable-autorun"]


def test_another_file_is_seen(tmp_path: Path) -> None:
    """What was fetched is compared with what the endpoint has."""
    with pytest.raises(NotSeen, match="another one"):
        told(act(tmp_path, copy=b"something else"))


def test_another_line_is_seen(tmp_path: Path) -> None:
    """A report that the line is disabled is not believed."""
    with pytest.raises(NotSeen, match="crontab"):
        told(act(tmp_path, honest=False))


def test_a_tree_that_lives_is_seen(tmp_path: Path) -> None:
    """The process table is asked, not the report."""
    persistence = act(tmp_path, honest=False)
    persistence.persistence()
    with pytest.raises(NotSeen, match="still runs"):
        persistence.kill_tree()


def test_a_list_that_tells_something_else_is_seen(tmp_path: Path) -> None:
    """A line of no package is not one of a package."""
    with pytest.raises(NotSeen, match="something else"):
        told(act(tmp_path, package="cron"))
