"""The demo's persistence comes back as an attacker's does, inside a pid namespace that ends it for good."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.demo import persistence as module
from stanch.demo.persistence import Tree, commands
from tests.fakes.waiting import wait_until

CHILDREN = 5
TREE = ["-m", "stanch.demo.persistence", "--children", str(CHILDREN)]


def test_what_a_crontab_says(tmp_path: Path) -> None:
    """Comments, empty lines and lines without a command are none."""
    crontab = tmp_path / "root"
    crontab.write_text("# a comment\n\n* * * * * /bin/one 'two three'\nSHELL=/bin/sh\n #* * * * * /bin/no\n")
    assert list(commands(crontab)) == [["/bin/one", "two three"]]
    assert list(commands(tmp_path / "none")) == []


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is done to it, it ends by itself at some time."""
    monkeypatch.setattr(module, "MOST_FORKS", 0)
    with pytest.raises(SystemExit):
        Tree(1)._fork(lambda: pytest.fail("nobody is started"))


class Cage:
    """A pid namespace with something in it."""

    def __init__(self, keeper: int) -> None:
        self._keeper = keeper

    @property
    def processes(self) -> dict[int, str]:
        """Pid inside to name, of what runs the tree."""
        init = int(Path(f"/proc/{self._keeper}/task/{self._keeper}/children").read_text().split()[0])
        found = {}
        for one in Path(f"/proc/{init}/root/proc").iterdir():
            if one.name.isdecimal():
                try:
                    words = (one / "cmdline").read_bytes().split(b"\0")
                    if b"--children" in words:
                        found[int(one.name)] = (one / "comm").read_text().strip()
                except OSError:
                    continue
        return found

    def kill(self, pid: int) -> None:
        """From inside."""
        subprocess.run(
            ["nsenter", f"--target={self._keeper}", "--pid=" + f"/proc/{self._keeper}/ns/pid_for_children", "--mount",
             "kill", "-9", str(pid)], check=True, timeout=30,
        )  # fmt: skip


@contextmanager
def caged(*command: str) -> Iterator[Cage]:
    """Run it in a pid namespace; all of it ends with the block."""
    program = subprocess.Popen(
        ["unshare", "--fork", "--pid", "--mount", "--mount-proc", "--kill-child", sys.executable, *command],
        stdout=subprocess.DEVNULL,
    )
    try:
        cage = Cage(program.pid)
        wait_until(lambda: Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split())
        yield cage
    finally:
        program.kill()
        program.wait()


@pytest.mark.root
def test_cron_keeps_a_tree_alive_that_replaces_what_ends(tmp_path: Path) -> None:
    """A child is replaced by the root, the root by its children; and without its line, cron starts no other."""
    crontab = tmp_path / "root"
    crontab.write_text(f"* * * * * {sys.executable} {' '.join(TREE)}\n")
    with caged("-m", "stanch.demo.persistence", "--crontab", str(crontab)) as cage:
        wait_until(lambda: len(cage.processes) > CHILDREN)
        child = next(pid for pid, name in cage.processes.items() if name == "updater-child")
        cage.kill(child)
        wait_until(lambda: child not in cage.processes and len(cage.processes) > CHILDREN)
        root = next(pid for pid, name in cage.processes.items() if name == "updater")
        cage.kill(root)
        wait_until(lambda: root not in cage.processes and "updater" in cage.processes.values())
