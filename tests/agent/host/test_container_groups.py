"""Containers by control groups: real groups of the test's own, and a kernel that is made up for the rest."""

import os
import signal
import threading
from contextlib import suppress

import pytest

from stanch.agent.host import container_groups
from stanch.agent.host.cgroup_names import FREEZER, V2, names_of
from stanch.agent.host.container_groups import Group, Groups, Member
from stanch.core.errors import ActionFailed, TargetGone, Unsupported
from tests.agent.host.container_world import FLEES, SLEEPS, add_process, real_container
from tests.fakes.waiting import wait_until

ID, OTHER = "ab" * 32, "cd" * 32
real = pytest.mark.root


@pytest.fixture
def groups():
    return Groups()


def found(groups, container):
    return next(one for one in groups.find() if one.path.decode() == container.path)


def states(container):
    return {Groups().stat(pid).state for pid in container.pids}


# --- real ------------------------------------------------------------------------------------------------------------


@real
def test_a_container_is_found_with_its_processes(groups):
    """By its group; the first process is the oldest where none is pid 1 of a namespace."""
    with real_container(SLEEPS, SLEEPS, SLEEPS) as container:
        one = found(groups, container)
        assert (one.names.container, one.names.runtime) == (container.id, "docker")
        assert sorted(member.pid for member in one.members) == sorted(container.pids)
        assert one.first.pid == container.children[0].pid
        assert groups.number(one) == container.folder.stat().st_ino


@real
@pytest.mark.parametrize(
    "name", ["lxc.payload.web-{}", "systemd-nspawn@web.service/payload", "libpod-{}.scope/container"]
)
def test_those_of_other_runtimes_too(groups, name):
    """By the names that their groups have, processes in groups below included."""
    with real_container(name=name) as container:
        names = names_of(b"0::/" + os.fsencode(container.path))
        assert any(one.path == names.group and len(one.members) == 2 for one in groups.find())


@real
def test_one_whose_runtime_holds_a_group_below_is_held(groups):
    """As Podman does with crun: it is paused, and goes on when it is let go here."""
    with real_container(name="libpod-{}.scope/container") as container:
        (container.folder / "cgroup.freeze").write_text("1")
        wait_until(lambda: "frozen 1" in container.says("cgroup.events"))
        scope = container.folder.parent
        one = next(one for one in groups.find() if one.path.decode() == container.path.rpartition("/")[0])
        assert "frozen 0" in (scope / "cgroup.events").read_text()
        assert groups.frozen(one)
        groups.freeze(one, still=False)
        assert not groups.frozen(one)
        assert "frozen 0" in container.says("cgroup.events")


@real
def test_a_zombie_is_no_member(groups):
    """One that has ended, and that nobody has asked for its exit status, is not counted."""
    with real_container(SLEEPS, "pass") as container:
        wait_until(lambda: Groups().stat(container.children[1].pid).state == "Z")
        assert [member.pid for member in found(groups, container).members] == [container.children[0].pid]


@real
def test_it_is_held_still_and_let_go(groups):
    """The kernel says so; both may be repeated, and another agent, started anew, sees it."""
    with real_container() as container:
        one = found(groups, container)
        assert not groups.frozen(one)
        for still in (True, True, False, False):
            groups.freeze(one, still=still)
            assert ("frozen 1" in container.says("cgroup.events")) is still
            assert Groups().frozen(one) is still


@real
def test_a_group_above_that_is_held_is_told(groups):
    """To let go what is held by another is not claimed."""
    with real_container() as container:
        one = found(groups, container)
        (container.folder.parent / "cgroup.freeze").write_text("1")
        wait_until(lambda: groups.frozen(one))
        container_groups.FREEZE_SECONDS, before = 0.1, container_groups.FREEZE_SECONDS
        try:
            with pytest.raises(ActionFailed, match="does not go on"):
                groups.freeze(one, still=False)
        finally:
            container_groups.FREEZE_SECONDS = before
            (container.folder.parent / "cgroup.freeze").write_text("0")


@real
@pytest.mark.parametrize("frozen", [False, True])
def test_all_of_it_ends(groups, frozen):
    """Also what is held still; and to end it again changes nothing."""
    with real_container(SLEEPS, FLEES) as container:
        one = found(groups, container)
        if frozen:
            groups.freeze(one, still=True)
        for _ in range(2):
            groups.kill(one, groups.number(one))
            assert container.pids == []


@real
def test_without_cgroup_kill_it_ends_too(groups, monkeypatch):
    """On kernels before 5.14 a container that flees is held still and ended process by process."""
    put = container_groups._put

    def older(folder, name, content):
        if name == "cgroup.kill":
            raise FileNotFoundError(name)
        put(folder, name, content)

    monkeypatch.setattr(container_groups, "_put", older)
    with real_container(SLEEPS, FLEES) as container:
        one = found(groups, container)
        groups.kill(one, groups.number(one))
        assert container.pids == []
        assert "frozen 0" in container.says("cgroup.events")


@real
def test_without_a_freezer_it_ends_too(tmp_path):
    """Where the group itself cannot be reached, its processes are ended by what /proc says."""
    with real_container() as container:
        groups = Groups(root=tmp_path)
        one = found(groups, container)
        assert groups.number(one) == 0
        groups.kill(one, 0)
        assert container.pids == []


@real
def test_one_that_was_started_anew_is_left_alone(groups):
    """Its group has another number than the one that was meant."""
    with real_container() as container:
        one = found(groups, container)
        groups.kill(one, groups.number(one) + 1)
        assert sorted(container.pids) == sorted(child.pid for child in container.children)


@real
def test_its_neighbour_is_left_alone(groups):
    """Neither one beside it, nor one whose group it is in."""
    with real_container() as container, real_container() as other:
        groups.freeze(found(groups, container), still=True)
        assert not groups.frozen(found(groups, other))
        groups.kill(found(groups, container), 0)
        assert len(other.pids) == 2


@real
def test_what_does_not_end_is_named(groups, monkeypatch):
    """With its pids, after a time."""
    monkeypatch.setattr(container_groups, "KILL_SECONDS", 0.05)
    with real_container() as container:
        one = found(groups, container)
        monkeypatch.setattr(groups, "left", lambda _group: [Member(container.children[0].pid, 1, 0)])
        with pytest.raises(ActionFailed, match=f"pids {container.children[0].pid}"):
            groups.kill(one, 0)


def test_a_pid_that_was_given_away_is_not_ended(groups):
    """Its start time is another one: a signal would hit somebody else."""
    hit = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: hit.set())
    try:
        groups._end(Member(os.getpid(), 1, 0))
        groups._end(Member(2**22 - 1, 1, 0))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Groups().stat(os.getpid()) is not None


# --- made up ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_up(tmp_path):
    """Version 1 with a freezer, and nothing of version 2."""
    folder = tmp_path / "cgroup" / "freezer" / "docker" / ID
    folder.mkdir(parents=True)
    (folder / "freezer.state").write_text("THAWED")
    (tmp_path / "proc").mkdir()
    add_process(tmp_path / "proc", 70, f"6:freezer:/docker/{ID}", "0::/", inner=1, started=900)
    add_process(tmp_path / "proc", 71, f"6:freezer:/docker/{ID}", "0::/", inner=2, started=800)
    return Groups(root=tmp_path / "cgroup", proc=tmp_path / "proc"), folder / "freezer.state"


def test_version_1_has_a_freezer_of_its_own(made_up):
    """Its words are others."""
    groups, state = made_up
    (one,) = groups.find()
    assert (one.places, groups.frozen(one)) == ({FREEZER: f"docker/{ID}".encode()}, False)
    groups.freeze(one, still=True)
    assert (state.read_text(), groups.frozen(one)) == ("FROZEN", True)
    groups.freeze(one, still=False)
    assert (state.read_text(), groups.frozen(one)) == ("THAWED", False)


def test_the_first_process_is_pid_1_of_its_namespace(made_up):
    """Not the oldest: somebody may have entered from outside."""
    assert made_up[0].find()[0].first == Member(70, 900, 1)


def test_one_that_never_stands_still_is_let_go(made_up, monkeypatch):
    """It is not left half held, and that is told."""
    groups, state = made_up
    monkeypatch.setattr(container_groups, "FREEZE_SECONDS", 0.02)
    monkeypatch.setattr(groups, "_held", lambda _group: False)
    with pytest.raises(ActionFailed, match="let go again"):
        groups.freeze(groups.find()[0], still=True)
    assert state.read_text() == "THAWED"


def test_without_any_freezer_it_is_unsupported(made_up):
    """With what would make it possible; a group that has gone is another thing."""
    groups, state = made_up
    (one,) = groups.find()
    state.unlink()
    with pytest.raises(Unsupported, match="no freezer"):
        groups.freeze(one, still=True)
    state.parent.rmdir()
    with pytest.raises(TargetGone):
        groups.freeze(one, still=True)


def test_the_root_is_never_touched(tmp_path):
    """A group without a path would be the whole machine."""
    (tmp_path / "cgroup.controllers").write_text("")
    for name in ("cgroup.freeze", "cgroup.kill", "cgroup.events"):
        (tmp_path / name).write_text("")
    groups = Groups(root=tmp_path, proc=tmp_path)
    one = Group(names_of(b"0::/"), {V2: b"", FREEZER: b""})
    with suppress(TargetGone, Unsupported):
        groups.freeze(one, still=True)
    groups.kill(one, 0)
    assert [(tmp_path / name).read_text() for name in ("cgroup.freeze", "cgroup.kill")] == ["", ""]


def test_a_proc_of_another_namespace_ends_nobody(made_up):
    """Its numbers mean somebody else here."""
    groups, _state = made_up
    with pytest.raises(Unsupported, match="another pid namespace"):
        groups.kill(groups.find()[0], 0)


@pytest.mark.parametrize("damage", ["cgroup", "stat", "status"])
def test_a_process_that_ends_meanwhile_is_left_out(made_up, tmp_path, damage):
    """Its files may go at any time; the container stays."""
    groups, _state = made_up
    (tmp_path / "proc/71" / damage).unlink()
    assert [one.first.pid for one in groups.find()] == [70]


def test_no_more_containers_than_the_bound(made_up, tmp_path, monkeypatch):
    """The processes of those that are known are counted all the same."""
    groups, _state = made_up
    monkeypatch.setattr(container_groups, "MAX_CONTAINERS", 1)
    add_process(tmp_path / "proc", 72, f"6:freezer:/docker/{OTHER}")
    add_process(tmp_path / "proc", 73, f"6:freezer:/docker/{ID}")
    (one,) = groups.find()
    assert sorted(member.pid for member in one.members) in ([70, 71, 73], [72])


def test_a_user_with_many_hides_nobody_elses(made_up, tmp_path, monkeypatch):
    """Each user has a bound of their own."""
    groups, _state = made_up
    monkeypatch.setattr(container_groups, "MAX_OF_USER", 2)
    monkeypatch.setattr(container_groups, "MAX_CONTAINERS", 1)
    for pid in range(2, 22):
        user = 1000 + pid % 2
        add_process(tmp_path / "proc", pid, f"0::/user.slice/user-{user}.slice/libpod-{pid:064x}.scope")
    assert sorted(str(one.names.user) for one in groups.find()) == ["1000", "1000", "1001", "1001", "None"]


def test_where_they_are_is_told(made_up, tmp_path):
    """The folders, or that there are none."""
    assert made_up[0].mounts == str(tmp_path / "cgroup/freezer")
    assert Groups(root=tmp_path / "nowhere").mounts == "nowhere"
