"""The responder reads what commands print, and raises what they report."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stanch.core.errors import Denied, StanchError, TargetGone, Unavailable
from stanch.core.rest import Health
from stanch.demo import responder as module
from stanch.demo.report import NotSeen
from stanch.demo.responder import Responder, monotonic_of, refusal

NOW = "2026-11-24T12:00:00Z"


def saying(monkeypatch: pytest.MonkeyPatch, home: Path, *, printed: str, code: int = 0) -> Responder:
    """A responder whose `stanch` prints this and ends with that."""
    program = f"import sys; print({printed!r}); sys.exit({code})"
    monkeypatch.setattr(module, "STANCH", (sys.executable, "-c", program))
    return Responder((), home)


def order(*, state: str, error: dict[str, str] | None = None) -> str:
    """An order with one task, as `--wait --json` prints it."""
    ids = {"id": "ord_1", "action": "isolate"}
    task = {"id": "tsk_1", "order": "ord_1", "endpoint": "end_1", "hostname": "web-01", "action": "isolate"}
    task |= {"state": state, "error": error, "created": NOW, "changed": NOW}
    about = {"params": {}, "origin": "cli", "requested_by": "admin", "reason": "", "dry_run": False}
    return json.dumps({**ids, **about, "created": NOW, "valid_until": NOW, "states": {state: 1}, "tasks": [task]})


def test_one_document_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What a command prints comes back typed."""
    printed = json.dumps({"status": "ok", "version": "1", "agents_online": 3, "queued": 0})
    assert saying(monkeypatch, tmp_path, printed=printed).one(Health, "health").agents_online == 3


def test_a_reported_error_is_raised_as_its_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The error body of a failed command is the same error here."""
    printed = json.dumps({"error": {"code": "denied", "message": "You may not"}})
    with pytest.raises(Denied, match="You may not"):
        saying(monkeypatch, tmp_path, printed=printed, code=4).stanch("whoami")


def test_output_that_is_no_json_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A command that breaks the promise of --json is shown with what it said."""
    with pytest.raises(Unavailable) as caught:
        saying(monkeypatch, tmp_path, printed="Traceback ...", code=1).stanch("orders")
    assert "Traceback" in str(caught.value.got)


def test_a_task_that_is_done_is_returned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The one task of the order."""
    assert saying(monkeypatch, tmp_path, printed=order(state="done")).order("isolate", "web-01").id == "tsk_1"


def test_a_task_that_failed_raises_its_own_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Not the order's exit code, but the reason that the endpoint gave."""
    failed = order(state="failed", error={"code": "target-gone", "message": "There is no process 1"})
    with pytest.raises(TargetGone):
        saying(monkeypatch, tmp_path, printed=failed, code=9).order("isolate", "web-01")


def test_a_task_without_a_reason_is_still_not_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Only `done` is done."""
    with pytest.raises(StanchError) as caught:
        saying(monkeypatch, tmp_path, printed=order(state="expired"), code=9).order("isolate", "web-01")
    assert (caught.value.got, caught.value.expected) == ("expired", "done")


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The story does not wait for ever."""
    monkeypatch.setattr(module, "STANCH", (sys.executable, "-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(module, "COMMAND_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="does not end"):
        Responder((), tmp_path).stanch("orders")


def test_a_refusal_is_what_was_hoped_for():
    """The error comes back; where nothing is refused that is the failure, and another error stays what it is."""

    def refuse() -> None:
        raise Denied("not this one")

    assert refusal(Denied, refuse).message == "not this one"
    with pytest.raises(NotSeen, match="not refused"):
        refusal(Denied, lambda: {"changed": True})
    with pytest.raises(Denied):
        refusal(TargetGone, refuse)


def test_a_user_of_the_endpoint_finds_the_agent(tmp_path: Path):
    """Places that are not the usual ones are in the environment of each command."""
    places = {"STANCH_AGENT_SOCKET": "/run/x/agent.sock"}
    assert Responder((), tmp_path, places=places).environment.items() >= places.items()


def test_moments_are_translated_to_the_outsides_clock():
    """Now on the wall clock is now on the monotonic one."""
    before = time.monotonic()
    translated = monotonic_of(datetime.now(UTC))
    assert before - 0.001 <= translated <= time.monotonic() + 0.001
