"""The responder of the demo: types real `stanch` commands, each in a process of its own, and reads their JSON."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from stanch.core.errors import ErrorBody, StanchError, Unavailable
from stanch.core.rest import OrderView, TaskView
from stanch.core.task import State
from stanch.demo.program import ENVIRONMENT, guarded
from stanch.demo.report import NotSeen

STANCH = (sys.executable, "-m", "stanch.cli.main")
COMMAND_SECONDS = 120.0

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Responder:
    """Someone at a terminal, with a session of their own."""

    enter: tuple[str, ...]
    """What to put before a command to be where the server can be reached."""
    home: Path
    """Home of the session."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where an agent keeps its things, by variable, if it is not where it usually does."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What the commands see."""
        own = {"HOME": str(self.home), "STANCH_SESSION": str(self.home / "session.json")}
        return {**ENVIRONMENT, **own, **self.places}

    def stanch(self, *arguments: str, say: str = "") -> Any:
        """Run `stanch ARGUMENTS --json`; the one document that it printed. Raises the error that it reports."""
        done = self._run((*self.enter, *STANCH, *arguments, "--json"), say)
        answer = _read(done.stdout)
        if answer is None or "error" in answer:
            raise _error(arguments, done, answer)
        return answer

    def _run(self, command: Sequence[str], say: str) -> "subprocess.CompletedProcess[bytes]":
        try:
            return subprocess.run(
                guarded(command),
                input=say.encode(),
                capture_output=True,
                env=dict(self.environment),
                cwd="/",
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = (error.stderr or b"").decode(errors="replace")[-1000:]
            raise Unavailable(
                f"stanch {command[-2]} does not end", got=said, expected=f"in {error.timeout} s"
            ) from None

    def order(self, *arguments: str) -> TaskView:
        """Order an action on one endpoint and wait; its finished task, or the error that stopped it."""
        answer = self.stanch(*arguments, "--wait", "--yes")
        (task,) = OrderView.model_validate_json(json.dumps(answer)).tasks
        if task.error is not None:
            raise StanchError.from_body(task.error)
        if task.state is not State.DONE:
            raise StanchError("The task did not end well", got=task.state, expected=State.DONE)
        return task

    def one(self, kind: type[M], *arguments: str) -> M:
        """One typed thing that a command shows."""
        return kind.model_validate_json(json.dumps(self.stanch(*arguments)))

    def listed(self, kind: type[M], *arguments: str) -> list[M]:
        """Typed things that a command lists."""
        return [kind.model_validate_json(json.dumps(one)) for one in self.stanch(*arguments)]


def refusal(kind: type[StanchError], do: Callable[[], object]) -> StanchError:
    """The error with which something is refused; NotSeen if it is not, any other error as it is."""
    try:
        answer = do()
    except kind as error:
        return error
    raise NotSeen("It was not refused", got=answer, expected=kind.code)


def _read(output: bytes) -> Any:
    try:
        return json.loads(output)
    except ValueError:
        return None


def _error(arguments: Sequence[str], done: "subprocess.CompletedProcess[bytes]", answer: Any) -> StanchError:
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        return StanchError.from_body(ErrorBody.model_validate(answer["error"]))
    said = (done.stderr or done.stdout).decode(errors="replace").strip()[-1000:]
    return Unavailable(f"stanch {' '.join(arguments[:2])} ended with {done.returncode}", got=said)


def monotonic_of(moment: datetime) -> float:
    """A moment of the wall clock on CLOCK_MONOTONIC, as the outside world counts."""
    return moment.timestamp() - time.time() + time.monotonic()
