"""What came of an order: results by type, and the exit code."""

import pytest

from stanch.core.errors import ErrorBody, Interrupted, StanchError, TimedOut, Unsupported, error_classes
from stanch.core.task import State
from tests.client.stub import an_endpoint

ISOLATED = {
    "changed": True,
    "since": "2026-11-24T12:00:00Z",
    "until": None,
    "sockets_destroyed": 3,
    "not_covered": ["bridged VMs"],
}


def a_process(pid: int, depth: int, arguments: str = "") -> dict:
    return {
        "pid": pid,
        "parent": 0,
        "started": 100 + pid,
        "user": "root",
        "name": f"p{pid}",
        "executable": "/bin/x",
        "arguments": arguments,
        "state": "S",
        "memory": 1000,
        "depth": depth,
    }


def failed(kind: type[StanchError]) -> dict:
    return {"state": State.FAILED, "error": kind("It did not work", got="x").body()}


def test_waiting_shows_the_result(run, signed_in):
    """The table of tasks and the typed result of each."""
    signed_in.ends["web-01"] = {"state": State.DONE, "result": ISOLATED}
    ended = run("isolate", "web-01", "--wait")
    assert ended.code == 0
    for text in ("web-01", "done", "sockets destroyed:", "bridged VMs", "1 done"):
        assert text in ended.out
    assert "web-01: running" in ended.err


def test_waiting_shows_a_tree(run, signed_in):
    """Rows are indented by their depth, which has no column of its own."""
    processes = [a_process(1, 0), a_process(20, 1), a_process(300, 2)]
    signed_in.ends["web-01"] = {"state": State.DONE, "result": {"total": 3, "processes": processes}}
    ended = run("list-processes", "web-01", "--wait")
    lines = ended.out.splitlines()
    head = next(line for line in lines if line.lstrip().startswith("PID"))
    names = [line[head.index("NAME") :].split("/bin")[0].rstrip() for line in lines[lines.index(head) + 1 :][:3]]
    assert names == ["p1", "  p20", "    p300"]
    assert "DEPTH" not in head


def test_a_dry_run_shows_the_plan(run, signed_in):
    """What would be done, step by step, with the warnings."""
    plan = {"changes": True, "steps": [{"what": "Drop", "target": "all"}], "warnings": ["Beware of the dog"]}
    signed_in.ends["web-01"] = {"state": State.DONE, "result": plan}
    ended = run("isolate", "web-01", "--dry-run", "--wait")
    assert signed_in.asked("POST /actions/isolate/orders")[0]["dry_run"] is True
    for text in ("WHAT", "Drop", "Beware of the dog"):
        assert text in ended.out


def test_a_file_says_how_to_fetch_it(run, signed_in):
    """Evidence in a result is followed by the command that brings it."""
    evidence = {"id": "evi_7", "name": "/etc/passwd", "size": 2048, "sha256": "a" * 64}
    info = {"size": 2048, "mode": 420, "user": "root", "modified": "2026-11-24T12:00:00Z", "inode": 7}
    got = {"path": "/etc/passwd", "evidence": evidence, "info": info, "type": {"name": "unknown", "first": ""}}
    signed_in.ends["web-01"] = {"state": State.DONE, "result": {"count": 1, "size": 2048, "files": [got]}}
    ended = run("get-file", "web-01", "--path", "/etc/passwd", "--wait")
    assert "stanch evidence get evi_7" in ended.out
    assert "2.0 KiB" in ended.out


def test_a_result_of_another_version_is_still_shown(run, signed_in):
    """What this version cannot parse is shown as it came."""
    signed_in.ends["web-01"] = {"state": State.DONE, "result": {"novelty": "shiny"}}
    ended = run("isolate", "web-01", "--wait")
    assert ended.code == 0
    assert "shiny" in ended.out


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.code)
def test_the_exit_code_is_that_of_the_task(run, signed_in, kind):
    """With --wait a failed task ends the command with the code of its error."""
    signed_in.ends["web-01"] = failed(kind)
    ended = run("isolate", "web-01", "--wait")
    assert ended.code == kind.exit_code
    assert "It did not work" in ended.out


@pytest.mark.parametrize(
    ("state", "code"), [("failed", 9), ("refused", 8), ("cancelled", 10), ("expired", 7), ("unknown", 9), ("done", 0)]
)
def test_a_state_without_an_error_has_a_code_too(run, signed_in, state, code):
    """Every final state but done ends with something else than 0."""
    signed_in.ends["web-01"] = {"state": State(state)}
    assert run("isolate", "web-01", "--wait").code == code


def test_the_worst_task_decides(run, signed_in):
    """One failure among successes is a failure, and the highest code wins."""
    signed_in.endpoints = [an_endpoint(n) for n in range(1, 5)]
    signed_in.ends = {"web-02": failed(TimedOut), "web-03": {"state": State.REFUSED, "error": Unsupported("No").body()}}
    names = [one.hostname for one in signed_in.endpoints]
    assert run("isolate", *names, "--wait").code == TimedOut.exit_code == Interrupted.exit_code
    assert run("isolate", *names, "--wait", "--json").code == TimedOut.exit_code


def test_an_unknown_error_code_is_not_success(run, signed_in):
    """A newer server's error still ends with something else than 0."""
    signed_in.ends["web-01"] = {"state": State.FAILED, "error": ErrorBody(code="novelty", message="New")}
    assert run("isolate", "web-01", "--wait").code == 1


def test_many_results_are_one_line_each(run, signed_in):
    """A hundred endpoints fill a table, not a hundred pages."""
    signed_in.endpoints = [an_endpoint(n) for n in range(1, 101)]
    signed_in.ends = {one.hostname: {"state": State.DONE, "result": ISOLATED} for one in signed_in.endpoints}
    ended = run("isolate", *signed_in.ends, "--wait")
    assert len(ended.out.splitlines()) == 102
    assert "sockets destroyed 3" in ended.out
