"""Finding the control groups of systemd units."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.units import MAX_SAME, Units
from tests.fakes.dns import machine

MOUNTS = "25 1 0:23 / /sys rw - sysfs sysfs rw\n30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
GROUPS = "sys/fs/cgroup"


def running(root: Path, *paths: str, populated: bool = True, mounts: str = MOUNTS, at: str = GROUPS) -> Path:
    events = {f"{at}/{path}/cgroup.events": f"populated {int(populated)}\nfrozen 0\n" for path in paths}
    return machine(root, {"proc/self/mountinfo": mounts, **events})


def find(root: Path, unit: str) -> list[str] | str:
    return Units(root).groups(frozenset([unit]))[unit]


@pytest.mark.parametrize(
    ("unit", "path"),
    [
        ("backup", "system.slice/backup.service"),
        ("backup.service", "system.slice/backup.service"),
        ("getty@tty1", "system.slice/system-getty.slice/getty@tty1.service"),
        ("foo-bar.slice", "foo.slice/foo-bar.slice"),
        ("docker-0a1b.scope", "system.slice/docker-0a1b.scope"),
        ("cri-containerd-0a.scope", "kubepods.slice/kubepods-burstable.slice/cri-containerd-0a.scope"),
        ("user@1000.service", "user.slice/user-1000.slice/user@1000.service"),
        ("session-3.scope", "user.slice/user-1000.slice/session-3.scope"),
        ("my-app", "user.slice/user-1000.slice/user@1000.service/app.slice/my-app.service"),
        (r"dev-disk\x2done.mount", r"system.slice/dev-disk\x2done.mount"),
        ("_odd", "system.slice/__odd.service"),
        ("python3.11", "system.slice/python3.11.service"),
    ],
)
def test_a_unit_that_runs_is_found(tmp_path, unit, path):
    """In its slice, however deep; without a suffix, a service is meant."""
    assert find(running(tmp_path, path, "system.slice/other.service"), unit) == [path]


def test_a_unit_that_does_not_run(tmp_path):
    """No group, or an empty one: nothing is open, and it says why."""
    root = running(tmp_path, "system.slice/backup.service", populated=False)
    assert find(root, "backup") == "it does not run"
    assert find(root, "nothing") == "it does not run"


def test_a_template_does_not_run(tmp_path):
    """Only its instances do."""
    assert "name one of its instances, such as getty@NAME.service" in find(running(tmp_path, "system.slice"), "getty@")


def test_the_root_slice_is_not_meant(tmp_path):
    """It holds every program: an exclusion of it would be none of a unit."""
    assert find(running(tmp_path, "-.slice"), "-.slice") == "it holds every program"


@pytest.mark.parametrize(
    "path",
    [
        "system.slice/docker-0a.scope/backup.service",
        "system.slice/other.service/system.slice/backup.service",
        "user.slice/user-1000.slice/user@1000.service/user@1001.service/backup.service",
        "lxc/box/backup.service",
    ],
)
def test_what_a_service_makes_below_itself_is_no_unit(tmp_path, path):
    """A container cannot pass for a unit by the name of a group of its own."""
    assert find(running(tmp_path, path), "backup") == "it does not run"


@pytest.mark.parametrize("known", ["etc/systemd/system/backup.service", "usr/lib/systemd/system/backup.service"])
def test_a_user_cannot_pass_for_a_unit_of_the_system(tmp_path, known):
    """A user's unit under the name of a system's is not meant, whether the system's runs or not."""
    theirs = "user.slice/user-1000.slice/user@1000.service/app.slice/backup.service"
    root = machine(running(tmp_path, theirs), {known: "[Service]"})
    assert find(root, "backup") == "it does not run"
    running(tmp_path, "system.slice/backup.service")
    assert find(root, "backup") == ["system.slice/backup.service"]


def test_an_instance_is_known_by_its_template(tmp_path):
    """The system's template makes every instance a system's name."""
    theirs = "user.slice/user-1000.slice/user@1000.service/app.slice/backup@a.service"
    root = machine(running(tmp_path, theirs), {"etc/systemd/system/backup@.service": ""})
    assert find(root, "backup@a") == "it does not run"


def test_the_same_unit_of_several_users(tmp_path):
    """All of them, within a bound."""
    paths = [f"user.slice/user-{n}.slice/user@{n}.service/app.slice/my.service" for n in range(1000, 1000 + 30)]
    assert len(find(running(tmp_path, *paths), "my")) == MAX_SAME


def test_without_control_groups_of_version_2(tmp_path):
    """An old machine says so."""
    root = running(tmp_path, "system.slice/backup.service", mounts="1 1 0:1 / /sys rw - cgroup cgroup rw,cpu\n")
    assert "version 2" in find(root, "backup")


def test_the_mount_may_be_anywhere(tmp_path):
    """Beside control groups of version 1, and at a path with a space."""
    mounts = "30 25 0:26 / /sys/fs/cg\\040roup rw - cgroup2 cgroup2 rw\n"
    root = running(tmp_path, "system.slice/backup.service", mounts=mounts, at="sys/fs/cg roup")
    assert find(root, "backup") == ["system.slice/backup.service"]


def test_the_walk_is_bounded(tmp_path, monkeypatch):
    """However many slices somebody makes, so many folders are looked into."""
    monkeypatch.setattr("stanch.agent.host.units.MAX_FOLDERS", 10)
    root = running(tmp_path, *(f"a{n}.slice/deep.slice/backup.service" for n in range(30)))
    assert find(root, "backup") == "it does not run"


def test_links_are_not_followed(tmp_path):
    """A link among the groups leads nowhere."""
    root = running(tmp_path, "system.slice/other.service")
    (root / GROUPS / "loop.slice").symlink_to(root / GROUPS)
    assert find(root, "other") == ["system.slice/other.service"]


@given(st.from_regex(r"[A-Za-z0-9_.:@\\-]{1,60}", fullmatch=True))
def test_no_name_breaks_the_search(tmp_path_factory, unit):
    """Every name that an exclusion may hold is found or not, and never as the whole machine."""
    root = running(tmp_path_factory.mktemp("machine"), "system.slice/a.service")
    found = find(root, unit)
    assert found == ["system.slice/a.service"] if unit in {"a", "a.service"} else isinstance(found, str)
