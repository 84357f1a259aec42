"""The frames of the link between an agent and the server: one JSON object each, told apart by `type`.

Unknown fields are ignored and an unknown type is answered, not obeyed, so that an old agent and a new server can talk.
Reports and notices carry a sequence number of the agent's spool; the server acknowledges it after its commit, and the
agent keeps the report until then.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from stanch.core.errors import ErrorBody, Invalid, TooLarge
from stanch.core.host import Effect
from stanch.core.isolation import IsolationStatus
from stanch.core.model import LooseModel
from stanch.core.task import State
from stanch.core.types import Id, Name, Text

PROTOCOL = 1
"""The newest version of this protocol that we speak."""

MAX_FRAME_BYTES = 4 * 1_048_576
PART_BYTES = 8 * 1_048_576
MAX_PARTS = 1_048_576
MAX_RUNS = 20_000
"""Runs of parts without data in one request."""
MAX_EFFECTS = 300
"""Lasting effects of one endpoint."""


Sequence = Annotated[int, Field(ge=1, le=2**63 - 1)]
"""Number in the agent's spool, from 1."""

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Interface(LooseModel):
    """A network device of the endpoint."""

    name: Name
    """Device name."""
    mac: Text = ""
    """Hardware address."""
    addresses: Annotated[tuple[Text, ...], Field(max_length=256)] = ()
    """IPv4 and IPv6 addresses."""


class Inventory(LooseModel):
    """What the endpoint says about itself."""

    hostname: Name
    """Host name."""
    machine_id: Text = ""
    """/etc/machine-id, hashed with the endpoint's identity."""
    os: Text = ""
    """Distribution and version."""
    kernel: Text = ""
    """Kernel release."""
    architecture: Text = ""
    """Machine type."""
    interfaces: Annotated[tuple[Interface, ...], Field(max_length=256)] = ()
    """Network devices."""
    users: Annotated[tuple[Text, ...], Field(max_length=256)] = ()
    """Accounts logged in."""
    boot_id: Text = ""
    """Identifies this boot."""


class Hello(LooseModel):
    """Agent: who and what I am. The first frame on a link."""

    type: Literal["hello"] = "hello"
    protocol: Annotated[int, Field(ge=1)] = PROTOCOL
    """The newest protocol version that the agent speaks."""
    nonce: Id
    """Comes back in the signed addresses envelope."""
    agent_version: Name
    """Version of the agent."""
    inventory: Inventory
    """About the machine."""
    actions: Annotated[Mapping[Name, int], Field(max_length=1000)]
    """Action name to version."""
    capabilities: Annotated[Mapping[Name, Text], Field(max_length=200)] = {}
    """Ability to `yes`, or the reason why not."""
    policy_digest: Text = ""
    """SHA-256 of the local policy."""
    effects: Annotated[tuple[Effect, ...], Field(max_length=MAX_EFFECTS)] = ()
    """Lasting effects in force."""
    isolation: IsolationStatus | None = None
    """Is it cut off?"""
    open_tasks: Annotated[tuple[Id, ...], Field(max_length=10_000)] = ()
    """Tasks that the agent has and has not answered finally."""


class Heartbeat(LooseModel):
    """Agent: still here."""

    type: Literal["heartbeat"] = "heartbeat"
    effects: Annotated[tuple[Effect, ...], Field(max_length=MAX_EFFECTS)] = ()
    """Lasting effects in force."""
    isolation: IsolationStatus | None = None
    """Is it cut off?"""
    inventory: Inventory | None = None
    """When it has changed."""


class Report(LooseModel):
    """Agent: what became of a task. Kept until acknowledged."""

    type: Literal["report"] = "report"
    seq: Sequence
    """Number in the agent's spool."""
    task: Id
    """Which task."""
    state: State
    """running, or a final state."""
    result: Mapping[str, Any] | None = None
    """The action's result, or the plan of a dry run."""
    error: ErrorBody | None = None
    """Why not."""
    at: Annotated[float, Field(ge=0, le=2**37)]
    """Agent's time, seconds since 1970."""


class Notice(LooseModel):
    """Agent: something happened that no task asked for. Kept until acknowledged."""

    type: Literal["notice"] = "notice"
    seq: Sequence
    """Number in the agent's spool."""
    kind: Name
    """What: effect-lifted, clock-changed, policy-changed, envelope-refused, ..."""
    detail: Mapping[str, Any] = {}
    """More about it."""
    at: Annotated[float, Field(ge=0, le=2**37)]
    """Agent's time, seconds since 1970."""


class ProgressFrame(LooseModel):
    """Agent: how far a task is. Lossy."""

    type: Literal["progress"] = "progress"
    task: Id
    """Which task."""
    done: Count
    """Of total."""
    total: Count | None = None
    """Null when nobody knows."""
    unit: Annotated[str, Field(max_length=40)] = ""
    """bytes, files, ..."""
    text: Annotated[str, Field(max_length=200)] = ""
    """A line for people."""
    paused: Annotated[str, Field(max_length=200)] = ""
    """Why it waits, if it does."""


class Ask(LooseModel):
    """Agent: are you there? Commit-confirm sends it on a new connection."""

    type: Literal["ask"] = "ask"
    nonce: Id
    """Comes back in the answer."""


class Welcome(LooseModel):
    """Server: the answer to hello."""

    type: Literal["welcome"] = "welcome"
    protocol: Annotated[int, Field(ge=1)]
    """The version that both will speak."""
    heartbeat_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """How often the agent should say that it is here."""
    server_version: Name = "0"
    """Version of the server."""


class Deliver(LooseModel):
    """Server: a signed envelope."""

    type: Literal["deliver"] = "deliver"
    envelope: Annotated[str, Field(max_length=1_048_576)]
    """Compact JWS."""


class Ack(LooseModel):
    """Server: everything of the spool up to this number is committed."""

    type: Literal["ack"] = "ack"
    seqs: Annotated[tuple[Sequence, ...], Field(max_length=10_000)]
    """Numbers that are committed."""


class Answer(LooseModel):
    """Server: here I am."""

    type: Literal["answer"] = "answer"
    nonce: Id
    """From the question."""


class Complaint(LooseModel):
    """Either: I could not use your frame."""

    type: Literal["complaint"] = "complaint"
    error: ErrorBody
    """Why."""


FromAgent = Annotated[
    Hello | Heartbeat | Report | Notice | ProgressFrame | Ask | Complaint, Field(discriminator="type")
]
FromServer = Annotated[Welcome | Deliver | Ack | Answer | Complaint, Field(discriminator="type")]

_from_agent: TypeAdapter[FromAgent] = TypeAdapter(FromAgent)
_from_server: TypeAdapter[FromServer] = TypeAdapter(FromServer)


def read_agent_frame(data: str | bytes) -> FromAgent:
    """A frame as an agent sends it; TooLarge or Invalid otherwise."""
    frame: FromAgent = _read(_from_agent, data)
    return frame


def read_server_frame(data: str | bytes) -> FromServer:
    """A frame as a server sends it; TooLarge or Invalid otherwise."""
    frame: FromServer = _read(_from_server, data)
    return frame


def _read(adapter: TypeAdapter[Any], data: str | bytes) -> Any:
    if len(data) > MAX_FRAME_BYTES:
        raise TooLarge("The frame is too large", got=len(data), expected=f"at most {MAX_FRAME_BYTES} bytes")
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "frame"
        raise Invalid("The frame is malformed", got=where, expected=first["msg"]) from None


# --- enrolment and evidence: the bodies of the gateway's plain HTTPS requests ----------------------------------------


class EnrolRequest(LooseModel):
    """Agent: let me in."""

    token: Annotated[str, Field(max_length=200)]
    """The enrolment token."""
    csr: Annotated[str, Field(max_length=10_000)]
    """Certificate signing request, PEM."""
    inventory: Inventory
    """About the machine."""


class Enrolled(LooseModel):
    """Server: you are in."""

    endpoint: Id
    """Your identity."""
    certificate: Annotated[str, Field(max_length=20_000)]
    """Your certificate, PEM."""
    ca: Annotated[str, Field(max_length=20_000)]
    """The server's CA, PEM."""
    signing_keys: Annotated[tuple[Mapping[str, str], ...], Field(min_length=1, max_length=8)]
    """Public keys (JWK) that sign envelopes."""
    urls: Annotated[tuple[Text, ...], Field(max_length=32)]
    """Where the gateway is."""


class RenewRequest(LooseModel):
    """Agent: my certificate grows old."""

    csr: Annotated[str, Field(max_length=10_000)]
    """Certificate signing request of a new key, PEM."""


class Renewed(LooseModel):
    """Server: a new certificate. The old one is accepted until the new one was used once."""

    certificate: Annotated[str, Field(max_length=20_000)]
    """PEM."""


class PartInfo(LooseModel):
    """One part of evidence."""

    n: Annotated[int, Field(ge=0, lt=MAX_PARTS)]
    """Number from 0; part n starts at n * PART_BYTES."""
    size: Annotated[int, Field(ge=0, le=PART_BYTES)]
    """Bytes; PART_BYTES for all but the last."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the part, before it is encrypted: that is what makes it the same part."""


class Encoding(StrEnum):
    """How the bytes of a part travel, and how they are kept."""

    PLAIN = "plain"
    """As they are; agents before there was an evidence key send no other, and the server seals what they send."""
    AGE = "age"
    """Encrypted to the server's evidence key."""
    ZSTD_AGE = "zstd+age"
    """Compressed, one zstd frame, and then encrypted."""


_AGE_CHUNK, _AGE_TAG, _AGE_HEADER = 65_536, 16, 1024


def sealed_bound(size: int) -> int:
    """The most bytes that a part of so many plain ones may take when it is encrypted."""
    return size + _AGE_TAG * (size // _AGE_CHUNK + 1) + _AGE_HEADER


class PartRun(LooseModel):
    """Parts one after the other."""

    first: Annotated[int, Field(ge=0, lt=MAX_PARTS)]
    """Number of the first one."""
    count: Annotated[int, Field(ge=1, le=MAX_PARTS)]
    """How many."""

    @property
    def end(self) -> int:
        """Number of the part behind the last one."""
        return self.first + self.count


class EvidenceStart(LooseModel):
    """Agent: I am going to send this. Repeating it is harmless and tells what is there already."""

    task: Id
    """The task that takes it; evidence of a task is written by its own endpoint only."""
    name: Annotated[str, Field(max_length=20_000)]
    """What it is called on the endpoint."""
    size: Annotated[int, Field(ge=0, le=PART_BYTES * MAX_PARTS)]
    """Bytes in all."""
    data: Annotated[int, Field(ge=0, le=PART_BYTES * MAX_PARTS)] | None = None
    """Bytes of the parts that hold any data, so that a sparse file is not refused for its holes; null if unknown."""


class EvidenceProgress(LooseModel):
    """Server: what I have."""

    evidence: Id
    """Its identifier."""
    parts: Annotated[tuple[PartInfo, ...], Field(max_length=MAX_PARTS)]
    """Committed parts."""
    complete: bool = False
    """Whether the whole was committed."""
    encodings: Annotated[tuple[Name, ...], Field(max_length=20)] = ()
    """How a part may be sent beside plain; an older server says nothing, and must be sent plain parts."""
    holes: bool = False
    """May parts without data be told instead of sent?"""


class EvidenceHoles(LooseModel):
    """Agent: these parts are nothing but zeros, and I do not send them. Repeating it is harmless."""

    runs: Annotated[tuple[PartRun, ...], Field(max_length=MAX_RUNS)]
    """In order, and apart from each other."""


class EvidenceFinish(LooseModel):
    """Agent: that was all."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the whole."""
    size: Annotated[int, Field(ge=0)]
    """Bytes in all."""


# --- where the gateway answers ---------------------------------------------------------------------------------------

LINK_PATH = "/v1/link"
"""WebSocket, mutual TLS."""
ENROL_PATH = "/v1/enroll"
"""POST EnrolRequest -> Enrolled; needs no client certificate, for it is how one gets it."""
RENEW_PATH = "/v1/renew"
"""POST RenewRequest -> Renewed; with the certificate that is to be replaced."""
CA_PATH = "/v1/ca"
"""GET the CA certificate in PEM; without a client certificate, to be checked against the pin."""
EVIDENCE_PATH = "/v1/evidence"
"""POST EvidenceStart -> EvidenceProgress; PUT {id}/parts/{n}; POST {id}/holes EvidenceHoles -> EvidenceHoles;
POST {id}/finish EvidenceFinish -> EvidenceRef."""
PART_HASH_HEADER = "X-Part-Sha256"
"""SHA-256 of the body of a PUT as it is sent, hexadecimal."""
PLAIN_HASH_HEADER = "X-Part-Plain-Sha256"
"""SHA-256 of the part before it was compressed and encrypted; absent if it was not."""
ENCODING_HEADER = "X-Part-Encoding"
"""An `Encoding`; absent for plain."""
UPLOAD_PATH = "/v1/uploads"
"""GET {id}?task=TASK: the bytes of an upload, or a range of them, for a task that is under way and names it."""
