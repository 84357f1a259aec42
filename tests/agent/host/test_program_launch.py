"""Does a keeper get what it is given and nothing else, and is what it says understood?"""

import asyncio
import json
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import program_launch as module
from stanch.agent.host.program_launch import KEEPER, Conversation, reap, spawn
from stanch.core.errors import ActionFailed
from tests.fakes.waiting import eventually


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(), max_size=3), max_size=5), st.integers(1, 9))
def test_messages_are_put_together_again(messages, size):
    """However the bytes are cut."""
    heard = []
    talk = Conversation(heard.append)
    data = b"".join(json.dumps(one).encode() + b"\n" for one in messages)
    for start in range(0, len(data), size):
        talk.data_received(data[start : start + size])
    assert heard == messages


async def test_both_sides_are_heard():
    """And the end of the other side is told."""
    heard = []
    ours, its = socket.socketpair()
    talk = Conversation(heard.append)
    await talk.over(ours)
    talk.say({"begin": True})
    its.setblocking(False)
    assert await asyncio.get_running_loop().sock_recv(its, 100) == b'{"begin": true}\n'
    its.send(b'{"made": 7}\n[1]\n')
    its.close()
    await eventually(lambda: None in heard)
    assert heard == [{"made": 7}, None]
    talk.say({"end": 1})
    talk.close()


async def test_what_is_no_message_ends_the_talk():
    """Nothing else is raised for it."""
    heard = []
    ours, its = socket.socketpair()
    with its:
        await Conversation(heard.append).over(ours)
        its.send(b'{"made": 1}\n{nonsense\n{"made": 2}\n')
        await eventually(lambda: None in heard)
    assert heard == [{"made": 1}, None]


async def test_a_line_without_an_end_ends_the_talk(monkeypatch):
    """Memory is bounded."""
    monkeypatch.setattr(module, "_MAX_LINE", 100)
    heard = []
    ours, its = socket.socketpair()
    with its:
        await Conversation(heard.append).over(ours)
        its.send(b"x" * 200)
        await eventually(lambda: heard == [None])


async def test_a_keeper_without_an_order_ends(monkeypatch):
    """Its agent has died before it could say anything; no zombie stays."""
    ours, its = socket.socketpair()
    nothing = os.open("/dev/null", os.O_RDWR)
    with its:
        pid = spawn("tsk_none", (its.fileno(), *[nothing] * 5))
    os.close(nothing)
    reap(pid)
    ours.close()
    await eventually(lambda: not os.path.exists(f"/proc/{pid}"))  # noqa: PTH110 - a process


def test_a_keeper_that_cannot_be_started_is_told(monkeypatch):
    """Not as a foreign error."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ActionFailed, match="keeper"):
        spawn("tsk_none", ())


def test_a_keeper_needs_nothing_installed():
    """It imports the standard library, and files of Stanch that import nothing else."""
    code = (
        "import runpy, sys; sys.argv = ['k', 't']; before = set(sys.modules);"
        f"runpy.run_path({str(KEEPER)!r}, run_name='keeper')['main'].__globals__;"
        f"sys.path.append({str(KEEPER.parents[3])!r}); import stanch.agent.host.program_keeping;"
        "new = set(sys.modules) - before;"
        "print(sorted(one for one in new if one.partition('.')[0] not in sys.stdlib_module_names))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert {one.rpartition(".")[2] for one in eval(told)} == {
        "stanch", "agent", "host", "program_keeping", "program_child", "program_tree",
    }  # fmt: skip
