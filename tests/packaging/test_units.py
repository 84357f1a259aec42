"""The units of systemd: does systemd accept them, do they start in the right order, and with how little power?"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.agent.control import FOLDER_MODE
from stanch.agent.marker import MARK
from stanch.agent.settings import Settings
from stanch.agent.supervisor import EXIT_IN_USE, EXIT_NOT_ENROLLED, Patience
from stanch.cli.programs import server
from tests.house.source import ROOT

FOLDER = ROOT / "packaging" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
BOOT = ("stanch-isolation.service", "stanch-isolation-device@.service")

INSTALLED = {"sysinit.target": "stanch-isolation.service", "multi-user.target": "stanch-agent.service"}
"""As `systemctl enable` links them."""

DEBIAN_NFTABLES = """
[Unit]
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""
FIREWALLD = """
[Unit]
Before=network-pre.target
Wants=network-pre.target
After=dbus.service
[Service]
ExecStart=/bin/true
"""
LATE_NFTABLES = """
[Unit]
Wants=network-pre.target
Before=network-pre.target
[Service]
Type=oneshot
ExecStart=/bin/true
"""
"""How other firewalls order themselves: after the early boot (as RHEL's nftables), or before it."""

NETWORKD = """
[Unit]
DefaultDependencies=no
After=network-pre.target
Before=network.target multi-user.target shutdown.target
Conflicts=shutdown.target
Wants=network.target
[Service]
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings_of(unit: str) -> dict[str, list[str]]:
    """Each setting of a unit, with all its values in order."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / unit).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and re.fullmatch(r"[A-Za-z]+", name):
            found.setdefault(name, []).append(value)
    return found


def words(unit: str, name: str) -> set[str]:
    """All words of a setting."""
    return {word for value in settings_of(unit).get(name, ()) for word in value.split()}


@pytest.fixture
def verify(tmp_path: Path):
    """Let systemd read copies of our units, their programs replaced by ones that are there, beside others."""

    def verify(*names: str, **others: str) -> subprocess.CompletedProcess[str]:
        for unit in UNITS:
            text = re.sub(r"/usr/bin/stanch(-boot)?\b", "/bin/true", unit.read_text())
            (tmp_path / unit.name).write_text(text)
        for name, text in others.items():
            (tmp_path / f"{name}.service").write_text(text)
        for target, wanted in INSTALLED.items():
            (tmp_path / f"{target}.wants").mkdir(exist_ok=True)
            (tmp_path / f"{target}.wants" / wanted).symlink_to(tmp_path / wanted)
        paths = [str(tmp_path / name) if (tmp_path / name).exists() else name for name in names]
        return subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", *paths],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:", "LANG": "C.UTF-8"},
        )

    return verify


def ours(said: str) -> Iterator[str]:
    """What systemd says about our units: those of the distribution are not ours to repair."""
    return (line for line in said.splitlines() if "stanch" in line or "cycle" in line)


# --- accepted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [one.name for one in UNITS])
def test_systemd_accepts_the_unit(verify, unit):
    """No error and no warning, with every setting of this and of what it wants."""
    name = unit.replace("@.", "@-sys-devices-virtual-net-veth1.")
    ended = verify(name)
    assert list(ours(ended.stderr)) == []
    assert ended.returncode == 0


def test_a_mistake_would_be_found(verify):
    """A setting that systemd does not know is told: an empty answer means something."""
    ended = verify("broken.service", broken="[Service]\nExecStart=/bin/true\nRestartsec=1\nKillMode=perhaps\n")
    assert "Restartsec" in ended.stderr
    assert "kill mode" in ended.stderr


@pytest.mark.parametrize("nftables", [DEBIAN_NFTABLES, LATE_NFTABLES], ids=["early", "late"])
def test_the_order_has_no_cycle(verify, nftables):
    """Beside early and late firewalls; systemd would break a cycle by leaving somebody out, us perhaps."""
    names = ("multi-user.target", "stanch-agent.service", "nftables.service", "firewalld.service")
    others = {"nftables": nftables, "firewalld": FIREWALLD, "systemd-networkd": NETWORKD}
    ended = verify(*names, "systemd-networkd.service", **others)
    assert list(ours(ended.stderr)) == []


def test_a_cycle_would_be_found(verify):
    """The same check on an order that cannot be."""
    wants = "Wants=stanch-isolation.service\nBefore=nftables.service\nAfter=network-pre.target"
    ended = verify(
        "stanch-isolation.service", "nftables.service", nftables=f"[Unit]\n{wants}\n[Service]\nExecStart=/bin/true"
    )
    assert "cycle" in ended.stderr


# --- order -----------------------------------------------------------------------------------------------------------


def test_isolation_comes_before_the_network_and_after_firewalls_that_flush():
    """Whatever configures the network waits for network-pre.target; a flush must not come after us."""
    unit = "stanch-isolation.service"
    assert "network-pre.target" in words(unit, "Before") & words(unit, "Wants")
    assert {"nftables.service", "netfilter-persistent.service", "local-fs.target"} <= words(unit, "After")
    assert settings_of(unit)["DefaultDependencies"] == ["no"]
    assert {"shutdown.target"} == words(unit, "Conflicts")


def test_stopping_the_boot_unit_opens_nothing():
    """It only writes down what is left of the deadlines; and neither boot nor shutdown can hang there."""
    found = settings_of("stanch-isolation.service")
    assert found["ExecStop"] == ["/usr/bin/stanch-boot --remember"]
    assert "ExecStopPost" not in found
    assert 0 < int(found["TimeoutStartSec"][0]) <= 120
    assert 0 < int(found["TimeoutStopSec"][0]) <= 60


def test_units_name_the_places_that_the_programs_use():
    """A condition on a file that nobody writes would never hold."""
    usual = Settings()
    assert words("stanch-isolation.service", "ConditionPathExists") == {
        f"|{usual.journal}",
        f"|{usual.state / MARK}",
    }
    assert words("stanch-isolation-device@.service", "ConditionPathExists") == {str(usual.state / MARK)}
    assert words("stanch-agent.service", "ConditionPathExists") == {str(usual.state / "identity.json")}
    assert words("stanch-agent.service", "StateDirectory") == {str(usual.state.relative_to("/var/lib"))}
    assert words("stanch-agent.service", "RuntimeDirectory") == {usual.socket.parent.name}
    assert words("stanch-agent.service", "RuntimeDirectoryMode") == {f"{FOLDER_MODE:04o}"}
    data = next(one.default for one in server.params if one.name == "data")
    assert str(data) in settings_of("stanch-server.service")["ExecStart"][0]
    assert words("stanch-server.service", "StateDirectory") == {str(data.relative_to("/var/lib"))}


def test_each_new_device_is_covered_by_a_unit_of_its_own():
    """The rule leaves the instance to systemd, which escapes it: a device's name may hold anything."""
    (rule,) = [
        line for line in (FOLDER / "90-stanch-isolation.rules").read_text().splitlines() if not line.startswith("#")
    ]
    keys = [key.strip() for key in rule.split(",")]
    assert keys == [
        'SUBSYSTEM=="net"',
        'ACTION!="remove"',
        'KERNEL!="lo"',
        'TAG+="systemd"',
        'ENV{SYSTEMD_WANTS}+="stanch-isolation-device@.service"',
    ]
    assert (FOLDER / "stanch-isolation-device@.service").is_file()


# --- power -----------------------------------------------------------------------------------------------------------


def test_the_agent_comes_back_always_but_not_in_vain():
    """Killed again and again it is started again; an endpoint that is not enrolled is not tried for ever."""
    found = settings_of("stanch-agent.service")
    assert (found["Restart"], found["StartLimitIntervalSec"]) == (["always"], ["0"])
    assert words("stanch-agent.service", "RestartPreventExitStatus") == {str(EXIT_NOT_ENROLLED)}
    assert str(EXIT_IN_USE) not in words("stanch-agent.service", "RestartPreventExitStatus")


def test_the_agent_may_say_goodbye():
    """SIGTERM reaches the supervisor alone, which gives the agent its time before systemd kills what is left."""
    found = settings_of("stanch-agent.service")
    assert found["KillMode"] == ["mixed"]
    assert int(found["TimeoutStopSec"][0]) > Patience().goodbye
    assert found["OOMPolicy"] == ["continue"]


def test_the_agent_sees_the_machine_itself():
    """Nothing gives it mounts, processes or devices of its own: it must see what everybody else sees."""
    own_view = {
        name for name in settings_of("stanch-agent.service") if name.startswith(("Protect", "Private", "Dynamic"))
    }
    assert own_view == set()


@pytest.mark.parametrize("unit", [one.name for one in UNITS if one.name != "stanch-agent.service"])
def test_every_unit_gives_up_what_it_does_not_need(unit):
    """Capabilities are listed, nothing new is gained by starting a program, and every boot has an end."""
    found = settings_of(unit)
    assert len(found["CapabilityBoundingSet"]) == 1
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["SystemCallArchitectures"] == ["native"]
    assert found["UMask"] == ["0077"]
    assert "CAP_SYS_ADMIN" not in words(unit, "CapabilityBoundingSet")


def test_capabilities_are_as_few_as_can_be():
    """The boot program needs the network alone, the server nothing."""
    assert [words(unit, "CapabilityBoundingSet") for unit in BOOT] == [{"CAP_NET_ADMIN"}] * 2
    assert words("stanch-server.service", "CapabilityBoundingSet") == set()


def test_the_agent_runs_programs_as_root_does():
    """What responders run and type is below this unit: nothing is taken from it, and its groups may have groups."""
    found = settings_of("stanch-agent.service")
    narrowing = ("Capability", "NoNew", "Restrict", "SystemCall", "Lock", "Ambient", "Device")
    assert [name for name in found if name.startswith(narrowing)] == []
    assert found["Delegate"] == ["memory pids cpu"]
    assert found["UMask"] == ["0077"]


def test_both_boot_units_are_equally_confined():
    """What holds for the one at boot holds for the one of each device."""
    confined = [
        {
            name: value
            for name, value in settings_of(unit).items()
            if name.startswith(("Protect", "Private", "Restrict"))
        }
        for unit in BOOT
    ]
    assert confined[0] == confined[1] != {}
