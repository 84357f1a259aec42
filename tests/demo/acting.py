"""A scene for the acts: the outside's real bookkeeping, without its sockets, and commands that were answered before."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stanch.core.frames import Inventory
from stanch.core.isolation import IsolationStatus
from stanch.core.policy import Origin
from stanch.core.rest import DetectionView, EndpointView, OrderView, TaskView
from stanch.core.task import State
from stanch.demo.outside import Outside
from stanch.demo.questions import Span
from stanch.demo.responder import Responder
from stanch.demo.scene import Scene
from stanch.demo.wire import Known


class Witness(Outside):
    """What the outside has noted, asked without a socket."""

    def __init__(self) -> None:
        super().__init__(Known())

    def seen(self, *, since: float = 0, until: float | None = None) -> Span:
        """As over the socket."""
        question = {"op": "report", "since": since} | ({} if until is None else {"until": until})
        answer = json.loads(json.dumps(self.answer(question)))
        return Span(answer["streams"], tuple(answer["strays"]), tuple(answer["idle"]), answer["now"])


class Answered(Responder):
    """Each command has its answer, by its first word; the last of several stays."""

    def stanch(self, *arguments: str, say: str = "") -> Any:
        """The next answer."""
        answers = self.places[arguments[0]]
        return answers[0] if len(answers) == 1 else answers.pop(0)  # type: ignore[attr-defined]


def scene_of(witness: Witness, *, answers: dict[str, list[Any]] | None = None, **stage: Any) -> Scene:
    """A scene whose stage has this witness, these answers, and whatever else is given."""
    responder = Answered((), Path("/"), answers or {})  # type: ignore[arg-type]  # answers stand where places would
    return Scene(SimpleNamespace(world=witness, responder=responder, **stage))  # type: ignore[arg-type]


def heard(witness: Witness, kind: str, times: Sequence[float]) -> None:
    """Something was heard at these moments."""
    for at in times:
        witness.arrivals.note(kind, 1, at)


def detection(kind: str, *, number: int = 1, **detail: object) -> dict[str, Any]:
    """A detection that is received a moment after the act began, as a command prints it."""
    now = datetime.now(UTC) + timedelta(seconds=10)
    about = {"endpoint": "end_" + "0" * 32, "hostname": "web-01", "title": kind, "severity": "high"}
    view = DetectionView(id=number, kind=kind, detail=detail, at=now, received=now, **about)
    return json.loads(view.model_dump_json())


def endpoint(*, online: bool = True, isolation: dict[str, Any] | None = None) -> dict[str, Any]:
    """An endpoint, as a command prints it."""
    inventory = Inventory(hostname="web-01")
    view = EndpointView(
        id="end_" + "0" * 32,
        hostname="web-01",
        labels=(),
        online=online,
        last_seen=None,
        revoked=False,
        agent_version="0",
        inventory=inventory,
        actions={},
        capabilities={},
        effects=(),
        isolation=IsolationStatus.model_validate(isolation) if isolation else None,
        enrolled=datetime.now(UTC),
    )
    return json.loads(view.model_dump_json())


def ordered(action: str, result: dict[str, Any]) -> dict[str, Any]:
    """An order on one endpoint that was done this moment, as `--wait --json` prints it."""
    now = datetime.now(UTC)
    task = TaskView(
        id="tsk_1",
        order="ord_1",
        endpoint="end_1",
        hostname="web-01",
        action=action,
        state=State.DONE,
        result=result,
        created=now,
        changed=now,
    )
    view = OrderView(
        id="ord_1",
        action=action,
        params={},
        origin=Origin.CLI,
        requested_by="admin",
        reason="",
        dry_run=False,
        created=now,
        valid_until=now,
        states={State.DONE: 1},
        tasks=(task,),
    )
    return json.loads(view.model_dump_json())
