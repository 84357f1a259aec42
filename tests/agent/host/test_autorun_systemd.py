"""Is everything told that systemd starts, and is it told right whether it does?"""

import pytest

from stanch.agent.host.autorun_systemd import SystemdReader, running_units
from stanch.agent.host.autorun_tree import Tree
from stanch.core.autoruns import Place, autorun_id
from tests.agent.host.autorun_root import new_root

LIB, ETC = "/usr/lib/systemd/system", "/etc/systemd/system"


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


def by_name(root, *places):
    return {one.name: one for one in root.items(SystemdReader(), *places)}


def test_a_service_is_told_with_what_it_starts_and_as_whom(root):
    """Enabled by a link that wants it; root, unless it says somebody else."""
    root.write(f"{LIB}/a.service", "[Service]\nExecStart=-/opt/a --x\nUser=alice\n")
    root.write(f"{LIB}/b.service", "[Service]\nExecStart=/opt/b\n")
    root.link(f"{ETC}/multi-user.target.wants/a.service", f"{LIB}/a.service")
    found = by_name(root)
    a, b = found["a.service"], found["b.service"]
    assert (a.place, a.path, a.command, a.user, a.enabled, a.line) == (
        *(Place.SYSTEMD_UNIT, f"{LIB}/a.service", "/opt/a --x", "alice", True),
        0,
    )
    assert (b.user, b.enabled) == ("root", False)
    assert set(found) == {"a.service", "b.service"}


def test_a_timer_is_told_with_the_program_of_its_service(root):
    """As a place of its own."""
    root.write(f"{ETC}/a.timer", "[Timer]\nOnCalendar=daily\n")
    root.write(f"{ETC}/a.service", "[Service]\nExecStart=/opt/a\nUser=alice\n")
    root.link(f"{ETC}/timers.target.wants/a.timer", "../a.timer")
    found = by_name(root)
    timer = found["a.timer"]
    assert (timer.place, timer.command) == (Place.SYSTEMD_TIMER, "OnCalendar=daily; starts a.service")
    assert (timer.starts, timer.user, timer.enabled, found["a.service"].enabled) == ("/opt/a", "alice", True, True)


def test_a_masked_unit_keeps_its_id_and_says_what_it_would_start(root):
    """Masked or not, it is the same thing; its path is the link."""
    root.write(f"{LIB}/a.service", "[Service]\nExecStart=/opt/a\n")
    root.link(f"{ETC}/multi-user.target.wants/a.service", f"{LIB}/a.service")
    live = by_name(root)["a.service"]
    root.link(f"{ETC}/a.service", "/dev/null")
    masked = by_name(root)["a.service"]
    assert live.id == masked.id == autorun_id(Place.SYSTEMD_UNIT, ETC, "a.service")
    assert (masked.path, masked.enabled, masked.is_link, masked.command) == (f"{ETC}/a.service", False, True, "/opt/a")
    assert masked.notes == ("masked", f"stands in front of {LIB}/a.service")


def test_a_copy_in_front_and_a_link_elsewhere_are_noted(root):
    """Both are an attacker's ways to change a unit."""
    root.write(f"{LIB}/a.service", "[Service]\nExecStart=/opt/a\n")
    root.write(f"{ETC}/a.service", "[Service]\nExecStart=/tmp/x\n")
    root.write("/opt/evil.service", "[Service]\nExecStart=/opt/evil\n")
    root.link(f"{ETC}/evil.service", "/opt/evil.service")
    found = by_name(root)
    assert found["a.service"].notes == (f"stands in front of {LIB}/a.service",)
    assert (found["evil.service"].notes, found["evil.service"].command) == (
        ("a link to /opt/evil.service",),
        "/opt/evil",
    )


def test_instances_of_templates_are_told(root):
    """The template is enabled when one of them is."""
    root.write(f"{LIB}/getty@.service", "[Service]\nExecStart=/sbin/agetty %I\n")
    root.link(f"{ETC}/getty.target.wants/getty@tty1.service", f"{LIB}/getty@.service")
    found = by_name(root)
    assert set(found) == {"getty@.service", "getty@tty1.service"}
    assert all(one.enabled and one.path == f"{LIB}/getty@.service" for one in found.values())
    assert found["getty@tty1.service"].command == "/sbin/agetty %I"


def test_a_link_to_a_unit_that_is_nowhere_is_told(root):
    """Its file may come back."""
    root.link(f"{ETC}/multi-user.target.wants/gone.service", "/opt/gone.service")
    one = by_name(root)["gone.service"]
    assert (one.notes, one.is_link) == (("its unit is not there",), True)


def test_a_drop_in_is_told_itself_and_counts_for_its_unit(root):
    """It replaces what the unit starts."""
    root.write(f"{LIB}/a.service", "[Service]\nExecStart=/opt/a\n")
    root.write(f"{ETC}/a.service.d/x.conf", "[Service]\nExecStart=\nExecStart=/tmp/x\n")
    root.write(f"{ETC}/service.d/all.conf", "[Service]\nExecStartPre=/tmp/y\n")
    root.link(f"{ETC}/multi-user.target.wants/a.service", f"{LIB}/a.service")
    found = by_name(root)
    assert found["a.service"].command == "/tmp/x; ExecStartPre=/tmp/y"
    drop_in = found["a.service: x.conf"]
    assert (drop_in.path, drop_in.starts, drop_in.enabled) == (f"{ETC}/a.service.d/x.conf", "/tmp/x", True)
    assert found["service: all.conf"].enabled


def test_units_of_users_are_told_with_whose_they_are(root):
    """Those of all users, a user's own, and those of all that one user has enabled."""
    root.write("/usr/lib/systemd/user/all.service", "[Service]\nExecStart=/opt/all\n")
    root.write("/home/alice/.config/systemd/user/own.service", "[Service]\nExecStart=/home/alice/.x\n")
    wants = "/home/alice/.config/systemd/user/default.target.wants"
    root.link(f"{wants}/own.service", "../own.service")
    root.link(f"{wants}/all.service", "/usr/lib/systemd/user/all.service")
    root.write("/run/user/1000/systemd/transient/now.service", "[Service]\nExecStart=/opt/now\n")
    found = by_name(root)
    assert {name: (one.user, one.enabled) for name, one in found.items()} == {
        "all.service (all users)": ("", False),
        "own.service (alice)": ("alice", True),
        "all.service (alice)": ("alice", True),
        "now.service (alice)": ("alice", False),
    }
    assert found["all.service (alice)"].path == "/usr/lib/systemd/user/all.service"
    assert len({one.id for one in found.values()}) == 4


def test_a_unit_that_preloads_a_library_is_told_at_that_place(root):
    """With the line that says so, and the library as the program."""
    root.write(f"{ETC}/a.service", "[Service]\nExecStart=/opt/a\nEnvironment=LD_PRELOAD=/tmp/x.so\n")
    one = root.items(SystemdReader(), Place.PRELOAD)
    preloads = [item for item in one if item.place is Place.PRELOAD]
    assert [(item.path, item.line, item.program) for item in preloads] == [(f"{ETC}/a.service", 3, "/tmp/x.so")]


def test_generators_and_their_like_are_told(root):
    """The first of a name counts; what may not be executed, or is a link to /dev/null, is off."""
    root.program("/usr/lib/systemd/system-generators/gen")
    root.program("/etc/systemd/system-generators/gen")
    root.write("/etc/systemd/system-environment-generators/off")
    root.program("/usr/lib/systemd/system-shutdown/last")
    root.program("/etc/systemd/system-sleep/night")
    root.program("/etc/systemd/user-generators/u")
    found = {
        one.name: (one.path, one.enabled, one.user) for one in root.items(SystemdReader(), Place.SYSTEMD_GENERATOR)
    }
    assert found == {
        "system-generators: gen": ("/etc/systemd/system-generators/gen", True, "root"),
        "system-environment-generators: off": ("/etc/systemd/system-environment-generators/off", False, "root"),
        "system-shutdown: last": ("/usr/lib/systemd/system-shutdown/last", True, "root"),
        "system-sleep: night": ("/etc/systemd/system-sleep/night", True, "root"),
        "user-generators: u": ("/etc/systemd/user-generators/u", True, ""),
    }


def test_what_is_masked_by_its_name_keeps_its_id(root):
    """Generators and drop-ins of packages are masked by a link in /etc, as units are."""
    generator, drop_in = "systemd/system-generators/gen", "systemd/system/a.service.d/x.conf"
    root.program(f"/usr/lib/{generator}")
    root.write(f"/usr/lib/{drop_in}", "[Service]\nExecStartPre=/opt/x\n")
    root.write(f"{LIB}/a.service", "[Service]\nExecStart=/opt/a\n")
    root.link(f"{ETC}/x.target.wants/a.service", f"{LIB}/a.service")
    before = by_name(root)
    for path in (generator, drop_in):
        root.link(f"/etc/{path}", "/dev/null")
    after = by_name(root)
    for name, path in (("system-generators: gen", generator), ("a.service: x.conf", drop_in)):
        assert (before[name].id, before[name].enabled) == (after[name].id, True)
        assert (after[name].path, after[name].enabled, after[name].notes) == (f"/etc/{path}", False, ("masked",))
    assert "/opt/x" not in after["a.service"].command


@pytest.mark.parametrize("hierarchy", ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"])
def test_what_runs_is_told_by_its_control_group(root, hierarchy):
    """Processes directly in it, or in groups below; of the system and of one user apart."""
    groups = {
        "system.slice/a.service/cgroup.procs": "12\n",
        "system.slice/deep.service/cgroup.events": "populated 1\nfrozen 0\n",
        "system.slice/empty.service/cgroup.procs": "",
        "user.slice/user-1000.slice/user@1000.service/app.slice/own.service/cgroup.procs": "13\n",
        "system.slice/a.service/not-a-unit/cgroup.procs": "1\n",
    }
    for path, text in groups.items():
        root.write(f"{hierarchy}/{path}", text)
    tree = Tree(root.folder)
    found = running_units(tree).units
    tree.close()
    assert {(None, "a.service"), (None, "deep.service"), (1000, "own.service")} <= found
    assert not {name for _uid, name in found} & {"empty.service", "not-a-unit"}
    root.write(f"{LIB}/a.service", "[Service]\nExecStart=/opt/a\n")
    root.write("/home/alice/.config/systemd/user/own.service", "[Service]\nExecStart=/opt/own\n")
    assert all(one.running for one in by_name(root).values())


def test_hostile_units_end(root):
    """Pipes, folders, circles and rubbish in the place of units: told or passed over, and nothing waits."""
    root.fifo(f"{ETC}/pipe.service")
    root.at(f"{ETC}/folder.service").mkdir()
    root.link(f"{ETC}/circle.service", "circle.service")
    root.write(f"{ETC}/odd\udcff.service", b"\xff\xfe=\x00\n[[[\nExecStart=/opt/\xff\n")
    root.write(f"{ETC}/wide.service", "ExecStart=" + "x \\\n" * 30_000)
    found, unread = root.read(SystemdReader())
    assert {"odd\udcff.service", "wide.service"} <= {one.name for one in found}
    assert {one.path for one in unread} >= {f"{ETC}/pipe.service", f"{ETC}/circle.service"}
