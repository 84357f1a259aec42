"""What the names of control groups say: of every runtime, in both versions, and however hostile they are."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanch.agent.host.cgroup_names import (
    FREEZER,
    MAX_NAME,
    NOTHING,
    V2,
    GroupNames,
    container_of,
    groups_of,
    names_of,
    unescaped,
)
from stanch.core.containers import Container

ID, OTHER = "ab" * 32, "cd" * 32
POD = "1f2e3d4c-5b6a-7988-a7b6-c5d4e3f2a1b0"
SLICE = f"kubepods-besteffort-pod{POD.replace('-', '_')}.slice"
USER = "user.slice/user-1000.slice/user@1000.service"


def names(*lines: str) -> GroupNames:
    return names_of("\n".join(lines).encode() + b"\n")


@pytest.mark.parametrize(("path", "container", "runtime", "pod", "group"), [
    (f"docker/{ID}", ID, "docker", "", "docker/{ID}"),
    (f"docker/{ID}/init.scope", ID, "docker", "", f"docker/{ID}"),
    (f"system.slice/docker-{ID}.scope", ID, "docker", "", None),
    (f"actions_job/{ID}", ID, "docker", "", None),
    (f"machine.slice/libpod-{ID}.scope", ID, "podman", "", None),
    (f"machine.slice/libpod-{ID}.scope/container", ID, "podman", "", f"machine.slice/libpod-{ID}.scope"),
    (f"libpod_parent/libpod-{ID}", ID, "podman", "", None),
    (f"system.slice/web.service/libpod-payload-{ID}", ID, "podman", "", None),
    (f"machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope", ID, "podman", OTHER, None),
    (f"kubepods.slice/kubepods-besteffort.slice/{SLICE}/cri-containerd-{ID}.scope", ID, "containerd", POD, None),
    (f"kubepods/burstable/pod{POD}/{ID}", ID, "containerd", POD, None),
    (f"system.slice/containerd.service/{SLICE}:cri-containerd:{ID}", ID, "containerd", POD, None),
    (f"kubepods.slice/{SLICE}/crio-{ID}.scope", ID, "cri-o", POD, None),
    (f"system.slice/nerdctl-{ID}.scope", ID, "containerd", "", None),
    (f"default/{ID}", ID, "containerd", "", None),
    (f"somewhere/{ID}", ID, "unknown", "", None),
    ("machine.slice/systemd-nspawn@web.service/payload/system.slice/x.service", "web", "nspawn", "",
     "machine.slice/systemd-nspawn@web.service/payload"),
    (r"machine.slice/systemd-nspawn@my\x2dweb.service", "my-web", "nspawn", "", None),
    (r"machine.slice/machine-my\x2dweb.scope", "my-web", "nspawn", "", None),
    (r"machine.slice/machine-lxc\x2d12\x2dweb.scope", "web", "lxc", "", None),
    ("lxc.payload.web/system.slice/ssh.service", "web", "lxc", "", "lxc.payload.web"),
    ("lxc/101/ns", "101", "lxc", "", "lxc/101"),
])  # fmt: skip
@pytest.mark.parametrize("hierarchy", ["0:", "7:freezer", "1:name=systemd", "5:cpu,cpuacct"])
def test_every_runtime_in_both_versions(hierarchy, path, container, *, runtime, pod, group):
    """The container, its runtime, its pod, and the group that is its own."""
    found = names(f"{hierarchy}:/{path}")
    assert (found.container, found.runtime, found.pod) == (container, runtime, pod)
    assert found.group.decode() == (path if group is None else group.replace("{ID}", ID))
    assert found.hierarchy == hierarchy.partition(":")[2].partition(",")[0]


@pytest.mark.parametrize("path", [
    f"machine.slice/libpod-conmon-{ID}.scope",
    f"machine.slice/crio-conmon-{ID}.scope/{OTHER}",
    "machine.slice/systemd-nspawn@web.service/supervisor",
    "lxc.monitor.web",
    r"machine.slice/machine-qemu\x2d1\x2dvm.scope",
    "system.slice/docker.service",
    "docker/abcdef",
    "user.slice/user-1000.slice/session-3.scope",
    f"docker/{ID.upper()}",
    f"../docker/{ID}",
    "",
])  # fmt: skip
def test_what_is_no_container(path):
    """Those that watch over one, virtual machines, services; and what lies outside of what we see."""
    assert names(f"0::/{path}").container == ""


@pytest.mark.parametrize(("path", "unit", "user"), [
    ("system.slice/ssh.service", "ssh.service", None),
    ("system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", None),
    (r"system.slice/dev-hugepages.mount", "dev-hugepages.mount", None),
    (r"machine.slice/systemd-nspawn@my\x2dweb.service/payload", r"systemd-nspawn@my\x2dweb.service", None),
    ("init.scope", "init.scope", None),
    ("system.slice/evil.service/ssh.service", "evil.service", None),
    ("user.slice/user-1000.slice/session-3.scope", "session-3.scope", 1000),
    (f"{USER}/app.slice/editor.service", "editor.service", 1000),
    (f"{USER}/init.scope", "init.scope", 1000),
    (USER, "user@1000.service", 1000),
    (f"{USER}/app.slice/user@0.service/ssh.service", "user@0.service", 1000),
    (f"system.slice/docker-{ID}.scope/system.slice/ssh.service", f"docker-{ID}.scope", None),
    ("system.slice/_cgroup.service", "cgroup.service", None),
    (f"docker/{ID}/system.slice/ssh.service", "", None),
    ("", "", None),
])  # fmt: skip
def test_the_unit_is_the_one_that_systemd_made(path, unit, user):
    """What a service or a container makes below itself is no unit; what a user's manager has, is that user's."""
    found = names(f"0::/{path}")
    assert (found.unit, found.user) == (unit, user)


def test_the_outermost_container_wins():
    """Inside of it anybody who is root there may make a group that is called like another container."""
    inner = f"system.slice/docker-{OTHER}.scope"
    assert names(f"0::/docker/{ID}/{inner}").container == ID
    assert names(f"0::/lxc.payload.web/{inner}").container == "web"


def test_what_a_user_may_have_made_up_is_marked():
    """A user can make a group below their own manager that is called like any container."""
    found = names(f"0::/{USER}/user.slice/docker-{ID}.scope")
    assert (found.container, found.user) == (ID, 1000)
    assert names(f"0::/system.slice/docker-{ID}.scope/{USER}/x.scope").user is None


def test_on_a_mixed_machine_every_line_counts():
    """The container may be in version 1 alone; the unit is systemd's."""
    found = names("9:name=systemd:/system.slice/docker.service", f"6:freezer:/docker/{ID}", "4:memory:/x", "0::/")
    assert found == GroupNames("docker.service", None, ID, "docker", "", f"docker/{ID}".encode(), FREEZER)


def test_version_2_goes_before_version_1():
    """Where both have it, the group of version 2 is told."""
    assert names(f"6:freezer:/docker/{ID}", f"0::/docker/{ID}").hierarchy == V2


def test_a_group_that_was_removed_is_read_all_the_same():
    """A process that has ended may still be shown in it."""
    assert names(f"0::/docker/{ID} (deleted)").group == f"docker/{ID}".encode()


def test_a_path_may_hold_colons_and_bytes():
    """Only the first two colons are the kernel's; other bytes stay as they are for the kernel."""
    assert groups_of(b"0::/a:b/\xff\n5:cpu,cpuacct:/c\n") == {"": b"a:b/\xff", "cpu": b"c", "cpuacct": b"c"}
    assert container_of(b"lxc.payload.\xff\xfe").container == "_xff_xfe"


@pytest.mark.parametrize(
    ("name", "plain"), [(r"a\x2db", "a-b"), (r"\xc3\xa4", "ä"), (r"\xff", "�"), (r"a\x2", r"a\x2")]
)
def test_a_name_as_it_was_before_systemd_wrote_it(name, plain):
    """Bytes that are no text do no harm."""
    assert unescaped(name) == plain


PART = st.one_of(
    st.sampled_from([
        "docker", "lxc", "lxc.payload", "kubepods", "..", ".", "", "machine.slice", "user.slice", "user-1000.slice",
        "user@1000.service", "supervisor", "payload", "a.service", "libpod_parent", f"docker-{ID}.scope", ID, OTHER,
        f"libpod-conmon-{ID}.scope", "lxc.payload.\\xff", "systemd-nspawn@.service", "systemd-nspawn@a b.service",
        "user@99999999999.service", "user-9999999999.slice", f"x:crio:{ID}", f"pod{POD}", SLICE,
        "lxc.payload." + "x" * 300,
    ]),
    st.text(max_size=8).filter(lambda text: "/" not in text and "\n" not in text),
)  # fmt: skip
PATH = st.lists(PART, max_size=8).map("/".join)


@given(
    st.lists(st.tuples(st.sampled_from(["0:", "1:name=systemd", "2:freezer", "x:", "3:cpu,cpuacct"]), PATH), max_size=5)
)
@example([("0:", "lxc.payload." + "/" * 5)])
def test_whatever_the_names_are_the_answer_is_bounded(lines):
    """Ids are ids, names are short, and a container's group is a part of a path that is no root."""
    found = names(*(f"{hierarchy}:/{path}" for hierarchy, path in lines))
    assert max(map(len, (found.unit, found.container, found.pod))) <= MAX_NAME
    assert bool(found.container) == bool(found.runtime) == bool(found.group)
    if found.container:
        Container(id=found.container, runtime=found.runtime, state="running", pod=found.pod, user=found.user)
        assert b".." not in found.group.split(b"/")
        whole = groups_of("\n".join(f"{hierarchy}:/{path}" for hierarchy, path in lines).encode())[found.hierarchy]
        assert whole == found.group or whole.startswith(found.group + b"/")


@given(PATH, PATH)
def test_nothing_below_a_container_changes_what_it_is(above, below):
    """Whatever is made below its group, the container and its unit stay the same."""
    path = f"{above}/docker-{ID}.scope"
    outer = names(f"0::/{path}")
    inner = names(f"0::/{path}/{below}")
    if ".." not in below.split("/") and outer.container:
        assert inner == outer


@given(st.binary(max_size=400))
@example(b"0::/\n" * 100_000)
@example(b"0::/" + b"a/" * 100_000)
@example(b"0::/" + b"\\x2d" * 10_000)
def test_any_bytes_are_read(text):
    """Nothing is raised, however long or odd it is."""
    assert isinstance(names_of(text), GroupNames)


def test_nothing_says_nothing():
    """An empty file, or the root alone."""
    assert names_of(b"") == names("0::/") == NOTHING
