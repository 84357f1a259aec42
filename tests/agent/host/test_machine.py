"""Is a machine brought down by its own init alone, never from within a container, and is what stands in the way seen?

No test here asks a real init for anything: what would start a program is a recorder, but for one test that calls
reboot(2) as the first process of a pid namespace that was made for it.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.agent.host.machine import FIRST_PID_NAMESPACE, PROGRAMS, LinuxMachine, _end_namespace
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.run import Finished
from stanch.core.errors import ActionFailed, Protected, Unsupported
from stanch.core.machine import Ending

HERE = Namespace.current("pid")


@pytest.fixture(autouse=True)
def no_real_call(monkeypatch):
    """Whatever breaks in the checks, this process cannot bring down the machine that it runs on."""

    def refuse(*_arguments, **_more):
        raise AssertionError("reboot(2) was about to be called")

    monkeypatch.setattr("stanch.agent.host.machine.ctypes.CDLL", refuse)


class Recorder:
    """In the place of what starts programs."""

    def __init__(self, *, returncode=0, stderr=b""):
        self.started = []
        self.ended = Finished(returncode, b"", stderr)

    async def __call__(self, argv):
        self.started.append(tuple(argv))
        return self.ended


class Here(Namespace):
    """A pid namespace with any number, in which the test always is."""

    def check(self):
        """It is the right one."""


def place(inode):
    """A pid namespace."""
    return Here(kind="pid", device=HERE.device, inode=inode)


@pytest.fixture
def machine(tmp_path):
    """A machine that asks a recorder, with this program as its first process."""

    def make(init="systemd", *, start=None, inode=FIRST_PID_NAMESPACE, installed=lambda _name: None, **more):
        (tmp_path / "proc/1/ns").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/1/comm").write_text(f"{init}\n")
        net = tmp_path / "proc/1/ns/net"
        net.unlink(missing_ok=True)
        net.symlink_to(more.pop("net", Path("/proc/self/ns/net").readlink()))
        options = {"user": 0, "start": start or Recorder(), "installed": installed} | more
        return LinuxMachine(namespace=place(inode), root=tmp_path, **options)

    return make


# --- who is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("init", PROGRAMS)
async def test_the_init_of_the_machine_is_asked(machine, init, ending):
    """Each in its own way, once."""
    start = Recorder()
    there = machine(init, start=start)
    assert await there.why_not() is None
    await there.bring_down(ending)
    assert start.started == [tuple(PROGRAMS[init][ending])]


async def test_systemd_may_be_called_init(machine, tmp_path):
    """On some machines its program is a link of that name."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    start = Recorder()
    await machine("init", start=start).bring_down(Ending.SHUTDOWN)
    assert start.started == [("systemctl", "--ignore-inhibitors", "--no-wall", "poweroff")]


@pytest.mark.parametrize("init", ["", "process_api", "bash", "tini"])
async def test_a_program_that_is_no_init_is_not_asked(machine, init):
    """Nobody knows what it would make of it; reboot(2) is no way out."""
    start = Recorder()
    there = machine(init, start=start)
    assert "not known" in (await there.why_not() or "")
    with pytest.raises(Unsupported, match="by hand"):
        await there.bring_down(Ending.REBOOT)
    assert start.started == []


@pytest.mark.parametrize("mark", ["run/systemd/container", ".dockerenv", "run/.containerenv"])
async def test_a_container_is_not_brought_down(machine, tmp_path, mark):
    """Nor is the machine that it runs on, whose pids it may share."""
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).touch()
    assert "container" in (await machine().why_not() or "")
    with pytest.raises(Unsupported, match="container"):
        await machine().bring_down(Ending.REBOOT)


@pytest.mark.parametrize(
    ("more", "says"), [({"user": 1000}, "Only root"), ({"net": "net:[1]"}, "another network namespace")]
)
async def test_an_agent_that_is_only_tried_out_brings_nothing_down(machine, more, says):
    """It has no rights of its own, or a network of its own: it is not the agent of the machine itself."""
    start = Recorder()
    there = machine(start=start, **more)
    assert says in (await there.why_not() or "")
    with pytest.raises(Unsupported, match=says):
        await there.bring_down(Ending.REBOOT)
    assert start.started == []


async def test_another_pid_namespace_is_not_brought_down(machine):
    """What has pid 1 there is some program of a container, whatever it calls itself."""
    there = machine(inode=FIRST_PID_NAMESPACE + 5)
    assert "on the machine that runs the container" in (await there.why_not() or "")
    with pytest.raises(Unsupported):
        await there.bring_down(Ending.REBOOT)


async def test_it_is_bound_to_its_namespace(tmp_path):
    """In another one than it was made for, it does nothing."""
    start = Recorder()
    elsewhere = Namespace(kind="pid", device=HERE.device, inode=HERE.inode + 1)
    there = LinuxMachine(namespace=elsewhere, root=tmp_path, start=start)
    assert "another pid namespace" in (await there.why_not() or "")
    with pytest.raises(Protected):
        await there.bring_down(Ending.REBOOT)
    assert start.started == []


async def test_a_program_that_is_missing_is_told_before(machine):
    """A dry run finds out."""

    def missing(name):
        raise Unsupported(f"The program {name} is not installed")

    assert "systemctl is not installed" in (await machine(installed=missing).why_not() or "")


async def test_what_init_says_is_told(machine):
    """If it refuses, the reason is its own."""
    with pytest.raises(ActionFailed, match="Access denied"):
        await machine(start=Recorder(returncode=1, stderr=b"Access denied\n")).bring_down(Ending.REBOOT)


async def test_each_boot_has_its_name(machine):
    """The same one while this boot lasts."""
    assert await machine().boot_id() == await machine().boot_id() != ""


# --- reboot(2) -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "outside"),
    [
        (FIRST_PID_NAMESPACE, FIRST_PID_NAMESPACE + 1),
        (FIRST_PID_NAMESPACE, FIRST_PID_NAMESPACE),
        (FIRST_PID_NAMESPACE + 1, FIRST_PID_NAMESPACE + 1),
    ],
)
async def test_only_a_namespace_of_its_own_is_ended(machine, own, outside):
    """The machine's first one never, and never the one outside."""
    start = Recorder()
    there = LinuxMachine(namespace=place(own), apart_from=place(outside), start=start)
    assert "would bring the machine down" in (await there.why_not() or "")
    with pytest.raises(Protected):
        await there.bring_down(Ending.REBOOT)


def test_the_call_itself_looks_once_more():
    """Right before it, of the very thread that would make it: here, it is the namespace outside."""
    with pytest.raises(Protected):
        _end_namespace(Ending.REBOOT, outside=HERE)


PROGRAM = """
import asyncio, os, sys
from stanch.agent.host.machine import FIRST_PID_NAMESPACE, LinuxMachine
from stanch.agent.host.namespace import Namespace
from stanch.core.machine import Ending

outside = Namespace(kind="pid", device=int(sys.argv[1]), inode=int(sys.argv[2]))
here = Namespace.current("pid")
if os.getpid() != 1 or here.inode in {outside.inode, FIRST_PID_NAMESPACE}:
    sys.exit(77)
machine = LinuxMachine(namespace=here, apart_from=outside)
assert asyncio.run(machine.why_not()) is None
asyncio.run(machine.bring_down(Ending(sys.argv[3])))
sys.exit(78)
"""


@pytest.mark.root
@pytest.mark.parametrize(("ending", "by"), [(Ending.REBOOT, signal.SIGHUP), (Ending.SHUTDOWN, signal.SIGINT)])
def test_reboot_ends_the_namespace_and_no_machine(ending, by):
    """The kernel ends its first process, and tells the one outside which of the two it was, by the signal."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", PROGRAM]
    arguments = [str(HERE.device), str(HERE.inode), ending]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -by, done.stderr


# --- what stands in the way ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "by"),
    [
        ("var/lib/dpkg/lock", "dpkg"),
        ("var/lib/dpkg/lock-frontend", "apt"),
        ("var/lib/rpm/.rpm.lock", "rpm"),
        ("usr/lib/sysimage/rpm/.rpm.lock", "rpm"),
    ],
)
def test_packages_that_are_being_changed_are_grave(machine, tmp_path, path, by):
    """While another process holds the lock; a file that nobody has locked says nothing."""
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.touch()
    there = machine()
    assert asyncio.run(there.hindrances()) == ()
    holds = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holds, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        (found,) = asyncio.run(there.hindrances())
        # Asking takes no lock of its own: a second look sees the same.
        assert asyncio.run(there.hindrances()) == (found,)
    assert found.grave
    assert by in found.what
    assert asyncio.run(there.hindrances()) == ()


async def test_pacman_says_it_by_a_file(machine, tmp_path):
    """Its lock is there, or it is not."""
    (tmp_path / "var/lib/pacman").mkdir(parents=True)
    (tmp_path / "var/lib/pacman/db.lck").touch()
    (found,) = await machine().hindrances()
    assert "pacman" in found.what


async def test_inhibitors_are_heard(machine, tmp_path):
    """Who blocks a shutdown, and why; a mere delay, and what inhibits something else, do not count."""
    folder = tmp_path / "run/systemd/inhibit"
    folder.mkdir(parents=True)
    (folder / "1").write_text("WHAT=sleep:shutdown\nWHO=backup\nWHY=It runs\nMODE=block\n")
    (folder / "2").write_text("WHAT=shutdown\nWHO=late\nWHY=Later\nMODE=delay\n")
    (folder / "3").write_text("WHAT=sleep\nWHO=film\nWHY=Film\nMODE=block\n")
    os.mkfifo(folder / "1.ref")
    (found,) = await machine().hindrances()
    assert (found.what, found.grave) == ("backup asks not to shut down: It runs", True)


async def test_a_lock_file_that_is_a_link_is_not_followed(machine, tmp_path):
    """Nor does a pipe make anybody wait."""
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/lock").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "var/lib/dpkg/lock-frontend")
    async with asyncio.timeout(5):
        assert await machine().hindrances() == ()
