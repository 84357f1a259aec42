"""What runtimes tell and what control groups show, as one table in which nobody can take the place of another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.cgroup_names import names_of
from stanch.agent.host.container_groups import Group, Groups, Member
from stanch.agent.host.container_sockets import RuntimeSocket, Socket, Told
from stanch.agent.host.container_union import Source, put_together
from stanch.core.containers import ContainerState
from stanch.core.errors import Unavailable

ID, OTHER = "ab" * 32, "cd" * 32
SYSTEM = f"system.slice/docker-{ID}.scope"
USERS = f"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"


@pytest.fixture
def together(tmp_path):
    """The table, of sources and of paths of groups that have two processes each."""

    def put(sources=(), *paths):
        found = [shown(path, 100 * number) for number, path in enumerate(paths, 1)]
        return put_together(sources, found, Groups(root=tmp_path, proc=tmp_path), tmp_path)

    return put


def shown(path, pid=100):
    names = names_of(f"0::/{path}".encode())
    return Group(names, {"": names.group}, [Member(pid, 1, 1), Member(pid + 1, 2, 2)])


def told(number=ID, *, name="shop", state="running", **more):
    return Told(number, name, "registry.example/shop:3", state, more.get("unit", ""), more.get("pod", ""))


def source(*rows, name="docker", user=None):
    socket = RuntimeSocket(Socket(name, "/run/x.sock", user))
    return Source(name, "/run/x.sock", user, socket, rows)


def test_who_is_told_of_and_has_a_group_is_one(together):
    """Name and image are the runtime's, processes and group the kernel's."""
    (one,) = together([source(told())], SYSTEM)
    found = one.container
    assert (found.id, found.name, found.image) == (ID, "shop", "registry.example/shop:3")
    assert (found.pid, found.processes, found.cgroup) == (100, 2, f"/{SYSTEM}")
    assert (found.state, one.socket is not None) == (ContainerState.RUNNING, True)


def test_who_is_only_told_of_and_who_only_has_a_group(together):
    """Both are containers; of a runtime that failed nothing is known."""
    failed = Source("podman", "/run/y.sock", None, None, Unavailable("it is not there"))
    names = [(one.container.id, one.container.runtime) for one in together([source(told()), failed], f"docker/{OTHER}")]
    assert names == [(ID, "docker"), (OTHER, "docker")]


@pytest.mark.parametrize(("state", "path", "expected"), [
    ("running", SYSTEM, "running"),
    ("exited", SYSTEM, "running"),
    ("paused", SYSTEM, "paused"),
    ("paused", None, "paused"),
    ("running", None, "running"),
    ("exited", None, "stopped"),
    ("restarting", None, "stopped"),
    ("nonsense", None, "stopped"),
])  # fmt: skip
def test_the_kernel_goes_before_the_runtime(together, state, path, expected):
    """What has processes runs, whatever is said of it."""
    (one,) = together([source(told(state=state))], *[path] if path else [])
    assert one.container.state == expected


def test_what_a_user_says_of_pausing_is_not_believed(together):
    """It could be said, and not be done."""
    (one,) = together([source(told(state="paused"), user=1000)], USERS)
    assert one.container.state is ContainerState.RUNNING
    assert one.container.user == 1000
    assert "user 1000's own runtime" in one.container.notes[0]


@pytest.mark.parametrize("order", [(SYSTEM, USERS), (USERS, SYSTEM)])
@pytest.mark.parametrize("sources", [[], [source(told())], [source(told(), user=1000)]])
def test_a_user_cannot_take_the_id_of_the_machines_container(together, sources, order):
    """The machine's keeps its id and its group; the user's gets another id, always the same."""
    table = {one.container.user: one for one in together(sources, *order)}
    assert table[None].container.id == ID
    assert table[None].group.path.decode() == SYSTEM
    other = table[1000].container
    assert (other.id.startswith(f"{ID}:"), other.cgroup) == (True, f"/{USERS}")
    assert "it bears the id of another container" in other.notes
    assert table[1000].container.id == {one.container.user: one for one in together(sources, *order)}[1000].container.id


def test_a_users_runtime_cannot_name_a_container_of_the_machine(together):
    """It tells of an id that it does not have: no group of the machine becomes the user's."""
    table = together([source(told(), name="podman", user=1000)], SYSTEM)
    assert [(one.container.user, one.group is not None) for one in table] == [(None, True), (1000, False)]


def test_a_service_that_makes_groups_comes_after_the_runtime(together):
    """A service with a tree of its own may call a group in it like a container."""
    fake = f"a.slice/evil.service/docker-{ID}.scope"
    table = together([source(told())], fake, f"kubelet.slice/{'x' * 40}.slice/docker-{ID}.scope")
    assert fake not in table[0].container.cgroup
    assert [one.container.id == ID for one in table] == [True, False]


def test_root_is_the_machine(together):
    """What runs in root's own slice is not a user's."""
    (one,) = together([source(told())], f"user.slice/user-0.slice/user@0.service/user.slice/docker-{ID}.scope")
    assert one.container.user is None


def test_two_runtimes_that_tell_of_the_same_tell_of_one(together):
    """The first of them counts: crictl comes last, and has no socket of its own."""
    crictl = Source("crictl", "crictl", None, None, [told(name="pod/shop"), told(OTHER, name="pod/other", pod="p-1")])
    table = together([source(told()), crictl], f"kubepods/pod9/{OTHER}")
    assert [(one.container.name, one.container.runtime) for one in table] == [
        ("shop", "docker"),
        ("pod/other", "containerd"),
    ]
    assert [one.container.pod for one in table] == ["", "p-1"]


@pytest.mark.parametrize(("unit", "path", "expected"), [
    ("shop.service", f"machine.slice/libpod-{ID}.scope", "shop.service"),
    ("", f"system.slice/web.service/libpod-payload-{ID}", "web.service"),
    ("", USERS, ""),
])  # fmt: skip
def test_the_unit_that_keeps_it(together, unit, path, expected):
    """As Podman was told, or as systemd has it; a user's units are not the machine's."""
    user = 1000 if path == USERS else None
    assert together([source(told(unit=unit), name="podman", user=user)], path)[0].unit == expected


PATHS = st.sampled_from([
    SYSTEM, USERS, f"docker/{ID}", f"docker/{OTHER}", f"a.service/docker-{ID}.scope", "lxc/web", "lxc.payload.web",
    "machine.slice/systemd-nspawn@web.service", f"user.slice/user-1001.slice/user@1001.service/docker-{ID}.scope",
])  # fmt: skip
TELLS = st.builds(
    lambda rows, user: source(*(told(row) for row in rows), user=user),
    st.lists(st.sampled_from([ID, OTHER]), max_size=3),
    st.sampled_from([None, 1000, 1001]),
)


@given(st.lists(TELLS, max_size=4), st.lists(PATHS, unique=True, max_size=8))
def test_whatever_is_told_and_shown_each_is_there_once(tmp_path_factory, sources, paths):
    """Every group is one container, ids are unique, and no user's stands before one of the machine's."""
    folder = tmp_path_factory.getbasetemp()
    table = put_together(sources, [shown(path) for path in paths], Groups(root=folder, proc=folder), folder)
    ids = [one.container.id for one in table]
    assert len(set(ids)) == len(ids)
    assert sorted(one.group.path for one in table if one.group) == sorted({shown(path).path for path in paths})
    machines = [one.container.user is None for one in table]
    assert machines == sorted(machines, reverse=True)
    for one in table:
        if one.group is not None and one.container.user is not None:
            assert b"user-%d.slice" % one.container.user in one.group.path


def test_the_sandbox_of_a_pod_is_noted(together):
    """What ends with it is more than itself; nothing is claimed where crictl does not tell of any."""
    pod = "kubepods.slice/kubepods-pod12_34.slice"
    paths = [f"{pod}/cri-containerd-{one}.scope" for one in (ID, OTHER)]
    crictl = Source("crictl", "crictl", None, None, [told()])
    notes = {one.container.id: " ".join(one.container.notes) for one in together([crictl], *paths)}
    assert ("sandbox" in notes[ID], "sandbox" in notes[OTHER]) == (False, True)
    assert not any("sandbox" in " ".join(one.container.notes) for one in together([], *paths))
