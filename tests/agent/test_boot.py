"""The boot program: it cuts the network before any agent runs, from what is on the disk alone."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
import structlog

from stanch.agent import boot
from stanch.agent.host.clock import boot_seconds
from stanch.agent.host.namespace import Namespace
from stanch.agent.identity import Binding
from stanch.agent.marker import mark_isolated
from stanch.agent.restore import Restoration
from stanch.agent.supervisor import LOCK_FILE, locked
from stanch.core.exclusion import Opening
from stanch.core.network import Block, IsolationState
from stanch.core.types import hours, seconds
from tests.agent.host.world import BEACON_PORT, SERVER_PORT, Tap, World, fence, new_world, send_raw, send_udp
from tests.agent.host.world import packet as beacon
from tests.fakes.waiting import wait_until
from tests.fakes.written import Written
from tests.netns import Netns, wire

NEXT_BOOT = "11111111-2222-3333-4444-555555555555"
REBOOT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(state=tmp_path / "state")


@pytest.fixture(autouse=True)
def _logging_of_others() -> Iterator[None]:
    """The program, which is alone in its process, silences what other parts log."""
    yield
    structlog.reset_defaults()


# --- without a firewall ----------------------------------------------------------------------------------------------


def line_of(capsys) -> dict[str, object]:
    """The one line that it said."""
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_a_machine_without_an_agent_has_nothing_to_restore(tmp_path, capsys):
    """Nothing is made there either."""
    assert boot.main(["--state", str(tmp_path / "none")]) == 0
    assert line_of(capsys)["event"] == "nothing"
    assert boot.main(["--dry-run", "--state", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == "Nothing to restore: no agent has ever run here\n"
    assert not (tmp_path / "none").exists()


async def test_a_running_agent_is_left_alone(written, capsys):
    """Its supervisor holds the state folder: what the agent lifts meanwhile must not be put back."""
    await written.isolation({})
    with locked(written.state):
        assert boot.main(["--state", str(written.state)]) == 0
    assert line_of(capsys)["event"] == "agent-runs"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_does_not_hold_up_the_boot(tmp_path, capsys, make):
    """Nobody reads from it, for ever; it is told as a journal that is gone."""
    make(tmp_path / "journal.db")
    assert boot.main(["--state", str(tmp_path)]) == 1
    assert "journal is gone" in capsys.readouterr().err
    (tmp_path / "isolated").touch()
    assert boot.main(["--dry-run", "--state", str(tmp_path)]) == boot.EXIT_LOOK


async def test_a_damaged_journal_is_told_to_people_and_programs(written, capsys):
    """Nobody can tell whether anything was in force: the boot must not look as if all were well."""
    await written.nothing()
    written.spoil()
    assert boot.main(["--state", str(written.state)]) == boot.EXIT_FAILED
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["event"], told["code"]) == ("nothing", boot.EXIT_FAILED)
    assert told["failure"] in said.err


async def test_a_dry_run_tells_and_changes_nothing(written, capsys):
    """Not even the lock of the state folder is taken."""
    await written.isolation({"servers": [], "allow": []}, lasts=hours(9000))
    await written.block(ip_network("198.51.100.0/24"), lasts=None)
    assert boot.main(["--dry-run", "--state", str(written.state)]) == 0
    said = capsys.readouterr().out
    assert "Isolate" in said
    assert "Block to 198.51.100.0/24 for ever" in said
    assert not (written.state / LOCK_FILE).exists()


async def test_a_dry_run_has_the_same_exit_code(written, capsys):
    """A script that asks beforehand gets the answer that the boot would get."""
    await written.nothing()
    written.spoil()
    assert boot.main(["--dry-run", "--state", str(written.state)]) == boot.EXIT_FAILED
    mark_isolated(written.state)
    assert boot.main(["--dry-run", "--state", str(written.state)]) == boot.EXIT_LOOK
    assert "Isolate for 5:00:00: the remembered server" in capsys.readouterr().out


async def test_a_shutdown_without_an_agent_is_remembered(written, capsys):
    """Where an agent runs, or nothing was in force, nothing is written."""
    line = ["--remember", "--state", str(written.state)]
    await written.nothing()
    assert boot.main(line) == 0
    assert line_of(capsys)["event"] == "nothing"
    await written.isolation({})
    with locked(written.state):
        assert boot.main(line) == 0
    assert line_of(capsys)["event"] == "agent-runs"
    assert boot.main(line) == 0
    assert line_of(capsys)["deadlines"] == 1
    await written.nothing()
    written.spoil()
    assert boot.main(line) == boot.EXIT_FAILED


def test_the_plan_names_each_block():
    """Ways and times are told in words."""
    network = ip_network("10.0.0.0/8")
    ways = [
        (Block(network=network), "Block from and to 10.0.0.0/8 for ever"),
        (Block(network=network, outward=False, remaining=seconds(90.4)), "Block from 10.0.0.0/8 for 0:01:30"),
        (Block(network=network, inward=False), "Block to 10.0.0.0/8 for ever"),
    ]
    assert boot.plan(Restoration(blocks=tuple(one for one, _ in ways))) == [line for _, line in ways]
    assert boot.plan(Restoration()) == ["Nothing to restore"]


def test_help_shows_how(capsys):
    """Examples included."""
    with pytest.raises(SystemExit):
        boot.main(["--help"])
    assert "stanch-boot --dry-run" in capsys.readouterr().out


async def test_most_boots_import_next_to_nothing(written):
    """Where nothing was in force, or the agent runs, no library is loaded to find that out."""
    program = "import sys; from stanch.agent import boot; boot.main(sys.argv[1:]); print(*sys.modules)"

    def imported() -> str:
        line = [sys.executable, "-I", "-c", program, "--state", str(written.state)]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout

    await written.nothing()
    quiet = imported()
    await written.isolation({})
    with locked(written.state):
        busy = imported()
    assert "nothing was in force" in quiet
    assert "agent-runs" in busy
    assert not {"pydantic", "structlog", "asyncio", "joserfc"} & {*quiet.split(), *busy.split()}


# --- a reboot --------------------------------------------------------------------------------------------------------


@dataclass
class Machine:
    """A machine that has just been switched on: its network is there, no agent runs."""

    world: World
    written: Written
    boot_file: Path

    def boots(self, *, age: float = 5.0, where: Netns | None = None) -> tuple[int, dict[str, object]]:
        """Run it `age` seconds after the start of the next boot, with the unit's one capability; code and line."""
        spaces = ("unshare", "--mount", "--time", f"--boottime={int(age - boot_seconds())}", "--fork", "--kill-child")
        confined = ("setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+net_admin")
        argv = ("sh", "-c", REBOOT, str(self.boot_file), *confined, sys.executable, "-I", "-m", "stanch.agent.boot")
        ended = (where or self.world.endpoint).call(
            lambda: subprocess.run(
                [*spaces, *argv, "--state", str(self.written.state)],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        )
        assert ended.stdout, ended.stderr
        return ended.returncode, json.loads(ended.stdout)

    def sends(self) -> None:
        """Try to get something out: UDP of both versions, and a frame of a packet socket."""
        for address in (self.world.out.right4, self.world.out.right6):
            send_udp(self.world.endpoint, address)
        send_raw(self.world.endpoint, self.world.out.device, beacon(self.world.out.right4))

    def ruleset(self) -> str:
        return self.world.endpoint.command("nft list ruleset")


@pytest.fixture
def machine(tmp_path: Path, written: Written) -> Iterator[Machine]:
    """Its identity was made in other namespaces, in another boot."""
    (tmp_path / "boot_id").write_text(f"{NEXT_BOOT}\n")
    with new_world() as world:
        pid = Namespace.current("pid").inode
        written.enrol(Binding(boot_id=written.boot_id, net=1, pid=pid), f"https://{world.out.right4}:{SERVER_PORT}")
        yield Machine(world, written, tmp_path / "boot_id")


def cut_off(machine: Machine) -> bool:
    """Does nothing get out that is not the server's? The server answers, or this fails."""
    tap = Tap(machine.world.outside, machine.world.out.device)
    machine.sends()
    fence(machine.world)
    return not tap.leaks()


@pytest.mark.root
async def test_traffic_is_cut_before_any_agent_runs(machine):
    """Frames of packet sockets too; the server stays reachable; the kernel knows what is left of the time."""
    assert not cut_off(machine)
    await machine.written.isolation(machine.world.rules, lasts=hours(1))
    code, said = machine.boots(age=100.0)
    assert (code, said["event"], said["isolated"], said["failure"]) == (0, "restored", True, None)
    assert cut_off(machine)
    state = machine.world.state()
    assert state.state is IsolationState.ISOLATED
    assert state.rules == machine.world.rules
    assert hours(1) - seconds(115) < state.remaining <= hours(1) - seconds(99)


@pytest.mark.root
async def test_the_kernel_lifts_what_was_restored(machine):
    """Nobody else is there to do it: no agent, no program."""
    await machine.written.isolation(machine.world.rules, lasts=seconds(8))
    assert machine.boots(age=3.0)[0] == 0
    assert cut_off(machine)
    wait_until(lambda: not cut_off(machine))


@pytest.mark.root
async def test_it_may_run_again(machine):
    """A device that has appeared since is covered then, and the deadline stays what it was."""
    await machine.written.isolation(machine.world.rules, lasts=hours(1))
    assert machine.boots()[0] == 0
    late = wire(machine.world.endpoint, machine.world.outside, 3)
    tap = Tap(machine.world.outside, late.device)
    assert machine.boots(age=60.0)[0] == 0
    send_raw(machine.world.endpoint, late.device, beacon(late.right4))
    fence(machine.world)
    assert not tap.leaks()
    assert machine.world.state().remaining <= hours(1) - seconds(59)


@pytest.mark.root
async def test_a_unit_that_does_not_run_yet_prevents_nothing(machine):
    """Its opening stays shut, and is told."""
    opening = Opening(network=ip_network("0.0.0.0/0"), cgroup="system.slice/no-such-unit.service")
    rules = machine.world.rules
    await machine.written.isolation(type(rules)(servers=rules.servers, allow=(opening,)), lasts=hours(1))
    code, said = machine.boots()
    assert code == 0
    assert "no-such-unit" in said["remarks"][0]
    assert cut_off(machine)


@pytest.mark.root
async def test_blocks_are_restored_without_an_isolation(machine):
    """What goes to the blocked network is dropped, everything else passes, the server's port too."""
    await machine.written.block(ip_network(f"{machine.world.out.right4}/32"), lasts=None)
    code, said = machine.boots()
    assert (code, said["isolated"], said["blocks"]) == (0, False, 2)
    tap = Tap(machine.world.outside, machine.world.out.device)
    send_udp(machine.world.endpoint, machine.world.out.right4)
    send_udp(machine.world.endpoint, machine.world.out.right6)
    fence(machine.world)
    assert {frame[12:14] for frame in tap.leaks()} == {b"\x86\xdd"}


@pytest.mark.root
async def test_a_lost_journal_fails_closed(machine):
    """The mark says that it was isolated: only the address that the identity names stays, for five hours."""
    await machine.written.nothing()
    machine.written.spoil()
    mark_isolated(machine.written.state)
    code, said = machine.boots()
    assert (code, said["isolated"]) == (boot.EXIT_LOOK, True)
    state = machine.world.state()
    assert [str(one.address) for one in state.rules.servers] == [machine.world.out.right4]
    assert timedelta(0) < state.remaining <= hours(5)
    with machine.world.outside.listen(machine.world.out.right4, SERVER_PORT):
        machine.world.endpoint.connect(machine.world.out.right4, SERVER_PORT)
    with machine.world.outside.listen(machine.world.out.right4, BEACON_PORT), pytest.raises(OSError, match="refused"):
        machine.world.endpoint.connect(machine.world.out.right4, BEACON_PORT, socket.SOCK_STREAM)


@pytest.mark.root
async def test_nothing_is_restored_that_was_not_in_force(machine):
    """An agent that never isolated leaves a journal without effects."""
    await machine.written.nothing()
    assert machine.boots()[0] == 0
    assert machine.ruleset() == ""


@pytest.mark.root
async def test_another_place_in_the_same_boot_is_refused(machine):
    """The identity belongs to another network namespace of this very boot: nothing is changed here."""
    await machine.written.isolation(machine.world.rules, lasts=hours(1))
    pid = Namespace.current("pid").inode
    machine.written.enrol(Binding(boot_id=NEXT_BOOT, net=1, pid=pid))
    code, said = machine.boots()
    assert code == boot.EXIT_FAILED
    assert "namespace" in said["failure"]
    assert machine.ruleset() == ""


@pytest.mark.root
async def test_without_an_identity_nothing_may_be_changed(machine):
    """Not even where a mark asks for it: nobody can tell whether this is the place."""
    mark_isolated(machine.written.state)
    (machine.written.state / "identity.json").unlink()
    code, said = machine.boots()
    assert code == boot.EXIT_FAILED
    assert "enrol" in said["failure"]
    assert machine.ruleset() == ""
