"""Is a program run as ordered, once, and told truthfully, however it ends?"""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import ValidationError

from stanch.actions.get_file import GetFile, get_file
from stanch.actions.run_process import RunProcess, run_process
from stanch.agent.host.files import LinuxFiles
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.processes import LinuxProcesses
from stanch.core.action import Verdict
from stanch.core.errors import ActionFailed, ForbiddenHere, Invalid, TargetGone, TimedOut
from stanch.core.processes import ProcessId
from stanch.core.programs import Exit, Resources
from stanch.core.types import hours, seconds
from tests.agent.host.run_programs import new_world
from tests.fakes.host import AgentKilled, FakeEndpoint
from tests.fakes.started_programs import Behaviour
from tests.fakes.waiting import eventually

PATH = "/opt/incident/collect"


@pytest.fixture
def endpoint():
    made = FakeEndpoint()
    made.programs.programs[PATH] = Behaviour(stdout=b"found it\nlast\n", stderr=b"careful\n")
    return made


def order(**fields) -> RunProcess:
    return RunProcess.model_validate({"path": PATH, **fields})


# --- what is asked for -----------------------------------------------------------------------------------------------


async def test_the_program_is_run_as_ordered(endpoint):
    """Everything that the order says reaches the endpoint as it is."""
    await run_process.run(
        endpoint.host,
        order(
            argument=["--all", "a b", ""],
            folder="/srv",
            environment=["A=1", "B=x=y", "C="],
            user="nobody",
            sha256="AB" * 32,
            keep="1KiB",
            keep_children=True,
            max_memory="512MiB",
            max_cpu=50,
            max_processes=20,
        ),
    )
    (asked,) = endpoint.programs.asked
    assert (asked.path, list(asked.arguments), asked.folder) == (PATH, ["--all", "a b", ""], "/srv")
    assert asked.environment == {"A": "1", "B": "x=y", "C": ""}
    assert (asked.user, asked.sha256, asked.keep, asked.outlives) == ("nobody", "ab" * 32, 1024, True)
    assert asked.resources == Resources(memory=512 << 20, cpu_percent=50, processes=20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "relative/tool"},
        {"path": "/opt/\0"},
        {"argument": ["a\0b"]},
        {"argument": ["x" * 131_072]},
        {"argument": ["x"] * 1001},
        {"environment": ["NOEQUALS"]},
        {"environment": ["=x"]},
        {"environment": ["A=\0"]},
        {"environment": ["STANCH_TASK=tsk_other"]},
        {"folder": "srv"},
        {"user": ""},
        {"sha256": "12"},
        {"time_limit": "25h"},
        {"time_limit": "0s"},
        {"keep": "2GiB"},
        {"max_memory": 0},
        {"max_cpu": 0},
        {"max_processes": 0},
    ],
)
def test_what_cannot_be_run_is_no_order(wrong):
    """It is refused where it is typed, before anything is sent."""
    with pytest.raises(ValidationError):
        order(**wrong)


def test_a_program_may_run_as_long_as_its_task():
    """The longest limit leaves time to send what it wrote."""
    assert order(time_limit="24h").time_limit == hours(24) < run_process.time_limit


# --- how it ends -----------------------------------------------------------------------------------------------------


async def test_its_output_is_evidence(endpoint):
    """Both streams, each with its name."""
    result = await run_process.run(endpoint.host, order())
    out, err = result.evidence
    assert (out.name, err.name) == ("collect.stdout", "collect.stderr")
    assert endpoint.evidence.kept[out.id] == b"found it\nlast\n"
    assert endpoint.evidence.kept[err.id] == b"careful\n"
    assert (result.stdout.written, result.stdout.text, result.exit.code) == (14, "found it\nlast\n", 0)
    assert (await run_process.verify(endpoint.host, order(), result)).verdict is Verdict.IN_PLACE


async def test_an_empty_stream_is_not_sent(endpoint):
    """Nor is anything, where that was ordered; what was written is told all the same."""
    endpoint.programs.programs[PATH] = Behaviour(stderr=b"only this")
    (sent,) = (await run_process.run(endpoint.host, order())).evidence
    assert sent.name == "collect.stderr"
    result = await run_process.run(endpoint.host, order(evidence=False))
    assert (result.evidence, result.stderr.text) == ((), "only this")


async def test_what_is_beyond_the_limit_is_counted(endpoint):
    """The first bytes are kept."""
    result = await run_process.run(endpoint.host, order(keep=5))
    assert (result.stdout.written, result.stdout.kept) == (14, 5)
    assert endpoint.evidence.kept[result.evidence[0].id] == b"found"


@pytest.mark.parametrize("how", [Exit(code=3), Exit(signal="SIGSEGV")])
async def test_a_program_that_fails_was_run(endpoint, how):
    """The order is done; the answer says how the program ended."""
    endpoint.programs.programs[PATH] = Behaviour(exit=how)
    result = await run_process.run(endpoint.host, order())
    assert (result.exit.code, result.exit.signal) == (how.code, how.signal)


async def test_at_its_limit_it_is_ended_and_what_it_wrote_is_kept(endpoint):
    """The task has failed, and says where the output is."""
    endpoint.programs.programs[PATH] = Behaviour(stdout=b"so far\n", hangs=True, leaves=2)
    with pytest.raises(TimedOut) as raised:
        await run_process.run(endpoint.host, order(time_limit="1s", grace="7s"))
    assert endpoint.programs.graces == [seconds(7)]
    (kept,) = endpoint.evidence.kept
    assert kept in raised.value.hint
    assert "so far" in raised.value.got
    assert await endpoint.processes.of_task("tsk_1") == []


@pytest.mark.parametrize("hangs", [False, True])
async def test_what_cannot_be_sent_does_not_hide_that_it_was_run(endpoint, hangs):
    """How it ended is told, and never that it was refused: an error of the evidence is not one of the program."""

    async def send(_source):
        raise Invalid("There is no room for it")

    endpoint.evidence.send = send
    endpoint.programs.programs[PATH] = Behaviour(stdout=b"so far\n", hangs=hangs, exit=Exit(code=3))
    with pytest.raises(TimedOut if hangs else ActionFailed) as raised:
        await run_process.run(endpoint.host, order(time_limit="1s"))
    assert "no room" in str(raised.value)
    assert hangs or "exit code 3" in raised.value.got


async def test_people_see_what_it_writes(endpoint):
    """Bytes, and the last line, while it runs."""
    endpoint.programs.programs[PATH] = Behaviour(stdout=b"one\ntwo\n", hangs=True)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run_process.run(endpoint.host, order()))
        await eventually(lambda: endpoint.progress.told)
        running.cancel()
    assert endpoint.progress.told[0] == (8, None, "bytes", "two")


async def test_a_cancel_ends_it(endpoint):
    """Nothing of it runs; and since it has run, it is not said that nothing remains."""
    endpoint.programs.programs[PATH] = Behaviour(hangs=True, leaves=1)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run_process.run(endpoint.host, order()))
        await eventually(lambda: endpoint.journal.records)
        running.cancel()
    assert await endpoint.processes.of_task("tsk_1") == []
    endpoint.restart()
    check = await run_process.verify(endpoint.host, order(), None)
    assert check.verdict is Verdict.CANNOT_TELL
    assert "what it did until then stays" in check.detail


async def test_children_go_on_only_if_asked(endpoint):
    """They are found by the task that started them."""
    endpoint.programs.programs[PATH] = Behaviour(leaves=2)
    result = await run_process.run(endpoint.host, order())
    assert (result.exit.left_behind, result.exit.left_ended) == (2, True)
    assert await endpoint.processes.of_task("tsk_1") == []
    result = await run_process.run(endpoint.host, order(keep_children=True))
    assert (result.exit.left_behind, result.exit.left_ended) == (2, False)
    assert len(await endpoint.processes.of_task("tsk_1")) == 2
    check = await run_process.verify(endpoint.host, order(keep_children=True), result)
    assert (check.verdict, "2 processes of it go on" in check.detail) == (Verdict.IN_PLACE, True)


async def test_a_child_that_cannot_be_ended_is_no_success(endpoint):
    """The look afterwards sees it."""
    endpoint.programs.programs[PATH] = Behaviour(leaves=2, undying=1)
    result = await run_process.run(endpoint.host, order())
    assert result.exit.left_ended is False
    assert (await run_process.verify(endpoint.host, order(), result)).verdict is Verdict.CANNOT_TELL


# --- what is refused -------------------------------------------------------------------------------------------------


async def test_what_is_refused_does_not_begin(endpoint):
    """Neither the order nor the dry run."""
    endpoint.programs.refused["/bin/sh"] = ForbiddenHere("no shells")
    for path, error in (("/bin/sh", ForbiddenHere), ("/gone", TargetGone)):
        with pytest.raises(error):
            await run_process.run(endpoint.host, order(path=path))
        with pytest.raises(error):
            await run_process.plan(endpoint.host, order(path=path))
    assert endpoint.life.steps == []


async def test_a_program_that_the_kernel_refuses_is_left(endpoint):
    """Its process is gone, and nothing is sent."""
    endpoint.programs.programs[PATH] = Behaviour(stdout=b"never", not_executed=Invalid("too long"))
    with pytest.raises(Invalid):
        await run_process.run(endpoint.host, order())
    assert await endpoint.processes.of_task("tsk_1") == []
    assert endpoint.evidence.kept == {}


async def test_the_plan_says_what_would_be_run(endpoint):
    """As whom, for how long, which file exactly, and what is odd about it."""
    endpoint.programs.warnings = ("Others may write to it: mode 0777",)
    plan = await run_process.plan(endpoint.host, order(argument=["--all"], user="nobody", keep_children=True))
    (step,) = plan.steps
    assert plan.changes
    assert step.target == f"{PATH} --all"
    for said in ("ELF program", "nobody", "5m", "SHA-256"):
        assert said in step.what
    assert "Others may write" in plan.warnings[0]
    assert any("cannot be undone" in one for one in plan.warnings)
    assert any("goes on" in one for one in plan.warnings)
    assert endpoint.life.steps == []


# --- crashes ---------------------------------------------------------------------------------------------------------


async def test_its_process_is_on_the_disk_before_its_first_instruction(endpoint):
    """Whoever looks after a crash knows which process it was."""
    await run_process.run(endpoint.host, order())
    steps = endpoint.life.steps
    assert steps.index(f"programs.run {PATH}") < steps.index("journal.record") < steps.index(f"programs.begin {PATH}")
    assert ProcessId.model_validate(endpoint.journal.records[0]["process"]).pid == 5001


async def test_after_a_crash_the_look_tells_whether_it_runs(endpoint):
    """Nothing was run; it still runs; it has ended: three different things."""
    check = await run_process.verify(endpoint.host, order(), None)
    assert check.verdict is Verdict.ABSENT
    await run_process.run(endpoint.host, order())
    endpoint.restart()
    check = await run_process.verify(endpoint.host, order(), None)
    assert (check.verdict, "has ended" in check.detail) == (Verdict.CANNOT_TELL, True)
    again = endpoint.processes.add(5001, parent=1)
    endpoint.journal.earlier = {"process": again.model_dump()}
    check = await run_process.verify(endpoint.host, order(), None)
    assert (check.verdict, "kill-process --task tsk_1" in check.detail) == (Verdict.CANNOT_TELL, True)


async def test_an_agent_that_dies_before_the_record_has_run_nothing(endpoint):
    """The program had not begun."""
    endpoint.life.ends_at = 2
    with pytest.raises(AgentKilled):
        await run_process.run(endpoint.host, order())
    assert not any(step.startswith("programs.begin") for step in endpoint.life.steps)


# --- the chain of the reference --------------------------------------------------------------------------------------


async def test_run_a_utility_then_fetch_the_file_that_it_wrote(endpoint):
    """The reference's own chain, on fakes."""
    endpoint.programs.programs[PATH] = Behaviour(writes={"/var/tmp/found.conf": b"secret = 1"})
    await run_process.run(endpoint.host, order())
    endpoint.next_task("tsk_2")
    (got,) = (await get_file.run(endpoint.host, GetFile.model_validate({"path": ["/var/tmp/found.conf"]}))).files
    assert endpoint.evidence.kept[got.evidence.id] == b"secret = 1"


async def test_the_chain_on_the_real_thing(endpoint, tmp_path):
    """A real utility writes a real file, which is fetched by the next order."""
    with new_world(tmp_path) as world:
        host = replace(endpoint.host, task=world.task, programs=world.programs, files=LinuxFiles(), processes=real())
        line = f"echo setting = 7 > {tmp_path}/found.conf; echo wrote it"
        result = await run_process.run(host, order(path="/bin/sh", argument=["-c", line]))
        assert (result.exit.code, result.stdout.text) == (0, "wrote it\n")
        assert endpoint.evidence.kept[result.evidence[0].id] == b"wrote it\n"
        assert (await run_process.verify(host, order(), result)).verdict is Verdict.IN_PLACE
        fetched = await get_file.run(host, GetFile.model_validate({"path": [f"{tmp_path}/found.conf"]}))
        assert endpoint.evidence.kept[fetched.files[0].evidence.id] == b"setting = 7\n"


async def test_a_time_out_on_the_real_thing(endpoint, tmp_path):
    """What it wrote until then is evidence, and nothing of it runs any more."""
    with new_world(tmp_path) as world:
        host = replace(endpoint.host, task=world.task, programs=world.programs, processes=real())
        line = "trap '' TERM; echo so far; setsid sleep 1000 & sleep 1000"
        params = order(path="/bin/sh", argument=["-c", line], time_limit="1s", grace="1s")
        with pytest.raises(TimedOut):
            await run_process.run(host, params)
        assert list(endpoint.evidence.kept.values()) == [b"so far\n"]
        assert await host.processes.of_task(world.task) == ()


async def test_what_a_task_started_is_found_by_another(endpoint, tmp_path):
    """The end of a process that an earlier order started begins with finding it."""
    with new_world(tmp_path) as world:
        host = replace(endpoint.host, task=world.task, programs=world.programs, processes=real())
        line = "setsid env -i /bin/sleep 1000 & exit 0"
        result = await run_process.run(host, order(path="/bin/sh", argument=["-c", line], keep_children=True))
        assert result.exit.left_behind == 1
        (found,) = await real().of_task(world.task)
        assert await real().kill(found)
        assert await real().wait_gone([found], within=timedelta(seconds=20)) == ()


def real() -> LinuxProcesses:
    """Another task's view of the machine's processes."""
    return LinuxProcesses(Namespace.current("pid"))
