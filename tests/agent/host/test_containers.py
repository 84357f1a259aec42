"""The containers of a machine: runtimes that are played on sockets, with real control groups of the test's own."""

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import pytest

from stanch.actions.kill_container import ContainerKilled, KillContainer, kill_container
from stanch.actions.pause_container import PauseContainer, pause_container, resume_container
from stanch.agent.host import container_groups
from stanch.agent.host import containers as module
from stanch.agent.host.containers import LinuxContainers, _is_in_place_of
from stanch.core.action import Verdict
from stanch.core.containers import Container, ContainerState
from stanch.core.errors import ActionFailed, Conflict, TargetGone, Unavailable, Unsupported
from stanch.core.types import seconds
from tests.agent.host.container_world import add_process, end, real_container
from tests.agent.host.played_runtime import ID, OTHER, PlayedRuntime, always, row, silent
from tests.fakes.host import FakeEndpoint
from tests.fakes.waiting import eventually

real = pytest.mark.root
USERS = "user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{}.scope"


async def no_crictl():
    raise Unsupported("The program crictl is not installed")


@pytest.fixture
def machine(tmp_path):
    """The containers of a machine whose runtimes are below tmp_path/run; its control groups are the real ones."""

    def make(**more):
        parts = {"folders": [tmp_path / "run"], "owner": os.geteuid(), "crictl": no_crictl, "root": tmp_path} | more
        return LinuxContainers(**parts)

    return make


@pytest.fixture
def empty(machine, tmp_path):
    """The same without any process."""
    (tmp_path / "proc").mkdir()
    return lambda **more: machine(proc=tmp_path / "proc", cgroups=tmp_path / "cgroup", **more)


@pytest.fixture
def docker(tmp_path):
    return tmp_path / "run" / "docker.sock"


@asynccontextmanager
async def played(path, container, **more):
    """A runtime that knows a real container, and really ends it."""
    kills = {"kill": lambda: [end(child.pid) for child in container.children]}
    async with (runtime := PlayedRuntime(rows=[row(container.id)], does=kills, **more)).listening(path):
        yield runtime


def frozen(container):
    return "frozen 1" in container.says("cgroup.events")


# --- looking ---------------------------------------------------------------------------------------------------------


@real
async def test_what_is_told_and_what_is_shown_is_one(machine, docker):
    """A container that the runtime tells of, and one that only the control groups show."""
    with real_container() as container, real_container(name="lxc.payload.web-{}") as other:
        async with played(docker, container):
            listed = {one.id: one for one in await machine().list()}
    one = listed[container.id]
    assert (one.name, one.runtime, one.state, one.processes) == ("shop", "docker", ContainerState.RUNNING, 2)
    assert (one.pid, one.cgroup) == (container.children[0].pid, f"/{container.path}")
    assert one.started is not None
    assert "it shares the pid namespace (processes) with the machine" in one.notes
    assert listed[f"web-{other.id}"].runtime == "lxc"


async def test_those_that_run_come_first(empty, docker):
    """Then those that do not, each by runtime and name."""
    rows = [row(state="exited", name="/a"), row(OTHER, name="/z")]
    async with PlayedRuntime(rows=rows).listening(docker):
        assert [one.name for one in await empty().list()] == ["z", "a"]


async def test_two_with_one_name_are_a_conflict(empty, docker):
    """In different runtimes it is possible."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(PlayedRuntime().listening(docker))
        other = PlayedRuntime(rows=[row(OTHER)], podman=True)
        await stack.enter_async_context(other.listening(docker.parent / "podman/podman.sock"))
        assert (await empty().find(ID[:12])).id == ID
        with pytest.raises(Conflict, match=f"podman {OTHER}"):
            await empty().find("shop")


async def test_what_crictl_tells_is_there(empty):
    """By the name of its pod."""

    async def crictl():
        return (
            b'{"containers": [{"id": "%s", "state": "CONTAINER_RUNNING", "metadata": {"name": "web"}}]}' % ID.encode()
        )

    (one,) = await empty(crictl=crictl).list()
    assert (one.id, one.name, one.runtime, one.state) == (ID, "web", "containerd", ContainerState.RUNNING)


async def test_it_says_which_runtimes_answer_and_why_not(empty, docker, tmp_path):
    """Each way in a line."""
    docker.parent.mkdir()
    async with AsyncExitStack() as stack:
        for path, answer in ((docker, None), (docker.parent / "user/7/docker.sock", always("nonsense"))):
            await stack.enter_async_context(PlayedRuntime(answer=answer).listening(path))
        os.chown(docker.parent / "user/7/docker.sock", 7, 7) if os.geteuid() == 0 else None
        found = await empty().runtimes()
    lines = [str(one) for one in found]
    assert lines[:3] == [
        "control groups at nowhere: they show 0 containers with processes",
        f"podman at {docker.parent}/podman/podman.sock: it is not there",
        f"docker at {docker}: it tells of 1 containers",
    ]
    assert lines[3].startswith(f"docker at {docker.parent}/user/7/docker.sock of user 7: it ")
    assert lines[4] == "crictl at crictl: The program crictl is not installed"
    assert [one.answers for one in found] == [False, False, True, False, False]


@real
async def test_many_silent_users_do_not_hold_up_the_machine(empty, docker, monkeypatch):
    """The machine's runtimes are asked first, and all of it ends."""
    monkeypatch.setattr(module, "AT_ONCE", 2)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(PlayedRuntime().listening(docker))
        for user in range(1000, 1006):
            path = docker.parent / f"user/{user}/docker.sock"
            await stack.enter_async_context(PlayedRuntime(answer=silent).listening(path))
            os.chown(path, user, user)
        found = await empty(within=seconds(0.3)).runtimes()
    assert [one.answers for one in found if one.name == "docker"] == [True, *[False] * 6]
    assert all("silent" in one.detail for one in found[3:-1])


# --- pause and resume ------------------------------------------------------------------------------------------------


@real
async def test_without_a_runtime_the_control_group_does_it(machine):
    """Held, let go, ended; each may be repeated, and another agent sees it."""
    with real_container() as container:
        one = await machine().find(container.id)
        for _ in range(2):
            await machine().pause(one)
            assert (frozen(container), (await machine().find(one.id)).state) == (True, ContainerState.PAUSED)
        for _ in range(2):
            await machine().resume(one)
            assert (frozen(container), (await machine().find(one.id)).state) == (False, ContainerState.RUNNING)
        for _ in range(2):
            await machine().kill(one)
            assert (container.pids, await machine().find(one.id)) == ([], None)


@real
@pytest.mark.parametrize("how", [{}, {"podman": True}, {"lies": True}])
async def test_the_runtime_is_asked_and_the_kernel_believed(machine, docker, how):
    """The runtime knows of it; whether it did it is seen in the control group, and done there if it did not."""
    with real_container() as container:
        async with played(docker, container, **how) as runtime:
            one = await machine().find("shop")
            await machine().pause(one)
            assert frozen(container)
            await machine().resume(one)
            assert not frozen(container)
            await machine().kill(one)
        assert container.pids == []
    asked = [one.rpartition("/")[2] for one in runtime.asked if one.startswith("POST")]
    assert asked == ["pause", "unpause", "kill?signal=SIGKILL"]


@real
@pytest.mark.parametrize("answer", [always("no", status=500), always("[]", status=404)])
async def test_where_the_runtime_refuses_the_control_group_does_it(machine, docker, answer):
    """It may be broken, or in the attacker's hands."""
    with real_container() as container:
        one = await machine().find(container.id)
        async with PlayedRuntime(answer=answer).listening(docker):
            await machine().pause(one)
            assert frozen(container)
            await machine().resume(one)
            await machine().kill(one)
        assert container.pids == []


async def test_without_a_control_group_the_runtime_does_it(empty, docker):
    """It may run where we do not see its processes; what it refuses is told."""
    async with (runtime := PlayedRuntime()).listening(docker):
        one = await empty().find("shop")
        await empty().pause(one)
        await empty().resume(one)
        await empty().kill(one)
        await empty().kill(one)
        assert runtime.changed == ["pause ab", "unpause ab", "kill ab"]
        with pytest.raises(TargetGone, match="does not run"):
            await empty().pause(one)
    with pytest.raises(TargetGone):
        await empty().resume(one)


async def test_what_the_runtime_refuses_is_told(empty, docker):
    """If there is no other way."""
    async with (runtime := PlayedRuntime()).listening(docker):
        one = await empty().find("shop")

        async def refuses(request):
            if request.method == "POST":
                return await always('{"message": "disk full"}', status=500)(request)
            return await served(request)

        played_rows = PlayedRuntime(rows=runtime.rows)
        served, runtime.answer = played_rows._serve, refuses
        for do in (empty().pause, empty().kill):
            with pytest.raises(ActionFailed, match="disk full"):
                await do(one)


@real
async def test_a_users_runtime_is_only_read(machine, docker):
    """Its containers are held and ended by the group in the user's slice, whatever the user's program says."""
    path = docker.parent / "user/1000/podman/podman.sock"
    with real_container(name=USERS) as container:
        async with played(path, container, lies=True) as runtime:
            os.chown(path, 1000, 1000)
            one = await machine().find("shop")
            assert (one.user, one.id) == (1000, container.id)
            await machine().pause(one)
            assert frozen(container)
            await machine().resume(one)
            await machine().kill(one)
        assert container.pids == []
    assert not [one for one in runtime.asked if one.startswith("POST")]


@real
async def test_a_users_runtime_cannot_have_another_container_paused(machine, docker):
    """It names the id of the machine's: what the order means is the machine's, and the user's has no group."""
    path = docker.parent / "user/1000/podman/podman.sock"
    with real_container() as container:
        async with played(path, container):
            os.chown(path, 1000, 1000)
            assert (await machine().find(container.id)).user is None
            claimed = await machine().find("shop")
            assert claimed.user == 1000
            for do in (machine().pause, machine().resume, machine().kill):
                with pytest.raises(Unsupported, match="no control group"):
                    await do(claimed)
        assert not frozen(container)
        assert len(container.pids) == 2


async def test_a_pause_that_is_cancelled_is_finished_first(empty, docker):
    """Whoever looks afterwards sees what came of it: nothing happens behind their back."""
    arrived, go_on = asyncio.Event(), asyncio.Event()
    async with (runtime := PlayedRuntime()).listening(docker):
        one = await empty().find("shop")
        honest = PlayedRuntime(rows=runtime.rows)

        async def slowly(request):
            if request.method == "POST":
                arrived.set()
                await go_on.wait()
            return await honest._serve(request)

        runtime.answer = slowly
        task = asyncio.get_running_loop().create_task(empty().pause(one))
        await eventually(arrived.is_set)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert runtime.rows[0]["State"] == "paused"


# --- killing, and what comes after -----------------------------------------------------------------------------------


@real
async def test_one_that_was_started_anew_is_not_killed_for_the_old_one(machine):
    """An order that is repeated after a crash of the agent ends nothing that came later."""
    with real_container() as container:
        one = await machine().find(container.id)
        earlier = one.model_copy(update={"cgroup_number": one.cgroup_number + 1})
        await machine().kill(earlier)
        assert len(container.pids) == 2
        assert (await machine().started_anew(earlier, within=seconds(0.01))).cgroup_number == one.cgroup_number
        assert await machine().started_anew(one, within=seconds(0.01)) is None


SLICE = "user.slice/user-1000.slice/user@1000.service/user.slice"


@pytest.fixture
def of_a_user(empty, tmp_path):
    """A machine without groups that are seen, in which processes of user 1000 are in groups that bear one id."""

    def make(*places):
        for pid, place in enumerate(places, 100):
            add_process(tmp_path / "proc", pid, f"0::/{SLICE}/{place}/libpod-{ID}.scope")
            (tmp_path / f"cgroup/unified/{SLICE}/{place}/libpod-{ID}.scope").mkdir(parents=True)
        return empty()

    return make


async def test_a_decoy_that_takes_the_id_is_not_taken_for_the_one_that_is_meant(of_a_user, tmp_path, monkeypatch):
    """A user makes another group with the id, which comes first in the list: the order is for the group it was for."""
    machine = of_a_user("real")
    one = await machine.find(ID)
    held = []
    monkeypatch.setattr(machine._groups, "freeze", lambda group, *, still: held.append(group.path))
    monkeypatch.setattr(machine._groups, "kill", lambda group, number: held.append(group.path))
    decoy = f"{SLICE}/a/libpod-{ID}.scope"
    (tmp_path / "cgroup/unified" / decoy).mkdir(parents=True)
    add_process(tmp_path / "proc", 99, f"0::/{decoy}")
    assert (await machine.find(ID)).cgroup_number != one.cgroup_number
    await machine.pause(one)
    await machine.kill(one)
    assert held == [f"{SLICE}/real/libpod-{ID}.scope".encode()] * 2


async def test_one_keeps_the_id_with_its_digest_when_the_other_has_gone(of_a_user, tmp_path):
    """What was paused by it can be resumed by it, and is not told to have ended."""
    machine = of_a_user("a", "real")
    (named,) = [one.id for one in await machine.list() if ":" in one.id]
    (tmp_path / "proc/100/cgroup").write_text("0::/\n")
    assert [one.id for one in await machine.list()] == [ID]
    assert (await machine.find(named)).cgroup.startswith(f"/{SLICE}/real/")


async def test_nobody_hides_a_container_by_making_many(of_a_user, tmp_path, monkeypatch):
    """Beyond what is listed, which is told, each is found by its id, and is not taken to have ended."""
    monkeypatch.setattr(container_groups, "MAX_OF_USER", 3)
    machine = of_a_user()
    for pid in range(1, 10):
        add_process(tmp_path / "proc", pid, f"0::/{SLICE}/libpod-{pid:064x}.scope")
    assert len(await machine.list()) == 3
    assert (await machine.find(f"{9:064x}")).pid == 9
    assert "not all of them" in str((await machine.runtimes())[0])


async def test_one_that_only_a_silent_runtime_knows_of_is_not_told_to_have_ended(empty, docker):
    """It may well run: nobody says anything."""
    endpoint = FakeEndpoint()
    endpoint.containers = empty(within=seconds(0.2))
    async with PlayedRuntime().listening(docker):
        one = await empty().find("shop")
    async with PlayedRuntime(answer=silent).listening(docker):
        with pytest.raises(Unavailable, match="cannot be told"):
            await endpoint.containers.kill(one)
        result = ContainerKilled(changed=True, container=one)
        check = await kill_container.verify(endpoint.host, KillContainer(container=ID), result)
    assert check.verdict is Verdict.CANNOT_TELL


@real
async def test_a_silent_user_does_not_hold_up_what_is_done_to_the_machines(empty, docker):
    """Once it is chosen, only whoever may know of it is asked."""
    path = docker.parent / "user/1000/docker.sock"
    async with PlayedRuntime().listening(docker), (other := PlayedRuntime(rows=[row(OTHER)])).listening(path):
        os.chown(path, 1000, 1000)
        one = await empty().find(ID)
        before = len(other.asked)
        await empty().why_protected(one)
        await empty().kill(one)
        assert (before, len(other.asked)) == (1, 1)


NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ONE = Container(id=ID, name="p/web", pod="p-1", runtime="containerd", state="running", cgroup_number=5, started=NOON)


@pytest.mark.parametrize(("other", "expected"), [
    ({}, False),
    ({"cgroup_number": 6}, True),
    ({"cgroup_number": 6, "state": ContainerState.STOPPED}, False),
    ({"id": OTHER, "started": NOON.replace(hour=13)}, True),
    ({"id": OTHER, "started": NOON.replace(hour=11)}, False),
    ({"id": OTHER, "started": NOON.replace(hour=13), "pod": "p-2"}, False),
    ({"id": OTHER, "started": NOON.replace(hour=13), "name": "p/log"}, False),
    ({"id": OTHER, "started": NOON.replace(hour=13), "pod": "", "name": ""}, False),
])  # fmt: skip
def test_what_is_in_place_of_one(other, expected):
    """The same with a new group, or a later one of that name in that pod: a kubelet gives each a new id."""
    assert _is_in_place_of(ONE.model_copy(update=other), ONE) is expected


@pytest.mark.parametrize(("policy", "words"), [
    ("no", None),
    ("always", "docker, whose restart policy for it is always"),
    ("unless-stopped", "docker, whose restart policy for it is unless-stopped"),
])  # fmt: skip
async def test_the_restart_policy_is_told(empty, docker, policy, words):
    """In words."""
    async with PlayedRuntime(restart=policy).listening(docker):
        one = await empty().find("shop")
        assert await empty().restarts(one) == words


async def test_the_unit_and_the_kubelet_are_told(empty, docker, tmp_path):
    """Who keeps it, from the files of the unit and the label of the pod."""
    unit = tmp_path / "etc/systemd/system/shop.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nRestart=always\n")
    labels = {"PODMAN_SYSTEMD_UNIT": "shop.service", "io.kubernetes.pod.uid": "p-1"}
    async with PlayedRuntime(rows=[row(Labels=labels)]).listening(docker):
        words = await empty().restarts(await empty().find("shop"))
    assert words.startswith("the kubelet, unless")
    assert words.endswith("; systemd, since shop.service has Restart=always")


async def test_a_runtime_that_does_not_tell_may_start_it_anew(empty, docker):
    """It is not claimed that nobody does."""
    async with (runtime := PlayedRuntime()).listening(docker):
        one = await empty().find("shop")
        honest = PlayedRuntime(rows=runtime.rows)

        async def answer(request):
            refuse = request.path != "/containers/json"
            return await (always("{}", status=500) if refuse else honest._serve)(request)

        runtime.answer = answer
        assert (
            await empty().restarts(one) == "perhaps docker, which does not tell: it answers with status 500 (no reason)"
        )
        assert await empty().loses(one) is None


@pytest.mark.parametrize("removes", [False, True])
async def test_what_is_lost_is_told(empty, docker, removes):
    """A container that was started with --rm goes with its files."""
    async with PlayedRuntime(removes=removes).listening(docker):
        words = await empty().loses(await empty().find("shop"))
    assert words == ("docker removes it when it ends, with the files that it wrote" if removes else None)


@real
async def test_the_actions_on_a_real_one(machine, monkeypatch):
    """Paused, taken back, and ended, each seen by its own look."""
    monkeypatch.setattr("stanch.actions.kill_container.WATCHED", seconds(0.01))
    endpoint = FakeEndpoint()
    endpoint.containers = machine()
    with real_container() as container:
        params = PauseContainer(container=container.id[:12])
        paused = await pause_container.run(endpoint.host, params)
        assert (paused.changed, frozen(container)) == (True, True)
        assert (await pause_container.verify(endpoint.host, params, paused)).verdict is Verdict.IN_PLACE
        _name, back = pause_container.undo_params(params, paused)
        assert (await resume_container.run(endpoint.host, back)).changed
        assert not frozen(container)
        order = KillContainer(container=container.id)
        killed = await kill_container.run(endpoint.host, order)
        assert (killed.container.processes, container.pids) == (2, [])
        assert (await kill_container.verify(endpoint.host, order, killed)).verdict is Verdict.IN_PLACE


# --- what must not be touched ----------------------------------------------------------------------------------------


@real
async def test_the_agents_own_container_is_protected(machine):
    """The one that the agent is in, and the one of whatever started it; no other."""
    with real_container() as container, real_container() as other:
        mine = machine(me=lambda: container.children[0].pid)
        assert await mine.why_protected(await mine.find(container.id)) == "Stanch's agent runs in it"
        assert await mine.why_protected(await mine.find(other.id)) is None


async def test_whatever_started_the_agent_is_protected(empty, tmp_path):
    """And the first process of the machine."""
    add_process(tmp_path / "proc", 60, f"0::/docker/{ID}")
    add_process(tmp_path / "proc", 61, "0::/")
    (tmp_path / "proc/61/status").write_text("PPid:\t60\n")
    add_process(tmp_path / "proc", 1, f"0::/docker/{OTHER}")
    mine = empty(me=lambda: 61)
    reasons = [await mine.why_protected(await mine.find(number)) for number in (ID, OTHER)]
    assert reasons == ["what started Stanch's agent runs in it", "the first process of the machine runs in it"]


async def test_a_container_that_does_not_see_its_own_group_is_protected(empty, docker, tmp_path):
    """An agent in a container with the runtime's socket: it knows itself by the files that were mounted into it."""
    (tmp_path / "proc/self").mkdir()
    mount = f"9 8 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 x rw\n"
    (tmp_path / "proc/self/mountinfo").write_text(mount)
    async with PlayedRuntime(rows=[row(), row(OTHER, name="/blog")]).listening(docker):
        assert await empty().why_protected(await empty().find("shop")) == "Stanch's agent runs in it"
        assert await empty().why_protected(await empty().find("blog")) is None
