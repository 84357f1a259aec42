"""A small server that speaks the REST API over real TLS on loopback: what the client and the command line talk to."""

import asyncio
import datetime as dt
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from stanch.actions import load
from stanch.core.detections import DETECTIONS, Severity
from stanch.core.errors import Conflict, NotAuthenticated, NotFound, StanchError
from stanch.core.frames import Interface, Inventory
from stanch.core.pack import PackCheck
from stanch.core.rest import (
    AuditEntryView,
    AuditVerified,
    DetectionView,
    EffectivePolicy,
    EndpointView,
    GroupView,
    OrderView,
    PolicyChange,
    PolicyView,
    ReleaseCodeEntry,
    ReleaseCodes,
    TaskEvent,
    TaskView,
)
from stanch.core.rest_content import (
    ContentDetail,
    ContentRoom,
    Imported,
    KeptVersion,
    Lint,
    Prune,
    Pruned,
    Publication,
    VersionDetail,
    VersionView,
)
from stanch.core.rest_evidence import EvidenceVerdict, EvidenceView, Preview
from stanch.core.rest_uploads import UploadPage, UploadView
from stanch.core.settings import GroupSettings
from stanch.core.task import State
from stanch.derive.openapi import action_view, order_body
from stanch.worker import shown
from stanch.worker.elf import elf
from stanch.worker.kinds import choose

NOW = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
TOKEN = "tok-of-alice"
PASSWORD = "correct horse"


def an_endpoint(number: int, *, hostname: str | None = None, labels: tuple[str, ...] = ()) -> EndpointView:
    """An endpoint that is online."""
    name = hostname or f"web-{number:02}"
    devices = (Interface(name="eth0", mac="02:00:00:00:00:01", addresses=(f"10.0.0.{number}", "fe80::1")),)
    return EndpointView(
        id=f"ept_{number}",
        hostname=name,
        labels=labels,
        online=True,
        last_seen=NOW,
        revoked=False,
        agent_version="0.1.0",
        inventory=Inventory(hostname=name, os="Debian 12", kernel="6.18", architecture="x86_64", interfaces=devices),
        actions={},
        capabilities={"nftables": "yes"},
        effects=(),
        enrolled=NOW,
    )


def an_audit_entry(number: int, *, who: str = "alice") -> AuditEntryView:
    """An entry whose hash is its number."""
    return AuditEntryView(
        n=number,
        at=NOW,
        who=who,
        what="order",
        subject=f"ord_{number}",
        detail={"endpoints": 1},
        previous=f"{number - 1:064x}",
        hash=f"{number:064x}",
    )


def a_detection(number: int, *, kind: str = "isolation-tampered", **detail: Any) -> DetectionView:
    """A detection on web-01."""
    about = DETECTIONS[kind]
    return DetectionView(
        id=number,
        endpoint="end_1",
        hostname="web-01",
        kind=kind,
        title=about.title,
        severity=about.severity,
        detail=detail,
        at=NOW,
        received=NOW,
    )


def a_group(name: str, *labels: str, sections: tuple[str, ...] = ()) -> GroupView:
    """A group of two endpoints."""
    rank = 1000 if labels else 1_000_000
    return GroupView(name=name, labels=labels, rank=rank, description="Why", endpoints=2, sections=sections)


@dataclass
class Stub:
    """What the server has, and what it was asked."""

    endpoints: list[EndpointView] = field(default_factory=lambda: [an_endpoint(1), an_endpoint(2)])
    orders: dict[str, OrderView] = field(default_factory=dict)
    evidence: dict[str, tuple[EvidenceView, bytes]] = field(default_factory=dict)
    audit: list[AuditEntryView] = field(default_factory=list)
    detections: list[DetectionView] = field(default_factory=list)
    """Newest first."""
    groups: list[GroupView] = field(default_factory=lambda: [a_group("web", "role=web"), a_group("all")])
    policies: dict[str, PolicyView] = field(default_factory=dict)
    """By group; empty ones are made when they are asked for."""
    release_codes: list[ReleaseCodeEntry] = field(default_factory=list)
    """Of every endpoint."""
    ends: dict[str, dict] = field(default_factory=dict)
    """Host name to the final fields of its task; done without a result otherwise."""
    errors: dict[str, StanchError] = field(default_factory=dict)
    """`GET /whoami` to the error that it answers."""
    raw: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """`GET /whoami` to a foreign answer."""
    uploads: dict[str, UploadView] = field(default_factory=dict)
    content: dict[str, list[tuple[VersionDetail, bytes]]] = field(default_factory=dict)
    tells_room: bool = True
    """As servers do that know of it."""
    other_pack: bytes = b""
    """Sent instead of any pack."""
    """By name; the oldest first."""
    published: dict[str, int] = field(default_factory=dict)
    """The version that is current for everybody."""
    lint: Lint = field(default_factory=Lint)
    """What is found in whatever comes."""
    max_upload: int = 10_000_000
    damaged: bool = False
    """Is another hash answered than that of what was uploaded?"""
    requests: list[tuple[str, dict]] = field(default_factory=list)
    """`POST /login` and its body, in order."""
    headers: list[dict[str, str]] = field(default_factory=list)
    streams: bool = True
    """Does the event stream work?"""
    cut: int | None = None
    """Bytes of content after which the connection breaks."""
    page: int = 200
    progress: tuple[TaskEvent, ...] = ()
    url: str = ""
    ca: str = ""

    @property
    def pin(self) -> str:
        """SHA-256 of the CA."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.ca)).hexdigest()

    def asked(self, what: str) -> list[dict]:
        """The bodies of requests to a path."""
        return [body for path, body in self.requests if path == what]

    def add_evidence(self, key: str, name: str, content: bytes, *, complete: bool = True) -> EvidenceView:
        """Evidence that was taken."""
        digest = hashlib.sha256(content).hexdigest()
        view = EvidenceView(
            id=key,
            task="tsk_1",
            endpoint="ept_1",
            name=name,
            size=len(content),
            sha256=digest if complete else None,
            complete=complete,
            received=len(content) if complete else 0,
            created=NOW,
        )
        self.evidence[key] = (view, content)
        return view

    def order(self, action: str, body: dict) -> OrderView:
        """Make an order, as the server would."""
        checked = order_body(load().find(action)).model_validate(body)
        key = f"ord_{len(self.orders) + 1}"
        wanted = [one for one in self.endpoints if one.hostname in checked.endpoints or one.id in checked.endpoints]
        wanted += [one for one in self.endpoints if checked.labels and set(checked.labels) <= set(one.labels)]
        wanted += [one for one in self.endpoints if checked.group in one.groups and not checked.endpoints]
        tasks = tuple(
            TaskView(
                id=f"tsk_{key}_{n}",
                order=key,
                endpoint=one.id,
                hostname=one.hostname,
                action=action,
                state=State.QUEUED,
                created=NOW,
                changed=NOW,
            )
            for n, one in enumerate(wanted)
        )
        made = OrderView(
            id=key,
            action=action,
            params=body["params"],
            origin="cli",
            requested_by="alice",
            reason=checked.reason,
            dry_run=checked.dry_run,
            created=NOW,
            valid_until=NOW,
            states={State.QUEUED: len(tasks)},
            tasks=tasks,
        )
        self.orders[key] = made
        return made

    def finish(self, key: str) -> Iterator[TaskEvent]:
        """Bring an order to its end, with what the stream says meanwhile."""
        for task in self.orders[key].tasks:
            yield self.change(key, task.id, state=State.RUNNING)
            yield from self.progress
            yield self.change(key, task.id, **self.ends.get(task.hostname, {"state": State.DONE}))

    def change(self, key: str, task: str, **fields) -> TaskEvent:
        """Change a task, and its order's counts."""
        order = self.orders[key]
        tasks = tuple(one.model_copy(update=fields) if one.id == task else one for one in order.tasks)
        states = {state: sum(one.state is state for one in tasks) for state in State}
        self.orders[key] = order.model_copy(update={"tasks": tasks, "states": {s: n for s, n in states.items() if n}})
        endpoint = next(one.endpoint for one in tasks if one.id == task)
        return TaskEvent(type="task", task=task, order=key, endpoint=endpoint, state=fields.get("state"))


def _app(stub: Stub) -> FastAPI:
    app = FastAPI()

    @app.exception_handler(StanchError)
    async def on_error(_request: Request, error: StanchError) -> JSONResponse:
        return JSONResponse({"error": error.body().model_dump()}, status_code=error.http_status)

    @app.api_route("/api/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def answer(path: str, request: Request) -> Response:
        what, data = f"{request.method} /{path}", await request.body()
        raw = request.headers.get("content-type") == "application/octet-stream"
        body = json.loads(data) if data and not raw else {}
        stub.requests.append((what, body or dict(request.query_params)))
        stub.headers.append(dict(request.headers))
        if what in stub.errors:
            raise stub.errors[what]
        if what in stub.raw:
            status, body = stub.raw[what]
            return Response(body, status_code=status)
        if path not in {"ca", "login", "health"} and request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise NotAuthenticated("The token is not known")
        if raw:
            return _take(stub, path, request, data)
        return _route(stub, request.method, path.split("/"), request, body)

    return app


def _route(stub: Stub, method: str, parts: list[str], request: Request, body: dict) -> Response:
    answer = _ROUTES.get(f"{method} {parts[0]}") or _ROUTES.get(parts[0])
    if answer is None:
        raise NotFound("There is nothing here")
    return answer(stub, parts[1:], request, body)


def _create_token(stub: Stub) -> Response:
    secret = {"token": "tok_secret", "ca_pin": stub.pin, "gateway_url": "https://127.0.0.1:8444"}
    return JSONResponse({**_token(), **secret}, status_code=201)


def _whoami() -> Response:
    return JSONResponse({"name": "alice", "roles": ["administrator"], "permissions": ["read"], "up_to": "destructive"})


def _task(stub: Stub, key: str) -> Response:
    return _dumped(_found([one for order in stub.orders.values() for one in order.tasks], key))


def _orders(stub: Stub, rest: list[str], request: Request) -> Response:
    if rest:
        return _order(stub, rest[0], rest[1:])
    return _listed(stub, request, [one.model_copy(update={"tasks": ()}) for one in stub.orders.values()])


def _login(body: dict) -> Response:
    if body["password"] != PASSWORD:
        raise NotAuthenticated("Name or password is wrong")
    session = {"token": TOKEN, "expires": NOW.isoformat(), "name": body["name"], "roles": ["administrator"]}
    return JSONResponse(session)


def _token() -> dict:
    return {"id": "etk_1", "uses_left": 1, "expires": NOW.isoformat(), "labels": ["env=prod"], "created_by": "alice"}


def _addresses(body: dict) -> Response:
    urls = body.get("urls", [])
    return JSONResponse({"configured": ["https://a.test:8444"], "announced": urls, "peers": ["10.0.0.1:8444"]})


def _matching(stub: Stub, request: Request) -> list[EndpointView]:
    text, labels = request.query_params.get("search", ""), set(request.query_params.getlist("label"))
    group = request.query_params.get("group")
    of_group = [one for one in stub.endpoints if group is None or group in one.groups]
    return [one for one in of_group if text in one.model_dump_json() and labels <= set(one.labels)]


def _endpoints(stub: Stub, rest: list[str], request: Request, body: dict) -> Response:
    if not rest:
        return _listed(stub, request, _matching(stub, request))
    key, *rest = rest
    found = _found(stub.endpoints, key)
    if rest == ["release-codes"]:
        return _dumped(ReleaseCodes(endpoint=found.id, hostname=found.hostname, codes=tuple(stub.release_codes)))
    if rest == ["policy"]:
        return _dumped(_effective(stub, found))
    if rest == ["labels"]:
        kept = [one for one in found.labels if one.split("=")[0] not in body.get("remove", ())]
        found = found.model_copy(update={"labels": (*kept, *body.get("add", ()))})
    return _dumped(found.model_copy(update={"revoked": rest == ["revoke"]}))


def _effective(stub: Stub, found: EndpointView) -> EffectivePolicy:
    """As if the first of its groups decided everything."""
    settings = _policy(stub, found.groups[0]).settings if found.groups else GroupSettings()
    decided = {name: found.groups[0] for name, one in settings if one is not None}
    return EffectivePolicy(
        endpoint=found.id, hostname=found.hostname, groups=found.groups, settings=settings, decided_by=decided
    )


def _groups(stub: Stub, rest: list[str], request: Request, body: dict) -> Response:
    if not rest:
        return _make_group(stub, body) if request.method == "POST" else _plain_list(stub.groups)
    found = next((one for one in stub.groups if one.name == rest[0]), None)
    if found is None:
        raise NotFound("There is no such group", got=rest[0])
    if rest[1:] == ["policy"]:
        return _dumped(_change_policy(stub, found.name, body) if request.method == "PUT" else _policy(stub, found.name))
    if request.method == "DELETE":
        stub.groups.remove(found)
        return Response(status_code=204)
    return _dumped(GroupView.model_validate({**found.model_dump(), **body}))


def _make_group(stub: Stub, body: dict) -> Response:
    defaults = {"rank": 1000, "description": "", "endpoints": 0, "sections": ()}
    made = GroupView.model_validate({**defaults, **body})
    stub.groups.append(made)
    return _dumped(made, 201)


def _plain_list(some: Sequence[BaseModel]) -> Response:
    return JSONResponse([one.model_dump(mode="json") for one in some])


def _policy(stub: Stub, group: str) -> PolicyView:
    return stub.policies.setdefault(group, PolicyView(group=group, version=0, settings=GroupSettings()))


def _change_policy(stub: Stub, group: str, body: dict) -> PolicyView:
    """As the server does, with its check of what the change is based on."""
    wanted, before = PolicyChange.model_validate(body), _policy(stub, group)
    if wanted.based_on not in {None, before.version}:
        raise Conflict("Somebody else has changed the policy meanwhile")
    settings = GroupSettings.model_validate(wanted.settings.model_dump())
    changed = {"version": before.version + 1, "settings": settings, "changed": NOW, "changed_by": "alice"}
    stub.policies[group] = before.model_copy(update=changed)
    return stub.policies[group]


def _order(stub: Stub, key: str, rest: list[str]) -> Response:
    order = _found(list(stub.orders.values()), key)
    if rest == ["undo"]:
        return _dumped(stub.order("release", {"endpoints": [one.hostname for one in order.tasks], "params": {}}), 201)
    if rest == ["cancel"]:
        for task in order.tasks:
            stub.change(key, task.id, state=State.CANCELLED)
    if not rest and not stub.streams:
        list(stub.finish(key))
    return _dumped(stub.orders[key])


def _events(stub: Stub, key: str) -> Response:
    if not stub.streams:
        return Response("no streams here", status_code=502)

    async def lines():
        yield ": listening\n\n"
        await _until_looked(stub, f"GET /orders/{key}")
        for event in stub.finish(key):
            yield f"data: {event.model_dump_json()}\n\n"
            await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/event-stream")


def _detections(stub: Stub, request: Request) -> Response:
    kind = request.query_params.get("kind", "")
    least = Severity(request.query_params.get("severity") or Severity.LOW).rank
    found = [one for one in stub.detections if kind in {"", one.kind} and Severity(one.severity).rank >= least]
    return _numbered(stub, request, found, [one.id for one in found])


def _audit(stub: Stub, rest: list[str], request: Request) -> Response:
    if rest == ["verify"]:
        newest = stub.audit[0].hash if stub.audit else "0" * 64
        return _dumped(AuditVerified(entries=len(stub.audit), newest=newest))
    return _numbered(stub, request, stub.audit, [one.n for one in stub.audit])


def _numbered(stub: Stub, request: Request, found: Sequence[BaseModel], numbers: Sequence[int]) -> Response:
    """A page of what has falling numbers."""
    before = int(request.query_params.get("after", 2**63))
    older = [(number, one) for number, one in zip(numbers, found, strict=True) if number < before]
    items = older[: stub.page]
    following = str(items[-1][0]) if len(older) > stub.page else None
    return JSONResponse({"items": [one.model_dump(mode="json") for _, one in items], "next": following})


def _evidence(stub: Stub, rest: list[str], request: Request) -> Response:
    if not rest:
        deleted = request.query_params.get("deleted") == "true"
        views = [view for view, _ in stub.evidence.values() if (view.deleted is not None) == deleted]
        return _listed(stub, request, views)
    key, *rest = rest
    if key not in stub.evidence:
        raise NotFound("There is no such evidence")
    view, content = stub.evidence[key]
    if request.method == "DELETE":
        gone = {"deleted": NOW, "deleted_by": "alice", "deleted_why": request.query_params["reason"]}
        stub.evidence[key] = (view.model_copy(update=gone), b"")
        return _dumped(stub.evidence[key][0])
    if rest == ["preview"]:
        return _dumped(_preview(view, content, request))
    if rest == ["verify"]:
        found = hashlib.sha256(content).hexdigest()
        about = {"evidence": key, "size": view.size, "expected": view.sha256, "found": found, "at": NOW}
        intact = found == view.sha256
        return _dumped(EvidenceVerdict(intact=intact, problem=None if intact else "it is another one", **about))
    if not rest:
        return _dumped(view)
    start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return StreamingResponse(_pieces(stub, content[start:]), 206, headers)


def _preview(view: EvidenceView, content: bytes, request: Request) -> Preview:
    """As the server does, without a process of its own."""
    offset = int(request.query_params.get("offset", 0))
    data = content[offset:][: int(request.query_params.get("length", 4096))]
    wanted = request.query_params["as"]
    kind = choose(data) if wanted == "auto" else wanted
    renderers = {
        "text": lambda: shown.text(data, offset=offset, first=content[:4], more=False),
        "hex": lambda: shown.hexadecimal(data),
        "strings": lambda: shown.strings(data, offset=offset),
        "elf": lambda: elf(data, more=False),
    }
    about = {"evidence": view.id, "kind": kind, "size": view.size, "offset": offset, "length": len(data)}
    return Preview.model_validate({**about, kind: renderers[kind](), "confined": {"seccomp": "yes"}})


def _take(stub: Stub, path: str, request: Request, data: bytes) -> Response:
    """Bytes that are brought to the server."""
    match path:
        case "content":
            return _take_content(stub, request, data)
        case "content-check":
            return _dumped(stub.lint)
        case _:
            return _take_upload(stub, request, data)


def _take_upload(stub: Stub, request: Request, data: bytes) -> Response:
    """As the server keeps it."""
    number, name = f"upl_{len(stub.uploads) + 1}", request.query_params["name"]
    digest = "0" * 64 if stub.damaged else hashlib.sha256(data).hexdigest()
    made = {"id": number, "name": name, "size": len(data), "sha256": digest, "created": NOW, "used": NOW}
    stub.uploads[number] = UploadView.model_validate({**made, "by": "alice", "orders": 0})
    return _dumped(stub.uploads[number], 201)


def _uploads(stub: Stub, rest: list[str], request: Request) -> Response:
    if request.method == "DELETE":
        _found(list(stub.uploads.values()), rest[0])
        del stub.uploads[rest[0]]
        return Response(status_code=204)
    digest = request.query_params.get("sha256")
    found = [one for one in stub.uploads.values() if digest in {None, one.sha256}]
    return _dumped(UploadPage(items=found, max_size=stub.max_upload))


def _take_content(stub: Stub, request: Request, data: bytes) -> Response:
    """As the server keeps it; the pack is read."""
    check = PackCheck()
    check.feed(data)
    about, name, digest = check.end(), request.query_params["name"], hashlib.sha256(data).hexdigest()
    versions = stub.content.setdefault(name, [])
    for one, there in versions:
        if there == data:
            return _dumped(Imported(new=False, version=one), 201)
    rules, problems = (sum(getattr(one, what) for one in stub.lint.files) for what in ("rules", "problems"))
    made = {"content": name, "kind": about.kind, "version": len(versions) + 1, "sha256": digest, "size": len(data)}
    counts = {"files": len(about.files), "rules": rules, "problems": problems, "created": NOW, "by": "alice"}
    note = request.query_params.get("note", "")
    versions.append((VersionDetail.model_validate({**made, **counts, "note": note, "lint": stub.lint}), data))
    return _dumped(Imported(new=True, version=versions[-1][0]), 201)


def _content(stub: Stub, rest: list[str], request: Request, body: dict) -> Response:
    if not rest:
        return JSONResponse([_content_view(stub, name).model_dump(mode="json") for name in stub.content])
    name, *rest = rest
    if name not in stub.content:
        raise NotFound("There is no such content", got=name)
    match rest:
        case ["versions", number] if request.method == "DELETE":
            stub.content[name] = [one for one in stub.content[name] if one[0].version != int(number)]
            return Response(status_code=204)
        case ["versions", number, "pack"]:
            data = next(data for one, data in stub.content[name] if one.version == int(number))
            return Response(stub.other_pack or data, media_type="application/octet-stream")
        case ["prune"]:
            return _dumped(_pruned(stub, name, Prune.model_validate(body)))
        case ["versions", number]:
            return _dumped(next(one for one, _ in stub.content[name] if one.version == int(number)))
        case ["publish"]:
            stub.published[name] = body["version"]
        case ["unpublish"]:
            stub.published.pop(name, None)
        case ["rollback"]:
            stub.published[name] -= 1
    return _dumped(_content_view(stub, name))


def _content_room(stub: Stub) -> Response:
    if not stub.tells_room:
        raise NotFound("There is nothing at this path")
    few = {"names": len(stub.content), "versions": 2, "bytes": 2048}
    return _dumped(ContentRoom(**few, most_names=100, most_versions=500, most_bytes=2**30))


def _pruned(stub: Stub, name: str, wanted: Prune) -> Pruned:
    every = [VersionView.model_validate(one.model_dump()) for one, _ in reversed(stub.content[name])]
    kept, going = every[: wanted.keep], every[wanted.keep :]
    if not wanted.dry_run:
        stub.content[name] = stub.content[name][-wanted.keep :]
    return Pruned(
        content=name,
        dry_run=wanted.dry_run,
        removed=tuple(going),
        kept=tuple(KeptVersion(version=one.version, why="one of the newest") for one in kept),
        freed=sum(one.size for one in going),
    )


def _content_view(stub: Stub, name: str) -> ContentDetail:
    every = tuple(VersionView.model_validate(one.model_dump()) for one, _ in reversed(stub.content[name]))
    current = stub.published.get(name)
    published = () if current is None else (Publication(group="all", version=current, at=NOW, by="alice"),)
    about = {"name": name, "kind": every[0].kind, "versions": len(every), "newest": every[0].version}
    return ContentDetail(**about, published=published, endpoints=2 * bool(published), every=every)


async def _until_looked(stub: Stub, what: str) -> None:
    """Things happen after the client has looked, so that a test can tell what it sees."""
    before = len(stub.asked(what))
    for _ in range(500):
        if len(stub.asked(what)) > before:
            return
        await asyncio.sleep(0.01)


async def _pieces(stub: Stub, content: bytes):
    """The content, cut once where the test wants it."""
    cut, stub.cut = stub.cut, None
    yield content[:cut]
    if cut is not None:
        raise ConnectionResetError("cut on purpose")


def _found(some: list, key: str):
    for one in some:
        if key in {one.id, getattr(one, "hostname", None)}:
            return one
    raise NotFound("There is no such thing", got=key)


def _dumped(model, status: int = 200) -> Response:
    return JSONResponse(model.model_dump(mode="json"), status_code=status)


def _listed(stub: Stub, request: Request, some: list) -> Response:
    after = request.query_params.get("after")
    start = next((n + 1 for n, one in enumerate(some) if one.id == after), 0)
    items = some[start : start + stub.page]
    following = items[-1].id if start + stub.page < len(some) else None
    return JSONResponse({"items": [one.model_dump(mode="json") for one in items], "next": following})


_HEALTH = {"status": "ok", "version": "0", "agents_online": 2, "queued": 0}

_ROUTES = {
    "ca": lambda stub, *_: Response(stub.ca),
    "health": lambda *_: JSONResponse(_HEALTH),
    "login": lambda _stub, _rest, _request, body: _login(body),
    "logout": lambda *_: Response(status_code=204),
    "whoami": lambda *_: _whoami(),
    "GET actions": lambda *_: JSONResponse([action_view(one).model_dump(mode="json") for one in load().values()]),
    "POST actions": lambda stub, rest, _request, body: _dumped(stub.order(rest[0], body), 201),
    "endpoints": _endpoints,
    "groups": _groups,
    "orders": lambda stub, rest, request, _body: _orders(stub, rest, request),
    "tasks": lambda stub, rest, *_: _task(stub, rest[0]),
    "events": lambda stub, _rest, request, _body: _events(stub, request.query_params["order"]),
    "GET tokens": lambda *_: JSONResponse([_token()]),
    "POST tokens": lambda stub, *_: _create_token(stub),
    "DELETE tokens": lambda *_: Response(status_code=204),
    "server": lambda _stub, _rest, _request, body: _addresses(body),
    "detections": lambda stub, _rest, request, _body: _detections(stub, request),
    "audit": lambda stub, rest, request, _body: _audit(stub, rest, request),
    "content": _content,
    "content-room": lambda stub, _rest, _request, _body: _content_room(stub),
    "uploads": lambda stub, rest, request, _body: _uploads(stub, rest, request),
    "evidence": lambda stub, rest, request, _body: _evidence(stub, rest, request),
}


# --- the server itself -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listening:
    """A server that runs, whose stub can be replaced between tests."""

    app: "Switch"
    url: str
    ca: str

    def serve(self, stub: Stub) -> Stub:
        """Answer from this stub from now on."""
        stub.url, stub.ca = self.url, self.ca
        self.app.current = _app(stub)
        return stub


class Switch:
    """An ASGI application that stands for another."""

    current: FastAPI

    async def __call__(self, scope, receive, send) -> None:
        await self.current(scope, receive, send)


@contextmanager
def listening(folder: Path) -> Iterator[Listening]:
    """A server on loopback with a certificate of its own CA, while this lasts."""
    ca, key, certificate = certificates()
    (folder / "key.pem").write_bytes(key)
    (folder / "cert.pem").write_bytes(certificate)
    switch = Switch()
    config = uvicorn.Config(
        switch,
        host="127.0.0.1",
        port=0,
        ssl_keyfile=str(folder / "key.pem"),
        ssl_certfile=str(folder / "cert.pem"),
        log_level="critical",
        lifespan="off",
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Listening(switch, f"https://127.0.0.1:{_port(server, thread)}", ca.decode())
    finally:
        server.should_exit = True
        thread.join(10)


def _port(server: uvicorn.Server, thread: threading.Thread) -> int:
    while not server.started:
        thread.join(0.01)
        if not thread.is_alive():
            raise RuntimeError("the stub server does not start")
    return server.servers[0].sockets[0].getsockname()[1]


def certificates() -> tuple[bytes, bytes, bytes]:
    """A CA, and a key and certificate for loopback by it; PEM."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test CA")])
    ca = _certificate(name, ca_key.public_key(), name, ca_key, x509.BasicConstraints(ca=True, path_length=0))
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    leaf = _certificate(subject, key.public_key(), name, ca_key, x509.SubjectAlternativeName(names))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ca, private, leaf


def _certificate(subject, public, issuer, signer, extension) -> bytes:
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(signer, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)
