"""The sockets: whoever may not ask, and whatever is no question, gets an error and nothing else."""

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.control import (
    EVERYBODYS,
    MAX_CLIENTS,
    MAX_LINE_BYTES,
    ROOTS,
    Control,
    Manners,
    Question,
    WhoIs,
    alone,
    peer_uid,
    read_question,
)
from stanch.core.errors import Denied, Invalid

asked: list[str] = []


async def who(question: Question) -> Mapping[str, Any]:
    return {"uid": question.uid, "said": dict(question.said)}


async def status() -> Mapping[str, Any]:
    asked.append("status")
    return {"endpoint": "ep_1"}


async def refuse() -> Mapping[str, Any]:
    raise Denied("Not today", got="x", expected="y")


async def break_down() -> Mapping[str, Any]:
    raise ZeroDivisionError


ANSWERS = {"status": alone(status), "refuse": alone(refuse), "break": alone(break_down), "who": who}


@asynccontextmanager
async def control(path: Path, *, who_is: WhoIs = peer_uid, manners: Manners = ROOTS) -> AsyncIterator[Path]:
    asked.clear()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Control(path, ANSWERS, who_is=who_is, manners=manners).run())
        await answering(path)
        yield path
        task.cancel()


@pytest.fixture
async def listening(tmp_path: Path) -> AsyncIterator[Path]:
    async with control(tmp_path / "run" / "agent.sock") as path:
        yield path


async def ask(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send the lines one after the other; the answers, fewer if the agent hung up."""
    reader, writer = await asyncio.open_unix_connection(path)
    answers = []
    try:
        async with asyncio.timeout(10):
            for line in lines:
                writer.write(line)
                if answer := await reader.readline():
                    answers.append(json.loads(answer))
    finally:
        writer.close()
    return answers


async def answering(path: Path) -> list[dict[str, Any]]:
    """Ask until somebody listens."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await ask(path, b'{"do": "status"}\n')
            except OSError:
                await asyncio.sleep(0.005)


async def test_a_question_is_answered(listening):
    """One line in, one line out, as often as one likes."""
    question = b'{"do": "status"}\n'
    assert await ask(listening, question, question) == [{"ok": True, "value": {"endpoint": "ep_1"}}] * 2


async def test_only_this_account_may_enter(listening):
    """The socket is closed to others from the first moment; its folder may be passed, for the other socket."""
    assert stat.S_IMODE(listening.stat().st_mode) == 0o600
    assert stat.S_IMODE(listening.parent.stat().st_mode) == 0o711


async def test_another_account_is_refused_even_if_it_could_connect(tmp_path):
    """A permission that was changed by mistake does not let others in: the kernel knows who they are."""
    async with control(tmp_path / "run" / "agent.sock", who_is=lambda _client: 65_534) as path:
        asked.clear()
        (answer,) = await ask(path, b'{"do": "status"}\n')
    assert (answer["ok"], answer["error"]["code"]) == (False, "denied")
    assert asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_the_kernel_tells_who_connected():
    """The account of the other end is taken from the kernel."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{\n", b"[]\n", b'{"do": 1}\n', b'{"do": "launch"}\n', b"\xff\xfe\n", b"[" * 3000 + b"\n"],
    ids=["empty", "cut", "list", "number", "unknown", "bytes", "deep"],
)
async def test_garbage_is_answered_with_an_error(listening, line):
    """What is no question gets an error with what would be one, and the connection goes on."""
    wrong, right = await ask(listening, line, b'{"do": "status"}\n')
    assert (wrong["ok"], wrong["error"]["code"]) == (False, "invalid")
    assert right["ok"]


async def test_an_endless_line_is_cut_off(listening):
    """A line over the bound is answered once, and the connection closed."""
    answers = await ask(listening, b"x" * (MAX_LINE_BYTES + 100))
    assert answers[0]["error"]["code"] == "too-large"
    assert await ask(listening, b'{"do": "status"}\n') == [{"ok": True, "value": {"endpoint": "ep_1"}}]


async def test_errors_come_back_as_errors(listening):
    """A refusal tells its reason; a defect tells that there is one, and nothing of the inside."""
    refused, broken = await ask(listening, b'{"do": "refuse"}\n', b'{"do": "break"}\n')
    assert (refused["error"]["message"], refused["error"]["got"]) == ("Not today", "x")
    assert broken["error"]["code"] == "internal"
    assert "Zero" not in json.dumps(broken)


async def test_clients_that_leave_or_wait_do_no_harm(listening):
    """Whoever connects and says nothing, or leaves in the middle, does not keep others out."""
    for _ in range(3 * MAX_CLIENTS):
        _, writer = await asyncio.open_unix_connection(listening)
        writer.write(b'{"do"')
        writer.close()
    assert (await ask(listening, b'{"do": "status"}\n'))[0]["ok"]


async def test_the_socket_of_a_dead_agent_is_replaced(tmp_path):
    """A socket file that nobody serves is taken over."""
    path = tmp_path / "agent.sock"
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Control(path, ANSWERS).run())
        answers = await answering(path)
        task.cancel()
    assert answers[0]["ok"]
    assert not path.exists()


async def test_what_is_no_socket_is_not_removed(tmp_path):
    """Without a place for its socket the agent goes on, and leaves alone what is there."""
    tmp_path.chmod(0o700)
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    await Control(path, ANSWERS).run()
    assert path.read_text() == "precious"


async def test_a_second_agent_does_not_take_the_socket(listening):
    """The socket stays with the agent that serves it."""
    await Control(listening, ANSWERS).run()
    assert (await ask(listening, b'{"do": "status"}\n'))[0]["ok"]


async def test_a_folder_that_is_open_to_others_is_not_used(tmp_path):
    """A socket in a folder that others may write to could be replaced by theirs."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    await Control(folder / "agent.sock", ANSWERS).run()
    assert list(folder.iterdir()) == []


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(line):
    """Whatever comes is a question, or an error of ours."""
    with suppress(Invalid):
        assert isinstance(read_question(line)["do"], str)


# --- everybody's socket ---

WHO = b'{"do": "who", "code": "x"}\n'


@pytest.fixture
async def public(tmp_path: Path) -> AsyncIterator[Path]:
    before = os.umask(0o077)  # as systemd starts it
    try:
        async with control(tmp_path / "run" / "code.sock", manners=EVERYBODYS) as path:
            yield path
    finally:
        os.umask(before)


async def test_everybody_may_enter_the_other_socket(public):
    """Whatever the umask is; and nobody but us may put anything into its folder."""
    assert stat.S_IMODE(public.stat().st_mode) == 0o666
    assert stat.S_IMODE(public.parent.stat().st_mode) == 0o711


async def test_the_answer_knows_who_asks_and_what(public):
    """The account is the kernel's word, whatever the line says."""
    (answer,) = await ask(public, b'{"do": "who", "uid": 7}\n')
    assert answer["value"] == {"uid": os.geteuid(), "said": {"do": "who", "uid": 7}}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_another_account_is_heard_and_known():
    """A process of another account reaches everybody's socket, and not root's."""
    folder = Path(tempfile.mkdtemp(prefix="stanch-run-"))
    os.chmod(folder, 0o711)  # noqa: PTH101 - at once: the event loop is this test's own
    try:
        async with (
            control(folder / "run" / "agent.sock") as roots,
            control(folder / "run" / "code.sock", manners=EVERYBODYS) as everybodys,
        ):
            assert await asyncio.to_thread(as_user, 65_534, everybodys) == 65_534
            assert await asyncio.to_thread(as_user, 65_534, roots) == "PermissionError"
    finally:
        shutil.rmtree(folder)


def as_user(uid: int, path: Path) -> Any:
    """The account that the agent sees when this one asks; or the name of the error."""
    program = (
        "import json, os, socket, sys\n"
        "os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(10)\n"
        "try:\n    s.connect(sys.argv[2])\n"
        "except OSError as error:\n    print(json.dumps(type(error).__name__)); sys.exit()\n"
        "s.sendall(sys.argv[3].encode() + b'\\n')\n"
        "print(json.dumps(json.loads(s.makefile().readline())['value']['uid']))\n"
    )
    command = [sys.executable, "-I", "-c", program, str(uid), str(path), WHO.decode().strip()]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)


async def test_a_connection_of_everybodys_socket_asks_once(public):
    """Then it is closed: the next one's turn."""
    reader, writer = await asyncio.open_unix_connection(public)
    writer.write(WHO * 3)
    answers = [line async for line in reader if line]
    writer.close()
    assert len(answers) == 1


async def test_a_long_line_is_refused_sooner(public):
    """A code is short."""
    (answer,) = await ask(public, b'{"do": "who", "code": "' + b"x" * 1024 + b'"}\n')
    assert answer["error"]["code"] == "too-large"


async def test_one_account_cannot_hold_all_places(public):
    """Its third connection is closed at once, and there is still room for others."""
    held = [await asyncio.open_unix_connection(public) for _ in range(EVERYBODYS.clients_of_one)]
    try:
        with suppress(OSError):
            assert await ask(public, WHO) == []
    finally:
        for _, writer in held:
            writer.close()
    await eventually_answered(public)


async def eventually_answered(path: Path) -> None:
    """The places are free again when the connections are gone."""
    async with asyncio.timeout(10):
        while True:
            with suppress(OSError):
                if await ask(path, WHO):
                    return
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("line", [b"", b'{"do": "who"'], ids=["silence", "half a line"])
async def test_whoever_says_nothing_is_not_waited_for(tmp_path, line):
    """The place of a silent client is free again when its time is over."""
    manners = replace(EVERYBODYS, idle_seconds=0.05)
    async with control(tmp_path / "run" / "code.sock", manners=manners) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(line)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_a_shortage_of_descriptors_does_not_end_the_agent(tmp_path, monkeypatch):
    """It goes on listening."""
    monkeypatch.setattr("stanch.agent.control.RETRY_SECONDS", 0.0)
    loop, failures = asyncio.get_running_loop(), iter([OSError(24, "Too many open files")] * 2)
    real = loop.sock_accept

    async def accept(listener: socket.socket) -> Any:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await real(listener)

    monkeypatch.setattr(loop, "sock_accept", accept)
    async with control(tmp_path / "run" / "agent.sock") as path:
        assert (await ask(path, b'{"do": "status"}\n'))[0]["ok"]
        assert next(failures, None) is None


async def test_a_folder_that_is_no_folder_of_ours_is_not_used(tmp_path):
    """Not a link to one either."""
    (tmp_path / "real").mkdir(mode=0o711)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    await Control(tmp_path / "run" / "code.sock", ANSWERS, manners=EVERYBODYS).run()
    assert list((tmp_path / "real").iterdir()) == []
