"""Docker and Podman behind their sockets: honest, slow, huge, lying, refusing, and sockets of the wrong people."""

import asyncio
import os
import socket

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import container_sockets
from stanch.agent.host.container_sockets import Ending, RuntimeSocket, Socket, Told, _told, sockets, why
from stanch.core.errors import ActionFailed, TargetGone, TimedOut, Unavailable
from stanch.core.types import seconds
from tests.agent.host.played_runtime import ID, OTHER, PlayedRuntime, always, endless, row, silent

ME = os.geteuid()
QUICK = seconds(0.2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "docker.sock"


@pytest.fixture
def one(path):
    return RuntimeSocket(Socket("docker", path), root=ME)


# --- what it tells ---------------------------------------------------------------------------------------------------


async def test_containers_are_told(path, one):
    """Each with id, name, image, state, and what keeps it."""
    labels = {"PODMAN_SYSTEMD_UNIT": "shop.service", "io.kubernetes.pod.uid": "p-1"}
    played = PlayedRuntime(rows=[row(Labels=labels), row(OTHER, name="/old", state="Exited")])
    async with played.listening(path):
        assert await one.containers() == [
            Told(ID, "shop", "registry.example/shop:3", "running", "shop.service", "p-1"),
            Told(OTHER, "old", "registry.example/shop:3", "exited", "", ""),
        ]
    assert played.asked == ["GET /containers/json?all=1"]


async def test_what_it_does_when_one_ends_is_told(path, one):
    """Its restart policy, and whether it removes it."""
    played = PlayedRuntime(restart="always", removes=True)
    async with played.listening(path):
        assert await one.ending(ID) == Ending("always", removes=True)
        played.restart, played.removes = "no", False
        assert await one.ending(ID) == Ending("", removes=False)


async def test_an_unknown_container_is_target_gone(path, one):
    """With what the runtime says; and what is no id is not even asked for."""
    async with (played := PlayedRuntime()).listening(path):
        with pytest.raises(TargetGone, match="No such container"):
            await one.ending(OTHER)
        for bad in ("../../images/prune", "shop", ID + "?x", ""):
            with pytest.raises(TargetGone):
                await one.pause(bad)
    assert played.asked == [f"GET /containers/{OTHER}/json"]


# --- what it does ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("podman", [False, True])
async def test_pause_resume_and_kill_may_be_repeated(path, one, podman):
    """Docker and Podman answer differently that it is so already: to both it is done once."""
    played = PlayedRuntime(podman=podman)
    async with played.listening(path):
        for do in (one.pause, one.pause, one.resume, one.resume, one.kill, one.kill):
            await do(ID)
    assert played.changed == ["pause ab", "unpause ab", "kill ab"]


async def test_one_that_has_gone_is_killed(path, one):
    """A container that was removed meanwhile needs no end; to pause it is to miss it."""
    async with PlayedRuntime(rows=[]).listening(path):
        await one.kill(ID)
        with pytest.raises(TargetGone):
            await one.pause(ID)


async def test_a_refusal_is_told_with_its_reason(path, one):
    """If it is not so afterwards, it was not done."""
    played = PlayedRuntime(rows=[row(state="exited")])
    async with played.listening(path):
        with pytest.raises(ActionFailed) as raised:
            await one.pause(ID)
    assert why(raised.value) == f"it answers with status 409 ({ID} is exited)"


# --- hostile answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "nonsense", "{}", "null", "[" * 100_000, '{"message": 5}', '"\\ud800"', "1e999"])
async def test_nonsense_is_a_failure(path, one, text):
    """Whatever is no list of containers, however it is nested."""
    async with PlayedRuntime(answer=always(text)).listening(path):
        with pytest.raises(ActionFailed, match="it answers"):
            await one.containers()


@pytest.mark.parametrize("status", [301, 400, 500, 503])
async def test_an_error_is_a_failure(path, one, status):
    """With its status; nobody is led elsewhere."""
    async with PlayedRuntime(answer=always('{"message": "no"}', status=status)).listening(path):
        with pytest.raises(ActionFailed, match=rf"status {status} \(got no\)"):
            await one.containers()


async def test_silence_ends(path):
    """What never answers is given up, with the time that was waited."""
    one = RuntimeSocket(Socket("docker", path), root=ME, within=QUICK)
    async with PlayedRuntime(answer=silent).listening(path):
        with pytest.raises(TimedOut, match=r"silent for 0\.2 seconds"):
            await one.containers()


@pytest.mark.parametrize("user", [None, ME])
async def test_too_much_is_not_read(path, user, monkeypatch):
    """Neither of the machine's runtime nor of a user's, which may tell less."""
    monkeypatch.setattr(container_sockets, "MAX_BODY", 200_000)
    monkeypatch.setattr(container_sockets, "MAX_USERS_BODY", 100_000)
    async with PlayedRuntime(answer=endless).listening(path):
        with pytest.raises(ActionFailed, match=f"more than {200_000 if user is None else 100_000} bytes"):
            await RuntimeSocket(Socket("docker", path, user), root=ME).containers()


async def test_no_more_containers_than_the_bound(path, one, monkeypatch):
    """The rest is left out."""
    monkeypatch.setattr(container_sockets, "MAX_CONTAINERS", 3)
    async with PlayedRuntime(rows=[row(f"{number:064x}") for number in range(9)]).listening(path):
        assert len(await one.containers()) == 3


async def test_a_connection_that_is_cut_is_unavailable(path, one):
    """In the middle of the answer, too."""

    async def cut(request):
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"[")
        request.transport.abort()
        return answer

    async with PlayedRuntime(answer=cut).listening(path):
        with pytest.raises(Unavailable, match="it refuses"):
            await one.containers()


async def test_what_is_no_http_is_a_failure(path, one):
    """A daemon that speaks something else."""

    async def babble(reader, writer):
        writer.write(b"220 mail.example ESMTP\r\n" * 10)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(babble, path):
        with pytest.raises((ActionFailed, Unavailable)):
            await one.containers()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {"Id": st.just(ID) | JSON}, optional=dict.fromkeys(["Names", "Image", "State", "Labels"], JSON)
    )
)
def test_any_row_is_read_or_left_out(found):
    """Fields of the wrong type are empty, and long ones are cut; what has no id is no row."""
    told = _told(found)
    assert (told is None) is (found["Id"] != ID)
    if told is not None:
        assert max(map(len, (told.name, told.image, told.state, told.unit, told.pod))) <= 200


# --- whose socket it is ----------------------------------------------------------------------------------------------


def listening(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    return server


@pytest.mark.parametrize(("make", "reason"), [
    (lambda _path: None, "it is not there"),
    (lambda path: path.write_text("x"), "it is no socket"),
    (lambda path: path.mkdir(), "it is no socket"),
    (os.mkfifo, "it is no socket"),
    (lambda path: listening(path).close(), "it refuses"),
])  # fmt: skip
async def test_what_is_no_socket_is_told(path, one, make, reason):
    """Absent, something else, or nobody listens: each in words."""
    make(path)
    with pytest.raises(Unavailable, match=reason):
        await one.containers()


async def test_a_socket_of_somebody_else_is_not_spoken_to(path):
    """Whoever can put a socket into the place of the runtime's would be asked to kill, and be believed."""
    async with (played := PlayedRuntime()).listening(path):
        for owner in (Socket("docker", path), Socket("docker", path, ME + 1)):
            with pytest.raises(Unavailable, match=f"belongs to user {ME}, not to user {ME + 1}"):
                await RuntimeSocket(owner, root=ME + 1).containers()
    assert played.asked == []


async def test_a_users_link_is_not_followed(tmp_path):
    """A user may not have us speak with the machine's runtime in their name; root's own links may."""
    link = tmp_path / "link.sock"
    link.symlink_to(tmp_path / "docker.sock")
    async with (played := PlayedRuntime()).listening(tmp_path / "docker.sock"):
        with pytest.raises(Unavailable, match="it is no socket"):
            await RuntimeSocket(Socket("docker", link, ME)).containers()
        assert played.asked == []
        assert await RuntimeSocket(Socket("docker", link), root=ME).containers()


def test_sockets_are_looked_for_where_runtimes_put_them(tmp_path):
    """Those of the machine in any case, those of users if they are there, root's own as the machine's."""
    run = tmp_path / "run"
    for name in (
        "user/1000/podman/podman.sock",
        "user/1000/docker.sock",
        "user/0/podman/podman.sock",
        "user/x/docker.sock",
        "user/9999999999/docker.sock",
        "user/01/docker.sock",
    ):
        listening(run / name).close()
    assert sockets([run]) == [
        Socket("podman", run / "podman/podman.sock"),
        Socket("docker", run / "docker.sock"),
        Socket("podman", run / "user/0/podman/podman.sock"),
        Socket("podman", run / "user/1000/podman/podman.sock", 1000),
        Socket("docker", run / "user/1000/docker.sock", 1000),
    ]


@pytest.mark.parametrize("same", [True, False])
def test_a_second_folder_counts_if_it_is_another(tmp_path, same):
    """/var/run is a link to /run on most machines, and a folder of its own on old ones."""
    run, old = tmp_path / "run", tmp_path / "old"
    listening(run / "docker.sock").close()
    if same:
        old.symlink_to(run)
    else:
        listening(old / "docker.sock").close()
    assert (Socket("docker", old / "docker.sock") in sockets([run, old])) is not same
