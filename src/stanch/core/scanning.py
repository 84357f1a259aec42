"""Scans: what is looked for, where, and what is found; and the protocol through which an action orders one.

A part of `core.host`, which says what these protocols are for. What is found comes out of a process that met hostile
bytes: every field is bounded, and nothing in it is believed further than that.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final, Protocol

from pydantic import Field

from stanch.core.content import ContentKind
from stanch.core.files import Bytes
from stanch.core.model import LooseModel
from stanch.core.types import EndpointPath, Exclusion, Sha256, Text

MAX_LINES = 200
"""Lines of why an indicator matched, and matched strings of a rule, that are told."""

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


# --- what is ordered -------------------------------------------------------------------------------------------------


class Area(StrEnum):
    """Where files are looked at."""

    ALL = "all"
    """Every local file system."""
    SYSTEM = "system"
    """Where programs, libraries, configuration and temporary files are: the folders that come with the system, and
    /tmp, /var/tmp, /dev/shm, /home, /root."""
    CRITICAL = "critical"
    """What starts by itself, what runs, with its libraries, kernel modules, boot files."""
    CUSTOM = "custom"
    """Named folders and files only."""


class Engine(StrEnum):
    """What found it."""

    IOC = "ioc"
    """OpenIOC and STIX indicators."""
    YARA = "yara"
    """YARA rules, in files and in memory."""
    HASHES = "hashes"
    """Lists of hashes, of whole files."""
    CLAMAV = "clamav"
    """The daemon of ClamAV, with its own signatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One file of rules or indicators to scan with."""

    kind: ContentKind
    name: str
    """What people call it: a file name, or content and file."""
    size: int
    """Bytes."""
    sha256: Sha256
    """What they must be."""
    open: Callable[[], AbstractAsyncContextManager[Bytes]]
    """Its bytes; whoever reads them compares the hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Which files are looked at."""

    area: Area = Area.ALL
    paths: tuple[EndpointPath, ...] = ()
    """Of CUSTOM."""
    exclude: tuple[Exclusion, ...] = ()
    """Left out, with everything below."""
    max_size: int | None = None
    """Bytes; larger ones are skipped, and told. None for the scanner's own bound."""
    network: bool = False
    """File systems of the network too."""
    one_file_system: bool = False
    """Nothing that is mounted below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a scan may cost."""

    per_object: timedelta = timedelta(seconds=60)
    """Of one file or process with the rules; then it is skipped, and told."""
    findings: int = 10_000
    """When so many are found, it ends, and says that it is not complete."""
    rules: int = 0
    """When so many different rules have found something, it ends; 0 for no limit."""
    gentle: bool = True
    """Low priority, and back off while others wait for processor or disk (PSI)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One scan."""

    materials: tuple[Material, ...] = ()
    files: Files | None = None
    """None to look at no files."""
    documents: Mapping[str, bool] = field(default_factory=dict)
    """Documents that are looked at or not, whatever the indicators name; the others as the indicators name them."""
    memory: bool = False
    """Look into the memory of processes, with YARA rules."""
    pids: tuple[int, ...] = ()
    """Of these processes only; all if empty."""
    names: tuple[str, ...] = ()
    """Of processes of these names only."""
    engines: frozenset[Engine] = frozenset(Engine)
    """Which of them may be used, where there is material for them (ClamAV needs none of ours)."""
    hint: str = ""
    """A regular expression: of files, folders and links only those whose whole path it finds, and the memory only of
    processes whose program it finds. Items of other documents (ProcessItem, PortItem, ...) are judged all the same."""
    fast: bool = False
    """The first place where a rule's string matches is enough."""
    tags: frozenset[str] = frozenset()
    """Only YARA rules with one of these tags; all if empty."""
    cache: bool = True
    """Believe what an earlier scan found of files that did not change since (see worker/scan/remembered.py)."""
    limits: Limits = Limits()


# --- what comes back -------------------------------------------------------------------------------------------------


class SkipReason(StrEnum):
    """Why something was not looked at, or not all of it."""

    TOO_LARGE = "too-large"
    """More bytes than the scan reads of one file."""
    UNREADABLE = "unreadable"
    """No right, a read error."""
    GONE = "gone"
    """It vanished on the way."""
    CHANGED = "changed"
    """It was written to while it was read: what was found counts, what was not found is not sure."""
    NOT_REGULAR = "not-regular"
    """A device, a pipe, a socket: nobody opened it, even if indicators judged it by its name, owner, times."""
    TIMED_OUT = "timed-out"
    """The rules took too long on it."""
    HANGS = "hangs"
    """Its file system does not answer."""
    NETWORK = "network"
    """On a file system of the network, which was not asked for."""
    KERNEL = "kernel"
    """On a file system that the kernel makes up."""
    EXCLUDED = "excluded"
    """The order leaves it out."""
    CRASHED = "crashed"
    """The scanner died over it, and went on without it."""
    FORBIDDEN = "forbidden"
    """The owner of the machine does not allow it."""
    OTHER = "other"
    """None of these; the detail says what."""


NOT_LOOKED_AT: Final = frozenset(
    {
        *(SkipReason.UNREADABLE, SkipReason.TIMED_OUT, SkipReason.HANGS, SkipReason.CRASHED),
        *(SkipReason.CHANGED, SkipReason.FORBIDDEN, SkipReason.OTHER),
    }
)
"""What is left out for these reasons was wanted: after that, nothing found does not mean that nothing is there. The
others are left out as it was asked for, or hold nothing."""


class Object(LooseModel):
    """Something on the endpoint in which something was found."""

    document: Annotated[str, Field(max_length=64)]
    """What it is: FileItem, ProcessItem, PortItem, ..."""
    name: Text
    """What it is called."""
    path: EndpointPath | None = None
    """Of a file, or of the program of a process."""
    pid: Annotated[int, Field(ge=0, le=2**32)] | None = None
    """Of a process."""
    started: Count | None = None
    """Of a process: its start in ticks since boot, which with the pid names it."""
    sha256: Sha256 | None = None
    """Of the content, where it was taken."""
    size: Count | None = None
    """Bytes."""
    user: Annotated[str, Field(max_length=200)] = ""
    """Whose it is."""


class Line(LooseModel):
    """One line of why."""

    depth: Annotated[int, Field(ge=0, le=200)] = 0
    """How far it is indented."""
    text: Text
    """The term, group or string."""
    object: Text = ""
    """The object for which it holds."""
    got: Text = ""
    """What was there."""


class Finding(LooseModel):
    """Something that was found."""

    engine: Annotated[Engine, Field(description="What has found it.")]
    rule: Text
    """The rule, the id of the indicator, the name of the malware."""
    title: Text = ""
    """What the rule or indicator says of itself."""
    material: Text = ""
    """The file of rules or indicators."""
    objects: Annotated[tuple[Object, ...], Field(min_length=1, max_length=20)]
    """Where; several if the indicator takes several together."""
    why: Annotated[tuple[Line, ...], Field(max_length=MAX_LINES)] = ()
    """The branch of the indicator that holds; the strings of the rule that matched, with their offsets."""
    tags: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=50)] = ()
    """Of the rule."""


class Skip(LooseModel):
    """Something that was not looked at, or not all of it."""

    name: Text
    """A path, or a process with its number."""
    reason: Annotated[SkipReason, Field(description="Why.")]
    detail: Text = ""
    """More about why."""


class Problem(LooseModel):
    """Something in a file of rules or indicators that does not count; the rest does."""

    line: Count = 0
    """Where, from 1; 0 if that is not known."""
    rule: Text = ""
    """Which rule or indicator."""
    text: Text
    """What is wrong with it."""


class Unknown(LooseModel):
    """A term that cannot be known here: it never matched."""

    term: Text
    """Its name."""
    why: Text
    """Why not."""
    times: Count = 1
    """How often the indicators ask for it."""


class Loaded(LooseModel):
    """What became of one file of rules or indicators."""

    name: Text
    """Its name."""
    kind: Annotated[ContentKind, Field(description="What is in it.")]
    count: Count
    """Rules, indicators or hashes that count."""
    problems: Annotated[tuple[Problem, ...], Field(max_length=200)] = ()
    """What in it does not count."""
    unknown: Annotated[tuple[Unknown, ...], Field(max_length=500)] = ()
    """Its terms that cannot be known here."""
    duplicates: Annotated[tuple[Text, ...], Field(max_length=200)] = ()
    """Indicators that an earlier file has already, and that are left out here."""


class Advance(LooseModel):
    """How far it is."""

    files: Count = 0
    """Looked at until now."""
    bytes: Count = 0
    """Read until now."""
    total: Count | None = None
    """Files that there are, once that is known."""
    processes: Count = 0
    """Whose memory was looked into until now."""
    paused: bool = False
    """It waits: on order, or since others need the machine."""
    why: Text = ""
    """Why it waits."""
    at: Text = ""
    """What is being looked at."""


class Tally(LooseModel):
    """The numbers of the whole scan; the last that comes."""

    files: Count = 0
    """Looked at, those that were remembered included."""
    remembered: Count = 0
    """Of them, known from an earlier scan and not changed since."""
    bytes: Count = 0
    """Read."""
    processes: Count = 0
    """Whose memory was looked into."""
    items: Annotated[Mapping[Annotated[str, Field(max_length=64)], Count], Field(max_length=50)] = {}
    """Document to how many items were judged."""
    skipped: Annotated[Mapping[SkipReason, Count], Field(max_length=len(SkipReason))] = {}
    """Reason to how many."""
    findings: Count = 0
    """How many there are."""
    complete: bool = True
    """False if it ended before it had looked everywhere, or could not read all of a document (ProcessItem, ...) that an
    indicator asks for."""
    why_incomplete: Text = ""
    """Why; empty if it is complete."""
    seconds: Annotated[float, Field(ge=0)] = 0
    """From its beginning to its end, of time that passed."""
    paused_seconds: Annotated[float, Field(ge=0)] = 0
    """Of them, waited."""
    confined: Annotated[Mapping[Annotated[str, Field(max_length=64)], Text], Field(max_length=30)] = {}
    """How the scanner was confined: measure to `yes`, or why not."""
    limited: Annotated[Mapping[Annotated[str, Field(max_length=64)], Text], Field(max_length=30)] = {}
    """How its priority was lowered: measure to `yes`, or why not."""
    engines: Annotated[Mapping[Engine, Text], Field(max_length=len(Engine))] = {}
    """Engine to its version, or to why it was not used."""

    @property
    def looked_everywhere(self) -> bool:
        """Does "nothing found" mean that nothing is there? The one rule for exit codes and results."""
        return self.complete and NOT_LOOKED_AT.isdisjoint(self.skipped)


Event = Loaded | Finding | Skip | Advance | Tally


class Scanner(Protocol):
    """Looks for things on this endpoint, in a process of its own."""

    def scan(self, scan: Scan) -> AsyncGenerator[Sequence[Event], None]:
        """Do it; events in batches, a Tally as the last. Leaving it early ends it at once.

        After a crash of the agent the same task's scan goes on where it was, as far as it can know what did not change.
        Raises Invalid if none of the material counts, ActionFailed, Unsupported.
        """
        ...

    async def engines(self) -> Mapping[Engine, str]:
        """The engines that this endpoint has besides our own, with their versions: ClamAV, where its daemon answers."""
        ...

    async def pause(self, task: str, *, paused: bool) -> bool:
        """Let the scan of a task wait or go on; was it otherwise before? TargetGone if it has no scan that runs."""
        ...

    def running(self) -> Collection[str]:
        """Tasks whose scans run, paused ones too."""
        ...
