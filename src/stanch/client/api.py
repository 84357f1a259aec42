"""The server's REST API as typed Python: one method for each path.

with Client.of(session.load(session.default_path())) as client:
    order = client.submit("some_action", OrderCommon(endpoints=("web-01",)), {})
    for event in client.watch(order.id):
        print(event.state)
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from stanch.client.download import Progress, download, silent
from stanch.client.http import READ_SECONDS, Http, read, read_items
from stanch.client.session import SavedSession
from stanch.client.trust import normal_url, unverified_context, verified_ca, verifying_context
from stanch.client.uploads import upload
from stanch.client.watch import Watch
from stanch.core.errors import Invalid, NotFound
from stanch.core.policy import Origin
from stanch.core.rest import (
    ActionView,
    AuditEntryView,
    AuditVerified,
    DetectionView,
    EffectivePolicy,
    EndpointView,
    GroupChange,
    GroupCreate,
    GroupView,
    Health,
    LabelChange,
    LoginRequest,
    OrderCommon,
    OrderView,
    PolicyChange,
    PolicyView,
    ReleaseCodes,
    ServerAddresses,
    ServerAddressesView,
    Session,
    TaskEvent,
    TaskView,
    TokenCreate,
    TokenCreated,
    TokenView,
    Whoami,
)
from stanch.core.rest_content import (
    ContentDetail,
    ContentRoom,
    ContentView,
    ForGroups,
    Imported,
    Lint,
    Prune,
    Pruned,
    Publish,
    VersionDetail,
    VersionView,
)
from stanch.core.rest_evidence import EvidenceVerdict, EvidenceView, Preview, PreviewKind
from stanch.core.rest_uploads import UploadQuery, UploadView
from stanch.core.types import Upload

if TYPE_CHECKING:
    from stanch.client.content import Gathered
    from stanch.client.terminal import Terminal

PAGE = 200
"""How many of a list are asked for at once."""

M = TypeVar("M", bound=BaseModel)


def fetch_ca(url: str, pin: str, *, transport: httpx2.BaseTransport | None = None) -> str:
    """The server's CA as PEM, checked against the pin; VerificationFailed if it is another one."""
    with Http(normal_url(url), verify=unverified_context(), transport=transport) as http:
        try:
            answer = http.ask("GET", "ca")
        except NotFound:
            raise NotFound(
                "This is not the port for people and programs",
                got=http.url,
                hint="That is port 8443, unless the server was told otherwise; 8444 is for agents.",
            ) from None
        return verified_ca(answer.decode("utf-8", "replace"), pin)


class Client:
    """One server, asked by one person or program. Close it, or use it as a context."""

    def __init__(
        self,
        url: str,
        *,
        ca: str,
        token: str = "",
        origin: Origin = Origin.API,
        patience: float = READ_SECONDS,
        transport: httpx2.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tls, self._token = verifying_context(ca), token
        self._http = Http(
            normal_url(url),
            verify=self._tls,
            token=token,
            origin=origin,
            patience=patience,
            transport=transport,
        )
        self._clock, self._sleep = clock, sleep

    @classmethod
    def of(cls, session: SavedSession, *, origin: Origin = Origin.API, patience: float = READ_SECONDS) -> "Client":
        """The client of a saved session."""
        return cls(session.url, ca=session.ca, token=session.token, origin=origin, patience=patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # --- terminals ---------------------------------------------------------------------------------------------------

    def terminal(self, task: str) -> "Terminal":
        """The person's end of the terminal that is this task."""
        from stanch.client.terminal import Terminal

        return Terminal(self._http.url, token=self._token, tls=self._tls, task=task)

    # --- who ---------------------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Is the server well? Needs no sign-in."""
        return self._get(Health, "health")

    def login(self, name: str, password: str) -> Session:
        """A session for name and password; NotAuthenticated if they are wrong, Invalid if they cannot be right."""
        try:
            body = LoginRequest(name=name, password=password)
        except ValidationError:  # its words have the password in them
            raise Invalid(
                "No account has such a name or password",
                got=f"{len(name)} and {len(password)} characters",
                expected="1 to 200 and 1 to 1000",
            ) from None
        return self._send(Session, "POST", "login", body)

    def logout(self) -> None:
        """End the session on the server."""
        self._http.ask("POST", "logout")

    def whoami(self) -> Whoami:
        """Who the token is."""
        return self._get(Whoami, "whoami")

    # --- actions and endpoints ---------------------------------------------------------------------------------------

    def actions(self) -> tuple[ActionView, ...]:
        """What can be ordered."""
        return tuple(self._page(ActionView, "actions", {})[0])

    def endpoints(
        self, *, search: str = "", labels: Sequence[str] = (), group: str | None = None
    ) -> Iterator[EndpointView]:
        """Endpoints that contain the text (host name, address, ...), carry all the labels and belong to the group."""
        return self._list(EndpointView, "endpoints", {"search": search, "label": list(labels), "group": group})

    def endpoint(self, key: str) -> EndpointView:
        """One endpoint, by id or host name."""
        return self._get(EndpointView, "endpoints", key)

    def label(self, key: str, change: LabelChange) -> EndpointView:
        """Add and remove labels of an endpoint."""
        return self._send(EndpointView, "PATCH", _path("endpoints", key, "labels"), change)

    def revoke(self, key: str) -> None:
        """Accept the endpoint's certificate no longer."""
        self._http.ask("POST", _path("endpoints", key, "revoke"))

    def release_codes(self, key: str, *, reason: str = "") -> ReleaseCodes:
        """The codes that lift an isolation at the endpoint itself; the look and its reason are in the audit."""
        path = _path("endpoints", key, "release-codes")
        return read(ReleaseCodes, self._http.ask("GET", path, query={"reason": reason}))

    # --- groups and policies -----------------------------------------------------------------------------------------

    def groups(self) -> tuple[GroupView, ...]:
        """All groups, the one that decides first at the top."""
        return tuple(self._page(GroupView, "groups", {})[0])

    def group(self, key: str) -> GroupView:
        """One group."""
        return self._get(GroupView, "groups", key)

    def create_group(self, group: GroupCreate) -> GroupView:
        """A new group, without a policy."""
        return self._send(GroupView, "POST", "groups", group)

    def change_group(self, key: str, change: GroupChange) -> GroupView:
        """Change labels, rank or description of a group."""
        return self._send(GroupView, "PATCH", _path("groups", key), change)

    def delete_group(self, key: str) -> None:
        """Delete a group, and its policy with it."""
        self._http.ask("DELETE", _path("groups", key))

    def policy(self, key: str) -> PolicyView:
        """The policy of a group."""
        return self._get(PolicyView, "groups", key, "policy")

    def change_policy(self, key: str, change: PolicyChange) -> PolicyView:
        """Replace the policy of a group; Conflict if it is no longer the version that the change is based on."""
        return self._send(PolicyView, "PUT", _path("groups", key, "policy"), change)

    def effective_policy(self, key: str) -> EffectivePolicy:
        """The settings that an endpoint (id or host name) follows, and the groups that decided them."""
        return self._get(EffectivePolicy, "endpoints", key, "policy")

    # --- orders ------------------------------------------------------------------------------------------------------

    def submit(self, action: str, order: OrderCommon, params: Mapping[str, Any]) -> OrderView:
        """Order an action. Not repeated on failure: look at `orders` first, it may have arrived."""
        body = {**order.model_dump(mode="json", exclude_unset=True), "params": dict(params)}
        return self._send(OrderView, "POST", _path("actions", action, "orders"), body)

    def orders(self) -> Iterator[OrderView]:
        """All orders, the newest first, without their tasks."""
        return self._list(OrderView, "orders", {})

    def order(self, key: str) -> OrderView:
        """One order, with its tasks."""
        return self._get(OrderView, "orders", key)

    def cancel(self, key: str) -> OrderView:
        """Stop what is not done yet; tasks that run are final when their endpoint answers."""
        return self._send(OrderView, "POST", _path("orders", key, "cancel"), None)

    def undo(self, key: str) -> OrderView:
        """A new order that takes this one back."""
        return self._send(OrderView, "POST", _path("orders", key, "undo"), None)

    def task(self, key: str) -> TaskView:
        """One task."""
        return self._get(TaskView, "tasks", key)

    def watch(self, key: str) -> Iterator[TaskEvent]:
        """Every change and progress of an order's tasks until all are final, whatever happens to the connection."""
        return Watch(self._http, key, clock=self._clock, sleep=self._sleep).events()

    # --- enrolment tokens --------------------------------------------------------------------------------------------

    def tokens(self) -> tuple[TokenView, ...]:
        """Enrolment tokens, without their secrets."""
        return tuple(self._list(TokenView, "tokens", {}))

    def create_token(self, token: TokenCreate) -> TokenCreated:
        """A new enrolment token; the secret is shown this once."""
        return self._send(TokenCreated, "POST", "tokens", token)

    def revoke_token(self, key: str) -> None:
        """Withdraw an enrolment token."""
        self._http.ask("DELETE", _path("tokens", key))

    # --- where agents reach the server -------------------------------------------------------------------------------

    def addresses(self) -> ServerAddressesView:
        """What agents are told about where the server is."""
        return self._get(ServerAddressesView, "server", "addresses")

    def announce(self, wanted: ServerAddresses) -> ServerAddressesView:
        """Announce these addresses, and no others, besides those of the server's configuration."""
        return self._send(ServerAddressesView, "PUT", "server/addresses", wanted)

    # --- evidence ----------------------------------------------------------------------------------------------------

    def evidence(
        self,
        *,
        order: str = "",
        task: str = "",
        endpoint: str | None = None,
        since: datetime | None = None,
        deleted: bool = False,
    ) -> Iterator[EvidenceView]:
        """What was taken from endpoints, the newest first; with `deleted`, what is left of deleted evidence instead."""
        query = {
            "order": order,
            "task": task,
            "endpoint": endpoint,
            "since": None if since is None else since.isoformat(),
            "deleted": "true" if deleted else None,
        }
        return self._list(EvidenceView, "evidence", query)

    def find_evidence(self, key: str) -> EvidenceView:
        """One piece of evidence."""
        return self._get(EvidenceView, "evidence", key)

    def download(self, evidence: EvidenceView, into: Path, *, progress: Progress = silent) -> None:
        """Bring the content into a new file, resumed after cut connections, and verify its SHA-256."""
        download(self._http, evidence, into, progress=progress, sleep=self._sleep)

    def preview_evidence(
        self, key: str, kind: PreviewKind = PreviewKind.AUTO, *, offset: int = 0, length: int | None = None
    ) -> Preview:
        """What a part of it looks like inside; rendered on the server, by a process that can do nothing else."""
        query = {"as": kind, "offset": offset, "length": length}
        return read(Preview, self._http.ask("GET", _path("evidence", key, "preview"), query=query))

    def verify_evidence(self, key: str) -> EvidenceVerdict:
        """Let the server read all of it, and say whether it is still what the endpoint sent."""
        return self._send(EvidenceVerdict, "POST", _path("evidence", key, "verify"), None)

    def delete_evidence(self, key: str, *, reason: str) -> EvidenceView:
        """Remove its bytes from the server for good; what is left of it."""
        return read(EvidenceView, self._http.ask("DELETE", _path("evidence", key), query={"reason": reason}))

    # --- uploads -----------------------------------------------------------------------------------------------------

    def upload(self, path: Path, *, progress: Progress = silent) -> Upload:
        """Bring a file to the server, unless it is there already, and verify its SHA-256; as an order names it."""
        return upload(self._http, path, progress=progress)

    def uploads(self, *, mine: bool = False) -> Iterator[UploadView]:
        """What was brought to be put on endpoints, the newest first."""
        return self._list(UploadView, "uploads", UploadQuery(mine=mine).sent())

    def delete_upload(self, key: str) -> None:
        """Remove an upload from the server; Conflict while an open order needs it."""
        self._http.ask("DELETE", _path("uploads", key))

    # --- content -----------------------------------------------------------------------------------------------------

    def content(self) -> tuple[ContentView, ...]:
        """Rules and indicators by name: which version is current for whom."""
        return tuple(self._page(ContentView, "content", {})[0])

    def find_content(self, name: str) -> ContentDetail:
        """One content, with its versions and what was published."""
        return self._get(ContentDetail, "content", name)

    def content_version(self, name: str, version: int) -> VersionDetail:
        """One version, and what is in it."""
        return self._get(VersionDetail, "content", name, "versions", str(version))

    def import_content(
        self, name: str, gathered: "Gathered", *, note: str = "", strict: bool = False, progress: Progress = silent
    ) -> Imported:
        """Bring files (`client.content.gather`) to the server as the newest version. It is published to nobody yet."""
        from stanch.client.content import bring

        return bring(self._http, name, gathered, note=note, strict=strict, progress=progress)

    def check_content(self, gathered: "Gathered", *, progress: Progress = silent) -> Lint:
        """Let the server look through files, and keep nothing."""
        from stanch.client.content import look_through

        return look_through(self._http, gathered, progress=progress)

    def publish_content(self, name: str, wanted: Publish) -> ContentDetail:
        """Make a version the current one for the endpoints of some groups."""
        return self._send(ContentDetail, "POST", _path("content", name, "publish"), wanted)

    def unpublish_content(self, name: str, wanted: ForGroups) -> ContentDetail:
        """Let no version be current for some groups, or for any."""
        return self._send(ContentDetail, "POST", _path("content", name, "unpublish"), wanted)

    def roll_back_content(self, name: str, wanted: ForGroups) -> ContentDetail:
        """Let the version be current again that was so before."""
        return self._send(ContentDetail, "POST", _path("content", name, "rollback"), wanted)

    def fetch_content(self, version: VersionView, into: Path, *, progress: Progress = silent) -> Sequence[str]:
        """Bring the files of a version into a new file, or a new folder if they are several; their names."""
        from stanch.client.content_files import fetch

        return fetch(self._http, version, into, progress=progress)

    def content_room(self) -> ContentRoom:
        """How much content there is on the server, and may be."""
        return self._get(ContentRoom, "content-room")

    def prune_content(self, name: str, wanted: Prune) -> Pruned:
        """Remove old versions that nobody needs."""
        return self._send(Pruned, "POST", _path("content", name, "prune"), wanted)

    def delete_content(self, name: str, version: int) -> None:
        """Remove a version for good; Conflict while it is the current one of a group."""
        self._http.ask("DELETE", _path("content", name, "versions", str(version)))

    # --- detections --------------------------------------------------------------------------------------------------

    def detections(self, *, endpoint: str = "", kind: str = "", severity: str = "") -> Iterator[DetectionView]:
        """What somebody should look at, the newest first; of one endpoint, of one kind, from a severity on."""
        return self._list(DetectionView, "detections", {"endpoint": endpoint, "kind": kind, "severity": severity})

    # --- audit -------------------------------------------------------------------------------------------------------

    def audit(self) -> Iterator[AuditEntryView]:
        """Who did what on the server, the newest first."""
        return self._list(AuditEntryView, "audit", {})

    def verify_audit(self) -> AuditVerified:
        """Let the server walk its whole audit; VerificationFailed if an entry was changed or removed."""
        return self._get(AuditVerified, "audit", "verify")

    # --- how ---------------------------------------------------------------------------------------------------------

    def _get(self, kind: type[M], *path: str) -> M:
        return read(kind, self._http.ask("GET", _path(*path)))

    def _send(self, kind: type[M], method: str, path: str, body: BaseModel | Mapping[str, Any] | None) -> M:
        return read(kind, self._http.ask(method, path, body=body))

    def _list(self, kind: type[M], path: str, query: Mapping[str, Any]) -> Iterator[M]:
        after: str | None = None
        while True:
            items, following = self._page(kind, path, {**query, "after": after, "limit": PAGE})
            yield from items
            if following is None or following == after:
                return
            after = following

    def _page(self, kind: type[M], path: str, query: Mapping[str, Any]) -> tuple[list[M], str | None]:
        """Some of a list, and where it goes on; short lists come bare."""
        return read_items(kind, self._http.ask("GET", path, query=query))


def _path(*parts: str) -> str:
    """Parts that may be anything, as one path that stays where it is."""
    if any(part in {"", ".", ".."} for part in parts):
        raise NotFound("There is no such thing", got=parts[-1] or "an empty name")
    return "/".join(quote(part, safe="") for part in parts)
