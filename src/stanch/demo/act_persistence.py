"""The act of the responder's other hand: a utility runs, and a tree that comes back is ended, with what brings it back.

What "ended" means is read from the endpoint's own process table, what "disabled" means from the file that cron reads.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stanch.core.rest_evidence import EvidenceView
from stanch.demo.lab import HOSTNAME
from stanch.demo.program import wait_until
from stanch.demo.report import expect
from stanch.demo.scene import WAIT_SECONDS, Chapter, Scene
from stanch.demo.stage import STOLEN

CRONTAB = "/var/spool/cron/crontabs/root"
REPORT = "/tmp/found.txt"  # noqa: S108 - on the endpoint's own file system
TREE = "--children"
"""Tells the processes of the tree from all others."""

CHILDREN = 40
DEAD_SECONDS = 2.0
"""Ten rounds of the demo's cron, and a hundred of the tree itself."""

_FIND = "/usr/bin/find"


class Persistence:
    """Run, fetch, kill, disable, enable."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._stage, self._responder = scene, scene.stage, scene.responder
        self._line = ""
        self._autorun = ""

    def chapters_of_the_attack(self) -> Iterator[Chapter]:
        """In order, until the tree runs."""
        yield "run-process", self.run_process
        yield "fetch-what-it-wrote", self.fetch
        yield "persistence", self.persistence

    def chapters_to_clean(self) -> Iterator[Chapter]:
        """In order, until nothing of it runs."""
        yield "list-autoruns", self.list_autoruns
        yield "disable-autorun", self.disable_autorun
        yield "kill-respawning-tree", self.kill_tree
        yield "enable-autorun", self.enable_autorun
        yield "end-it-for-good", self.end_it

    def run_process(self) -> str:
        """A utility runs on the endpoint; what it printed and its exit code come back."""
        folder = str(Path(STOLEN).parents[1])
        words = (folder, "-type", "f", "-fprint", REPORT, "-printf", r"%p %s\n")
        arguments = [part for word in words for part in ("--argument", word)]
        task = self._responder.order("run-process", HOSTNAME, "--path", _FIND, *arguments)
        result = task.result or {}
        expect(result["exit"]["code"] == 0, "The utility failed", got=result["exit"])
        printed = result["stdout"]["text"]
        expect(STOLEN in printed, "It printed something else", got=printed[:500], expected=STOLEN)
        return f"{_FIND} ended with 0, printed {result['stdout']['written']} bytes and wrote {REPORT}"

    def fetch(self) -> str:
        """The file that it wrote arrives as the endpoint has it."""
        expected = self._path(REPORT).read_bytes()
        task = self._responder.order("get-file", HOSTNAME, "--path", REPORT)
        (view,) = self._responder.listed(EvidenceView, "evidence", "list", "--task", task.id)
        copy = self._stage.lab.folder / "found.txt"
        self._responder.stanch("evidence", "get", view.id, "--output", str(copy))
        got = copy.read_bytes()
        expect(got == expected, "The file is another one", got=got[:200], expected=expected[:200])
        return f"{len(got)} bytes, as they are on the endpoint; {STOLEN} is in it"

    def persistence(self) -> str:
        """The attack comes back by cron: a tree of processes that replaces whatever of it ends."""
        command = [sys.executable, "-m", "stanch.demo.persistence", TREE, str(CHILDREN)]
        self._line = f"* * * * * {shlex.join(command)}"
        crontab = self._path(CRONTAB)
        crontab.parent.mkdir(parents=True, exist_ok=True)
        crontab.write_text(f"# kept by hand\n{self._line}\n@weekly /usr/bin/true\n")
        crontab.chmod(0o600)
        self._stage.start_cron(CRONTAB)
        self._expect_running()
        victim = self._tree()[-1]
        self._stage.lab.endpoint.run("kill", "-9", str(victim))
        replaced = wait_until(lambda: victim not in self._tree() and len(self._tree()) > CHILDREN, within=WAIT_SECONDS)
        expect(replaced, "It does not replace what ends", got=len(self._tree()), expected=CHILDREN + 1)
        return f"{CHILDREN + 1} processes; one that was killed by hand was replaced at once"

    def list_autoruns(self) -> str:
        """The list names the line that brings it back, and says that no package brought it."""
        task = self._responder.order("list-autoruns", HOSTNAME, "--place", "cron", "--match", "stanch.demo.persistence")
        (found,) = (task.result or {}).get("autoruns", ())
        told = (found["path"], found["enabled"], found["package"])
        expected = (CRONTAB, True, "")
        expect(told == expected, "The list tells something else", got=told, expected=expected)
        self._autorun = found["id"]
        return f"{found['id']}: {CRONTAB} line {found['line']}, as {found['user']}, of no package"

    def disable_autorun(self) -> str:
        """Exactly this line is commented out; the others are as they were."""
        before = self._path(CRONTAB).read_text().splitlines()
        self._responder.order("disable-autorun", HOSTNAME, "--autorun", self._autorun)
        after = self._path(CRONTAB).read_text().splitlines()
        changed = [now for was, now in zip(before, after, strict=True) if was != now]
        right = len(changed) == 1 and changed[0].startswith("#") and changed[0].endswith(self._line)
        expect(right, "Another change was made to the crontab", got=changed, expected=f"# ... {self._line}")
        return f"one line of {len(after)} is a comment now"

    def kill_tree(self) -> str:
        """The whole tree ends at once, and nothing of it comes back."""
        root = self._root()
        task = self._responder.order("kill-process", HOSTNAME, "--pid", str(root))
        self._expect_dead()
        ended = len((task.result or {}).get("processes", ()))
        return f"{ended} processes ended; none of them, and no new one, after {DEAD_SECONDS:g} s of the cron's rounds"

    def enable_autorun(self) -> str:
        """The line is back as it was, and so is what it starts."""
        self._responder.order("enable-autorun", HOSTNAME, "--autorun", self._autorun)
        lines = self._path(CRONTAB).read_text().splitlines()
        expect(lines[1] == self._line, "The line is another one", got=lines[1], expected=self._line)
        self._expect_running()
        return f"the line is as it was, byte for byte, and cron has started {len(self._tree())} processes again"

    def end_it(self) -> str:
        """Disabled and ended once more: this time by the command line that it has."""
        self._responder.order("disable-autorun", HOSTNAME, "--autorun", self._autorun)
        self._responder.order("kill-process", HOSTNAME, "--pid", str(self._root()))
        self._expect_dead()
        return "the endpoint has no process of it any more"

    # --- past the agent ----------------------------------------------------------------------------------------------

    def _tree(self) -> tuple[int, ...]:
        return tuple(sorted(self._stage.lab.endpoint.running(TREE)))

    def _root(self) -> int:
        """The process that cron started: the one whose name is not a child's."""
        return next(pid for pid in self._tree() if self._name(pid) == "updater")

    def _name(self, pid: int) -> str:
        with suppress(OSError):
            return self._path(f"/proc/{pid}/comm").read_text().strip()
        return ""

    def _expect_running(self) -> None:
        wait_until(lambda: len(self._tree()) > CHILDREN, within=WAIT_SECONDS)
        expect(len(self._tree()) > CHILDREN, "The tree does not run", got=len(self._tree()), expected=CHILDREN + 1)

    def _expect_dead(self) -> None:
        came_back = wait_until(lambda: bool(self._tree()), within=DEAD_SECONDS)
        expect(not came_back, "It still runs, or came back", got=len(self._tree()), expected="no process")

    def _path(self, path: str) -> Path:
        return self._stage.lab.endpoint.path(path)
