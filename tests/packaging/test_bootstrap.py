"""Set-up on a fresh machine: what it installs, what it says when it cannot, and that it is instant afterwards."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.source import ROOT

TOOLS = ("sh", "cat", "chmod", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "sha256sum", "tail")
FILES = ("packaging/setup/bootstrap", "requirements/dev.txt", "pyproject.toml")

GOOD_PYTHON = """
case "$*" in
    *--version*) echo Python 3.12.1 ;;
    *venv\\ --clear*) mkdir -p .venv/bin && cat "$0" >.venv/bin/python && chmod +x .venv/bin/python ;;
    *pip\\ --version*) [ -x .venv/bin/python ] ;;
esac
"""
OLD_PYTHON = 'case "$*" in --version) echo Python 3.9.2 ;; *) exit 1 ;; esac'
BARE_PYTHON = 'case "$*" in *ensurepip*) exit 1 ;; --version) echo Python 3.12.1 ;; esac'


@dataclass
class Machine:
    """A checkout, and a PATH on which each program is ours and writes down how it was called."""

    home: Path

    @property
    def checkout(self) -> Path:
        """Where the checkout is."""
        return self.home / "checkout"

    def program(self, name: str, script: str = "") -> None:
        """A program of this machine."""
        path = self.home / "bin" / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.home}/calls\n{script}\n', encoding="utf-8")
        path.chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the set-up."""
        env = {"PATH": str(self.home / "bin"), **environment}
        command = [str(self.checkout / "packaging" / "setup" / "bootstrap")]
        return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False)

    def calls(self) -> list[str]:
        """How programs were called so far."""
        path = self.home / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith("id ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An ordinary account on a machine with a good Python, apt-get, and everything that Debian should have."""
    made = Machine(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in FILES:
        (made.checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, made.checkout / name)
    for name in TOOLS:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    made.program("id", "echo 1000")
    made.program("apt-get")
    made.program("python3", GOOD_PYTHON)
    (made.checkout / "packaging/setup/debian.txt").write_text("# comment\n\nsh dash why\n", encoding="utf-8")
    return made


def lacking(machine: Machine) -> None:
    """Let one program of the list be missing."""
    (machine.checkout / "packaging/setup/debian.txt").write_text("not-there some-package why\n", encoding="utf-8")


def test_locked_packages_are_installed_with_hashes(machine: Machine) -> None:
    """The environment is made, and pip installs the lock file and then the project, nothing else."""
    ended = machine.setup()
    assert ended.returncode == 0, ended.stderr
    installs = [line.partition(" install ")[2] for line in machine.calls() if " install " in line]
    assert installs == [
        "--require-hashes --no-deps -r requirements/dev.txt",
        "--no-build-isolation --no-deps --editable .",
    ]


def test_the_second_run_does_nothing(machine: Machine) -> None:
    """An unchanged checkout is ready at once; a changed lock file is installed."""
    machine.setup()
    (machine.home / "calls").unlink()
    assert machine.setup().stderr == ""
    assert not [line for line in machine.calls() if "install" in line]
    with (machine.checkout / "requirements/dev.txt").open("a", encoding="utf-8") as lock:
        lock.write("# another\n")
    machine.setup()
    assert [line for line in machine.calls() if "install" in line]


def test_an_interrupted_run_starts_again(machine: Machine) -> None:
    """Packages that could not be installed are tried again the next time, and the reason is shown."""
    machine.program("python3", GOOD_PYTHON + '\ncase "$*" in *install*) echo no route to index; exit 1 ;; esac')
    ended = machine.setup()
    assert ended.returncode == 1
    assert "no route to index" in ended.stderr
    assert "Is the package index reachable" in ended.stderr
    assert machine.setup().returncode == 1


def test_root_gets_what_is_missing(machine: Machine) -> None:
    """As root, the missing Debian packages are installed, and only those."""
    machine.program("id", "echo 0")
    lacking(machine)
    assert machine.setup().returncode == 0
    assert [line for line in machine.calls() if line.startswith("apt-get")] == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends some-package",
    ]


def test_a_failing_apt_is_shown(machine: Machine) -> None:
    """If apt-get fails, its own words and what to do are shown."""
    machine.program("id", "echo 0")
    machine.program("apt-get", "echo E: no space left; exit 100")
    lacking(machine)
    ended = machine.setup()
    assert ended.returncode == 1
    assert "E: no space left" in ended.stderr
    assert "some-package" in ended.stderr


def test_others_are_told_what_is_missing(machine: Machine) -> None:
    """Without root, set-up goes on and says what is left out and how to get it."""
    lacking(machine)
    ended = machine.setup()
    assert ended.returncode == 0
    assert "sudo apt-get install some-package" in ended.stderr
    assert not [line for line in machine.calls() if line.startswith("apt-get")]


def test_nothing_is_installed_when_all_is_there(machine: Machine) -> None:
    """As root, a complete machine is left alone."""
    machine.program("id", "echo 0")
    machine.setup()
    assert not [line for line in machine.calls() if line.startswith("apt-get")]


def test_an_old_python_is_refused(machine: Machine) -> None:
    """The error says what was found and what is needed."""
    machine.program("python3", OLD_PYTHON)
    ended = machine.setup()
    assert ended.returncode == 1
    assert "3.11 or newer is needed (got: Python 3.9.2)" in ended.stderr


def test_a_newer_python_beside_an_old_one_is_found(machine: Machine) -> None:
    """Where python3 is old, python3.12 will do."""
    machine.program("python3", OLD_PYTHON)
    machine.program("python3.12", GOOD_PYTHON)
    assert machine.setup().returncode == 0


def test_a_named_python_is_used(machine: Machine) -> None:
    """PYTHON says which one."""
    machine.program("mine", GOOD_PYTHON)
    assert machine.setup(PYTHON="mine").returncode == 0
    assert "mine -m venv --clear .venv" in machine.calls()


def test_a_python_without_venv_says_what_to_install(machine: Machine) -> None:
    """Debian's python3 has no venv until python3-venv is there."""
    machine.program("python3", BARE_PYTHON)
    ended = machine.setup()
    assert ended.returncode == 1
    assert "sudo apt-get install python3-venv" in ended.stderr
    machine.program("id", "echo 0")
    machine.setup()
    assert "apt-get install -y -qq --no-install-recommends python3-venv" in machine.calls()
