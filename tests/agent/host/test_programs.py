"""Does a program get what was ordered and no more, and does all of it end, whatever it does to go on?"""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.agent.host import programs as module
from stanch.agent.host.marks import is_keeper, of_task
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.processes import LinuxProcesses
from stanch.agent.host.procfs import pids, read_stat
from stanch.agent.host.program_tree import send
from stanch.agent.host.programs import Account, LinuxPrograms, confinement, exit_of, recover, signal_name
from stanch.agent.path_rules import PathRules
from stanch.core.errors import ActionFailed, ForbiddenHere, Invalid, TargetGone, Unsupported
from stanch.core.programs import Program, Resources
from stanch.core.types import EndpointPath, seconds
from tests.agent.host.run_programs import DETACHES, new_world, now, python, runs, shell
from tests.fakes.waiting import PATIENCE, eventually, wait_until

ROOT = Path(__file__).resolve().parents[3]
SHELL = os.path.realpath("/bin/sh")

TELLS = """
import json, os, signal, sys
print(json.dumps({
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "leads": os.getsid(0) == os.getpid() == os.getpgrp(),
    "umask": os.umask(0),
    "input": sys.stdin.read(),
    "descriptors": sorted(int(one) for one in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{one}")),
    "ignored": open("/proc/self/status").read().split("SigIgn:")[1].split()[0],
    "blocked": open("/proc/self/status").read().split("SigBlk:")[1].split()[0],
    "oom": open("/proc/self/oom_score_adj").read(),
    "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()],
}))
"""
"""What a program finds when it begins; Python itself ignores SIGPIPE and SIGXFSZ."""

SPAWNS = """
import os, sys, time
if os.fork() == 0:
    time.sleep(1000)
print("spawned", flush=True)
sys.exit(4)
"""


def of_proc(pid: int, name: str) -> bytes:
    """What the kernel says about a process."""
    return Path(f"/proc/{pid}/{name}").read_bytes()


@pytest.fixture
def world(tmp_path):
    """A task that may run programs."""
    with new_world(tmp_path) as made:
        yield made


async def finds(world, **more) -> dict:
    """What a program finds when it begins."""
    ended = await world.run(python(TELLS, "a b", "$HOME", "", **more))
    assert (ended.exit.code, ended.err.text) == (0, "")
    return json.loads(ended.out.text)


# --- what it gets ----------------------------------------------------------------------------------------------------


async def test_a_program_gets_what_was_ordered_and_no_more(world, monkeypatch):
    """No shell expands its arguments; environment, descriptors, signals, session and input are made from nothing."""
    monkeypatch.setenv("SECRET", "of the agent")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    found = await finds(world)
    os.close(reading)
    os.close(writing)
    account = Account.of(None)
    assert found["arguments"] == ["a b", "$HOME", ""]
    assert found["environment"] == {
        "STANCH_TASK": world.task,
        "PATH": module.PATH,
        "LANG": "C.UTF-8",
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
    }
    assert (found["folder"], found["leads"], found["umask"], found["input"]) == ("/", True, 0o022, "")
    assert found["descriptors"] == [0, 1, 2]
    # Two that the C library keeps for itself are not for anybody else to set.
    assert int(found["ignored"], 16) & 0x7FFFFFFF == 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert (int(found["blocked"], 16), int(found["oom"])) == (0, 0)


async def test_folder_and_environment_are_given(world, tmp_path):
    """Also over what every program gets."""
    found = await finds(world, folder=EndpointPath(str(tmp_path)), environment={"LANG": "C", "DEPTH": "3=x"})
    assert found["folder"] == str(tmp_path)
    assert (found["environment"]["LANG"], found["environment"]["DEPTH"]) == ("C", "3=x")


@pytest.mark.root
async def test_another_user_comes_with_groups_and_home(world):
    """All ids are changed, and nothing of root's groups stays."""
    ended = await world.run(shell("id -u; id -g; id -G; echo $HOME $USER; grep Cap /proc/self/status", user="nobody"))
    account, (uid, gid, groups, named, *capabilities) = Account.of("nobody"), ended.out.text.splitlines()
    assert (int(uid), int(gid), sorted(map(int, groups.split()))) == (account.uid, account.gid, sorted(account.groups))
    assert named == f"{account.home} nobody"
    assert {one.split()[0]: int(one.split()[1], 16) for one in capabilities}["CapEff:"] == 0


async def test_an_unknown_user_is_refused(world):
    """Before anything is done."""
    with pytest.raises(Invalid, match="no such user"):
        await world.run(shell("true", user="no-such-account"))


@pytest.mark.root
async def test_a_user_who_may_not_is_told_so(world, tmp_path):
    """Neither the folder nor the program of root is opened to another account."""
    tmp_path.chmod(0o700)
    with pytest.raises(Invalid, match="may not enter the folder"):
        await world.run(shell("true", user="nobody", folder=EndpointPath(str(tmp_path))))
    own = tmp_path / "own"
    shutil.copy("/bin/true", own)
    own.chmod(0o700)
    with pytest.raises(Invalid, match="may not run"):
        await world.run(Program(path=EndpointPath(str(own)), user="nobody"))


# --- how it ends -----------------------------------------------------------------------------------------------------


async def test_exit_code_and_output(world):
    """Both streams, apart."""
    ended = await world.run(shell("echo out; echo err >&2; exit 7"))
    assert (ended.exit.code, ended.exit.signal, ended.exit.left_behind) == (7, None, 0)
    assert (ended.out.text, ended.err.text) == ("out\n", "err\n")
    assert (ended.out.written, ended.out.kept) == (4, 4)
    assert 0 <= ended.exit.seconds < PATIENCE


async def test_a_signal_is_told_by_name(world):
    """No exit code is made up for it."""
    ended = await world.run(shell("kill -SEGV $$"))
    assert (ended.exit.code, ended.exit.signal) == (None, "SIGSEGV")


def test_signals_have_names():
    """Those of real time, too."""
    assert (signal_name(9), signal_name(int(signal.SIGRTMIN) + 3)) == ("SIGKILL", "SIGRTMIN+3")


@pytest.mark.parametrize("wrong", [{}, {"ended": "x"}, {"ended": 0, "seconds": 0, "left": -1, "left_ended": True}])
def test_a_message_that_is_none_is_refused(wrong):
    """Who is root may speak in the keeper's name."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        exit_of(wrong)


async def test_one_that_ignores_sigterm_dies(world):
    """SIGKILL comes after the grace, for its children as well."""
    async with world.begun(shell("trap '' TERM; sleep 1000 & echo ready; while :; do sleep 1; done")) as running:
        await eventually(lambda: running.stdout().written)
        assert await running.wait(within=seconds(0)) is None
        before = world.left()
        exit_ = await running.end(grace=seconds(0.2))
    assert (exit_.code, exit_.signal, exit_.left_ended) == (None, "SIGKILL", True)
    assert len(before) >= 2
    assert not any(map(runs, before))


async def test_one_that_cleans_up_at_sigterm_may(world):
    """Its own exit code is told."""
    async with world.begun(shell("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done")) as running:
        await eventually(lambda: running.stdout().written)
        exit_ = await running.end(grace=seconds(PATIENCE))
        assert running.stdout().text == "ready\nbye\n"
    assert exit_.code == 3


async def test_a_stopped_one_hears_sigterm(world):
    """It is woken to hear it."""
    async with world.begun(shell("echo ready; kill -STOP $$; sleep 1000")) as running:
        await eventually(lambda: read_stat(running.id.pid).state == "T")
        exit_ = await running.end(grace=seconds(PATIENCE))
    assert exit_.signal == "SIGTERM"


async def test_a_detached_child_ends_with_it(world):
    """Whoever forks twice, begins a session, closes its streams and clears its environment is found and ended."""
    async with world.begun(python(DETACHES)) as running:
        exit_ = await running.wait(within=seconds(PATIENCE))
        assert exit_ is not None
        assert (exit_.code, exit_.left_behind, exit_.left_ended) == (0, 1, True)
        assert world.left() == ()
    assert world.left() == ()


async def test_a_child_that_keeps_the_streams_open_is_not_waited_for(world):
    """The program has ended when it has; what it left behind is ended, and does not hold the end up."""
    ended = await world.run(python(SPAWNS))
    assert (ended.exit.code, ended.exit.left_behind, ended.exit.left_ended) == (4, 1, True)
    assert ended.out.text == "spawned\n"


async def test_a_program_may_close_its_streams_and_go_on(world):
    """Its end is its end, not that of its output."""
    ended = await world.run(shell("exec >&- 2>&- </dev/null; sleep 0.2; exit 5"))
    assert ended.exit.code == 5


async def test_a_program_that_reads_its_input_finds_it_empty(world):
    """It does not wait for somebody to type."""
    ended = await world.run(shell("cat; echo done"))
    assert ended.out.text == "done\n"


FLOODS = """
import os, time
block = bytes(1_000_000)
for _ in range(200):
    view = memoryview(block)
    while view:
        view = view[os.write(1, view):]
os.write(2, b"done\\nlast line \\xff\\n")
time.sleep(1000)
"""


async def test_a_flood_is_counted_and_kept_up_to_the_limit(world):
    """Neither memory nor disk fills, and the program is never held up."""
    async with world.begun(python(FLOODS, keep=1000)) as running:
        await eventually(lambda: running.stderr().written)
        await eventually(lambda: running.stdout().written == 200_000_000)
        assert running.stdout().kept == 1000
        assert running.last_line() == r"last line \xff"
        keeper = next(pid for pid in pids() if is_keeper(pid, world.task))
        status = of_proc(keeper, "status").decode()
        assert int(status.split("VmHWM:")[1].split()[0]) < 30_000
        assert sorted(one.stat().st_size for one in world.spool.glob("*/*")) == [17, 1000]
        source, _ = running.kept()
        assert (source.name.endswith(".stdout"), source.size, await source.read(990, 10)) == (True, 1000, bytes(10))
        assert [(one.offset, one.length) for one in await source.extents()] == [(0, 1000)]
    with pytest.raises(ActionFailed):
        await source.read(0, 10)


FORK_BOMB = """
import os, signal
print("ready", flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(40):
    if os.fork() == 0:
        while True:
            child = os.fork()
            if child:
                os._exit(0)
"""


async def test_a_tree_that_runs_away_is_caught(world):
    """Children that replace themselves all the time end as well."""
    async with world.begun(python(FORK_BOMB)) as running:
        await eventually(lambda: running.stdout().written)
        exit_ = await running.end(grace=seconds(0.1))
        assert exit_.left_ended
    assert world.left() == ()


async def test_background_children_may_go_on(world):
    """Where it was asked for, they go on after the program and the task, still marked, and may write as before."""
    line = "(while :; do echo on; sleep 0.01; done) & echo begun; exit 0"
    async with world.begun(shell(line, outlives=True)) as running:
        exit_ = await running.wait(within=seconds(PATIENCE))
        assert (exit_.code, exit_.left_behind >= 1, exit_.left_ended) == (0, True, False)
    assert not list(world.spool.iterdir())
    (left, *_) = world.left()
    for _ in range(50):
        await asyncio.sleep(0.01)
    assert runs(left)
    keeper = now(read_stat(left.pid).parent)
    for one in world.left():
        send(one.pid, one.started, signal.SIGKILL)
    await eventually(lambda: not world.left() and read_stat(keeper.pid) is None)


async def test_the_end_of_one_that_outlives_is_the_end_of_all(world):
    """At its time limit, whatever it has started ends, too."""
    async with world.begun(shell("sleep 1000 & sleep 1000", outlives=True)) as running:
        await eventually(lambda: len(world.left()) >= 3)
        await running.end(grace=seconds(PATIENCE))
        assert world.left() == ()


@pytest.mark.parametrize("outlives", [False, True])
async def test_a_cancel_ends_everything(world, outlives):
    """Also what would outlive its program."""
    running_now = asyncio.Event()

    async def work():
        async with world.begun(shell("sleep 1000 & sleep 1000", outlives=outlives)):
            running_now.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(work())
    await running_now.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.left() == ()
    assert not list(world.spool.iterdir())


async def test_a_keeper_that_is_ended_leaves_nothing_behind(world):
    """Its program ends, how cannot be told, and what carries a mark is ended."""
    async with world.begun(shell("setsid sleep 1000 & sleep 1000")) as running:
        await eventually(lambda: len(world.left()) >= 3)
        before = world.left()
        os.kill(read_stat(running.id.pid).parent, signal.SIGKILL)
        with pytest.raises(ActionFailed, match="keeper"):
            await running.wait(within=seconds(PATIENCE))
    await eventually(lambda: not any(map(runs, before)))


# --- before it begins ------------------------------------------------------------------------------------------------


async def test_nothing_is_executed_before_it_begins(world, tmp_path):
    """Its process is there, and marked, so that it can be written down; one that never begins has done nothing."""
    made = tmp_path / "made"
    async with world.programs.run(shell(f"echo x > {made}")) as running:
        assert runs(running.id)
        assert world.left() == (running.id,)
    assert not made.exists()
    assert world.left() == ()


async def test_a_file_that_is_swapped_or_changed_meanwhile_is_not_run(world, tmp_path):
    """What was looked at is what is executed, or nothing is."""
    tool = tmp_path / "tool"
    for change in ("swap", "write"):
        tool.unlink(missing_ok=True)
        tool.write_text("#!/bin/sh\necho good\n")
        tool.chmod(0o755)
        async with world.programs.run(Program(path=EndpointPath(str(tool)))) as running:
            if change == "swap":
                tool.rename(tmp_path / "old")
                tool.write_text("#!/bin/sh\necho evil\n")
                tool.chmod(0o755)
            else:
                with tool.open("a") as file:
                    file.write("echo evil\n")
            with pytest.raises(TargetGone, match="changed"):
                await running.begin()
            assert running.stdout().written == 0


async def test_where_others_may_swap_it_the_held_file_is_run(world, tmp_path):
    """In a folder that others can write to, a script is handed to its interpreter as a descriptor."""
    folder = tmp_path / "everybodys"
    folder.mkdir()
    folder.chmod(0o777)
    tool = folder / "tool"
    tool.write_text("#!/bin/sh -u\necho good $0 $1\n")
    tool.chmod(0o755)
    script = Program(path=EndpointPath(str(tool)), arguments=("one",))
    assert (await world.run(script)).out.text == "good /proc/self/fd/4 one\n"
    async with world.programs.run(script) as running:
        tool.rename(folder / "old")
        tool.write_text("#!/bin/sh\necho evil\n")
        with pytest.raises(TargetGone, match="changed"):
            await running.begin()
    copy = folder / "copy"
    shutil.copy("/bin/echo", copy)
    copy.chmod(0o755)
    ended = await world.run(Program(path=EndpointPath(str(copy)), arguments=("hello",)))
    assert ended.out.text == "hello\n"


async def test_a_script_knows_its_own_path_where_root_alone_can_change_it(world, tmp_path):
    """It finds what lies beside it."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho $0 $1\n")
    tool.chmod(0o755)
    (tmp_path / "link").symlink_to(tool)
    ended = await world.run(Program(path=EndpointPath(f"{tmp_path}/link"), arguments=("x",)))
    expected = f"{tool.resolve()} x\n" if os.geteuid() == 0 else "/proc/self/fd/4 x\n"
    assert ended.out.text == expected


# --- what is no program ----------------------------------------------------------------------------------------------


async def refused(world, program: Program) -> str:
    """What is said when it is refused, when it is examined and when it is run."""
    with pytest.raises((Invalid, TargetGone, ForbiddenHere, Unsupported)) as first:
        await world.programs.examine(program)
    with pytest.raises(type(first.value)) as second:
        await world.run(program)
    assert str(first.value) == str(second.value)
    assert world.left() == ()
    assert not world.spool.exists() or not list(world.spool.iterdir())
    return str(first.value)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0, "nothing at"),
        (b"#!/bin/sh\n", 0o644, "not executable"),
        (b"hello\n", 0o755, "neither an ELF program nor a script"),
        (b"", 0o755, "neither an ELF program nor a script"),
        (b"#!/no/such/interpreter -x\n", 0o755, "interpreter cannot be run"),
        (b"#!relative/sh\n", 0o755, "names no interpreter"),
        (b"#!" + b"/" * 300, 0o755, "names no interpreter"),
        (b"#!\n", 0o755, "neither an ELF program nor a script"),
    ],
)
async def test_what_is_no_program_is_refused(world, tmp_path, content, mode, says):
    """With the reason, before anything is begun."""
    path = tmp_path / "tool"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    assert says in await refused(world, Program(path=EndpointPath(str(path))))


async def test_a_folder_is_no_program(world, tmp_path):
    """Nor is a device; and what is no folder is no place to start in."""
    assert "is no program" in await refused(world, Program(path=EndpointPath(str(tmp_path))))
    assert "is no program" in await refused(world, Program(path=EndpointPath("/dev/null")))
    assert "no folder" in await refused(world, shell("true", folder=EndpointPath("/bin/sh")))
    assert "nothing at" in await refused(world, shell("true", folder=EndpointPath(f"{tmp_path}/none")))


async def test_a_script_by_a_script_is_refused(world, tmp_path):
    """The kernel would allow a few of them in a row; nobody needs it."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_text("#!/bin/sh\n")
    outer.write_text(f"#!{inner}\n")
    for one in (inner, outer):
        one.chmod(0o755)
    assert "no ELF program" in await refused(world, Program(path=EndpointPath(str(outer))))


async def test_a_damaged_program_is_refused_by_the_kernel(world, tmp_path):
    """What looks like ELF and is none, or is for another machine."""
    tool = tmp_path / "tool"
    tool.write_bytes(b"\x7fELF" + bytes(100))
    tool.chmod(0o755)
    with pytest.raises(Invalid, match="damaged, or for another processor"):
        await world.run(Program(path=EndpointPath(str(tool))))


async def test_too_many_arguments_are_refused(world):
    """One that is too long for the kernel, and more than any kernel takes."""
    with pytest.raises(Invalid, match="too long"):
        await world.run(shell("true " + "x" * 200_000))
    assert "too long" in await refused(world, Program(path=EndpointPath("/bin/true"), arguments=("x" * 100_000,) * 70))


@pytest.mark.parametrize(
    "more", [{"arguments": ("a\0b",)}, {"environment": {"A": "\0"}}, {"environment": {"STANCH_TASK": "tsk_other"}},
             {"environment": {"": "x"}}, {"environment": {"A=B": "x"}}],
)  # fmt: skip
async def test_words_that_no_program_can_get_are_refused(world, more):
    """A NUL would end them early; and no order takes the mark of another task."""
    await refused(world, Program(path=EndpointPath("/bin/true"), **more))


async def test_another_file_than_the_one_that_was_meant_is_not_run(world):
    """The hash is taken of what is held and executed."""
    found = await world.programs.examine(shell("true"))
    assert (await world.run(shell("echo it", sha256=found.sha256))).out.text == "it\n"
    assert "another file" in await refused(world, shell("true", sha256="0" * 64))


@pytest.mark.root
@pytest.mark.parametrize("kind", ["script", "elf"])
async def test_with_a_hash_what_others_may_write_to_is_run_as_it_was_hashed(world, tmp_path, kind):
    """Its owner can write to a script until the interpreter has read it; nobody can to the copy."""
    tool = tmp_path / "tool"
    if kind == "elf":
        shutil.copy("/bin/echo", tool)
    else:
        tool.write_text("#!/bin/sh\necho $1\n")
    tool.chmod(0o755)
    os.chown(tool, 65534, 65534)
    sha256 = hashlib.sha256(tool.read_bytes()).hexdigest()
    program = Program(path=EndpointPath(str(tool)), arguments=("good",), sha256=sha256, user="nobody")
    async with world.programs.run(program) as running:
        tool.write_text("#!/bin/sh\necho evil\n")
        await running.begin()
        assert (await running.wait(within=seconds(PATIENCE))).code == 0
        await eventually(lambda: running.stdout().written)
        assert running.stdout().text == "good\n"
    assert "another file" in await refused(world, program)


async def test_its_keeper_is_not_ended_with_all_that_run_python(world):
    """It runs the agent's own Python; what it keeps is ended by its task, or like anybody else."""
    processes = LinuxProcesses(Namespace.current("pid"), groups=lambda: None)
    async with world.programs.run(python("import time; time.sleep(1000)")) as running:
        await running.begin()
        keeper = now(read_stat(running.id.pid).parent)
        assert world.task in await processes.why_protected(keeper)
        assert await processes.why_protected(running.id) is None


async def test_what_is_odd_about_a_program_is_said(world, tmp_path):
    """Before anybody says yes."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o4777)
    found = await world.programs.examine(Program(path=EndpointPath(str(tool))))
    assert (found.kind, found.path) == ("a script", str(tool.resolve()))
    assert found.interpreter == SHELL
    text = "\n".join(found.warnings)
    for said in ("run by", "Others may write", "changes its user or group", "descriptor"):
        assert said in text


def test_a_confined_agent_says_that_its_programs_are_too(tmp_path):
    """What its service may not do, they may not either, although they run as root."""
    status, last = tmp_path / "status", tmp_path / "last"
    last.write_text("40\n")
    status.write_text("Name:\tx\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n")
    assert list(confinement(status, last)) == []
    status.write_text("Name:\tx\nCapBnd:\t000001fffffffff0\nNoNewPrivs:\t1\nSeccomp:\t2\n")
    less, gains, calls = confinement(status, last)
    assert ("4 capabilities" in less, "set-user-id" in gains, "filtered" in calls) == (True, True, True)
    assert list(confinement(tmp_path / "none", last)) == []
    status.write_text("odd\n")
    assert list(confinement(status, last)) == []


# --- what the owner forbids ------------------------------------------------------------------------------------------


async def forbidden(folder: Path, rules: PathRules, program: Program) -> str:
    """What is said to an order that the owner of the machine forbids."""
    with new_world(folder, rules=rules) as world:
        with pytest.raises(ForbiddenHere):
            await world.programs.examine(program)
        return await refused(world, program)


async def test_the_owner_forbids_programs_and_interpreters(tmp_path):
    """By the real path of what is held: neither a link nor a script leads around it."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho ran\n")
    tool.chmod(0o755)
    (tmp_path / "link").symlink_to("/bin/sh")
    script, link = Program(path=EndpointPath(str(tool))), Program(path=EndpointPath(f"{tmp_path}/link"))
    real = EndpointPath(SHELL)
    for program in (script, link):
        assert "forbids this path" in await forbidden(tmp_path, PathRules(forbid=(real,)), program)
    only = PathRules(programs=(EndpointPath(str(tmp_path)),))
    assert "forbids to run this program" in await forbidden(tmp_path, only, link)
    with new_world(tmp_path, rules=only) as world:
        assert (await world.run(script)).out.text == "ran\n"
    none = PathRules(interpreters=False)
    assert "scripts" in await forbidden(tmp_path, none, script)
    assert "shells" in await forbidden(tmp_path, none, link)
    for rules in (only, none):
        preload = Program(path=EndpointPath("/bin/true"), environment={"LD_PRELOAD": "/tmp/x.so"})
        assert "variables" in await forbidden(tmp_path, rules, preload)
    folder = EndpointPath(str(tmp_path))
    assert "forbids this path" in await forbidden(tmp_path, PathRules(forbid=(folder,)), shell("true", folder=folder))


# --- marks -----------------------------------------------------------------------------------------------------------


async def test_what_a_task_started_is_found_by_it_alone(world, tmp_path):
    """From the first instruction, whatever it does to hide; and nothing of another task is."""
    async with world.begun(shell("sleep 1000")) as running, world.begun(python(DETACHES, outlives=True)) as other:
        await other.wait(within=seconds(PATIENCE))
        await eventually(lambda: len(world.left()) >= 2)
        assert running.id in world.left()
        assert of_task("tsk_other") == ()
        hidden = [one for one in world.left() if of_proc(one.pid, "cmdline").startswith(b"quiet\0")]
        assert len(hidden) == 1
        assert of_proc(hidden[0].pid, "environ") == b""


# --- the spool -------------------------------------------------------------------------------------------------------


async def test_only_root_can_read_what_is_kept(world):
    """And it is gone when the task is done."""
    async with world.begun(shell("echo secret; sleep 1000")) as running:
        await eventually(lambda: running.stdout().written)
        (folder,) = world.spool.iterdir()
        assert (world.spool.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o700, 0o700)
        assert [one.stat().st_mode & 0o777 for one in folder.iterdir()] == [0o600, 0o600]
    assert not list(world.spool.iterdir())


async def test_no_room_is_told(tmp_path):
    """What cannot be kept is not run."""
    (tmp_path / "file").write_text("")
    made = LinuxPrograms(task="tsk_none", spool=tmp_path / "file" / "spool")
    with pytest.raises(ActionFailed, match="no room"):
        async with made.run(shell("true")):
            pass


async def test_limits_need_a_control_group(world):
    """No limit is silently left out."""
    said = await refused(world, shell("true", resources=Resources(memory=1 << 20)))
    assert "cannot be limited here" in said
    assert "Delegate" in said


# --- kill -9 ---------------------------------------------------------------------------------------------------------

AGENT = """
import asyncio, sys
from pathlib import Path
from stanch.agent.host.programs import LinuxPrograms
from stanch.core.programs import Program
from stanch.core.types import EndpointPath
from tests.agent.host.run_programs import python

async def main(task, spool, outlives, code):
    programs = LinuxPrograms(task=task, spool=Path(spool))
    async with programs.run(python(code, outlives=outlives == "True")) as running:
        await running.begin()
        while not running.stdout().written:
            await asyncio.sleep(0.01)
        print("running", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main(*sys.argv[1:]))
"""

GOES_ON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.environ.clear()
    for stream in range(3):
        os.close(stream)
    time.sleep(1000)
print("x" * 100, flush=True)
while True:
    time.sleep(0.01)
    print("on", flush=True)
"""


def killed_agent(world, *, outlives: bool):
    """Let an agent run a program, and kill it with SIGKILL."""
    command = [sys.executable, "-c", AGENT, world.task, str(world.spool), str(outlives), GOES_ON]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as agent:
        assert agent.stdout.readline() == b"running\n"
        wait_until(lambda: len(world.left()) >= 2)
        before = world.left()
        agent.kill()
    return before


def test_nothing_of_a_program_outlives_an_agent_that_is_killed(world):
    """Not what has detached itself either; what was kept stays for whoever looks, until the next start."""
    before = killed_agent(world, outlives=False)
    wait_until(lambda: not any(map(runs, before)) and not world.left())
    assert [one.name for one in sorted(world.spool.glob("*/*"))] == ["stderr", "stdout"]
    assert next(world.spool.glob("*/stdout")).read_bytes().startswith(b"x" * 100)
    assert recover(world.spool, None) == 1
    assert not list(world.spool.iterdir())


def test_what_is_to_go_on_outlives_the_agent(world):
    """Still marked, and able to write."""
    before = killed_agent(world, outlives=True)
    keeper = now(next(pid for pid in pids() if is_keeper(pid, world.task)))
    wait_until(lambda: not Path(f"/proc/{keeper.pid}/fd/3").is_socket())
    assert {one.pid for one in before} <= {one.pid for one in world.left()}
    for one in world.left():
        send(one.pid, one.started, signal.SIGKILL)
    wait_until(lambda: not world.left() and not runs(keeper))
