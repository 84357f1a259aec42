"""What the agent and the scanner's worker say to each other: a line of JSON for each message, over two pipes.

To the worker: `job`, then `material` (each followed by its bytes); it compiles them and answers `loaded`
for each and one `wants`; then `items`, `targets`, `opened`, `processes` in any order and number, and `all` at last; at
any time `pause` and `resume`. It ends by being killed, or by itself after `end`. From the worker: `loaded`, `wants`,
`events`, `end`; and, only if the job has no `at` descriptor, `at`. Pressure (PSI) is the agent's to watch: it sends
`pause` and `resume`. A worker that is not to see the network, the tree and so on confines itself once the job is read.

The `at` descriptor is shared memory (a memfd of AT_SLOT * AT_SLOTS bytes, made by the agent): each thread of the worker
writes in a slot of its own what it is about to look at, and empties it afterwards, which costs nothing. After the death
of the worker the agent reads it with `looked_at`: one of these has killed it, and goes to `skip` of the next job.

Both pipes are its standard input and output. The worker's side needs the standard library only (it starts for each
scan), so these are names and shapes as data; the agent's side validates what comes back with the models of
`core.scanning`.
"""

from typing import Any, Final, Literal, NotRequired, TypedDict

MAX_LINE: Final = 4 * 2**20
"""Bytes of one message, its line end included."""
MAX_ANSWER: Final = 512 * 2**10
"""Bytes of one message of the worker, its line end included: the agent reads it between other things. The worker aims
at 64 KiB, and cuts a finding that would not fit. Texts in it hold no lone surrogates (backslashreplace), names in `at`
apart, which may."""
MAX_BATCH: Final = 500
"""Events, items, paths or processes in one message."""
AT_SLOT: Final = 8192
"""Bytes of a slot: its length (two bytes, little endian), then the name."""
AT_SLOTS: Final = 32
"""Threads that have one; a thread that hangs keeps its own."""


def looked_at(shared: bytes) -> list[str]:
    """What the threads of a worker were at, from its shared memory; surrogates where it is no UTF-8."""
    slots = (shared[n : n + AT_SLOT] for n in range(0, len(shared), AT_SLOT))
    names = (slot[2 : 2 + int.from_bytes(slot[:2], "little")] for slot in slots)
    return [name.decode("utf-8", "surrogateescape") for name in names if name]


class Job(TypedDict):
    """The first message."""

    type: Literal["job"]
    engines: list[str]
    """Those that may be used (`core.scanning.Engine`)."""
    documents: dict[str, bool]
    """Documents that are looked at or not, whatever the indicators name."""
    hint: str
    """A regular expression on whole paths; empty for none."""
    fast: bool
    """The first place where a rule's string matches is enough."""
    tags: list[str]
    """Only YARA rules with one of these; all if empty."""
    per_object: float
    """Seconds of one file or process with the rules."""
    findings: int
    """It ends when so many are found."""
    rules: int
    """It ends when so many different rules have found something; 0 for no limit."""
    gentle: bool
    """The agent lowers its priority, and backs off for others by `pause`; the worker has nothing to do for it."""
    max_size: int | None
    """Bytes; larger files are skipped. None for the worker's own bound."""
    exclude: list[str]
    """Globs."""
    network: bool
    one_file_system: bool
    memory: bool
    """Will there be processes? Then some confinement has to be left out."""
    threads: int
    """That look at files, 1 or more."""
    remembered: int | None
    """Descriptor of what earlier scans know, to be read; None for none."""
    learned: int | None
    """Descriptor to which what this scan learns is appended, read first: it may be there from before a crash. Opened
    for reading and appending."""
    at: NotRequired[int | None]
    """Descriptor of the shared memory for what the threads are at; without it, `at` messages come."""
    clamd: int | None
    """Descriptor of a connected socket to clamd; None for none."""
    skip: list[str]
    """Names (as in `at`) over which an earlier worker of this scan died. They are left out without a word: the agent
    tells them."""
    materials: int
    """How many follow."""
    kinds: NotRequired[list[str]]
    """Kinds of the materials that follow: what reads no other need not be loaded. Without it, anything may come."""
    forbidden: NotRequired[list[str]]
    """Globs: what the owner of the machine forbids. Files below are in `exclude`, too; the memory of what runs from
    there is not looked into, whatever a process of the agent's list runs by then."""
    patience: NotRequired[float]
    """Seconds without an answer after which a file system counts as hanging; 30 if it is missing."""


class MaterialHeader(TypedDict):
    """Followed by `size` bytes."""

    type: Literal["material"]
    kind: str
    """A `core.content.ContentKind`."""
    name: str
    size: int
    """Bytes."""


class WireItem(TypedDict):
    """An item as `core.ioc.items` has it."""

    document: str
    name: str
    values: dict[str, list[str | int | float | bool]]
    about: NotRequired[dict[str, str | int | float | bool]]


class Items(TypedDict):
    """Items of documents that the worker wanted, FileItem apart: that it collects itself."""

    type: Literal["items"]
    items: list[WireItem]


class Targets(TypedDict):
    """Files and folders to look at. Bytes that are no UTF-8 come as surrogates."""

    type: Literal["targets"]
    paths: list[str]
    below: bool
    """Everything below the folders too; without it, only the named files."""


class OpenedFile(TypedDict):
    """A file that the agent holds open for the worker, which has inherited the descriptor: read it by `pread`."""

    fd: int
    name: str
    """What it is called in findings, skips and `at`."""
    path: str
    """Empty for none."""
    pid: int
    """Of the process whose program it is; 0 for none."""
    started: int


class Opened(TypedDict):
    """Programs that run and were deleted, the first sectors of disks: what no path leads to. Like `targets`."""

    type: Literal["opened"]
    files: list[OpenedFile]


class WireProcess(TypedDict):
    """A process whose memory is to be looked into; its start in ticks since boot, as its `stat` has it."""

    pid: int
    started: int
    name: str
    path: str


class Processes(TypedDict):
    """Some of them."""

    type: Literal["processes"]
    processes: list[WireProcess]


class Command(TypedDict):
    """`all`: nothing more comes. `pause`, `resume`: wait, and go on."""

    type: Literal["all", "pause", "resume"]


class Wants(TypedDict):
    """What the worker needs to know; sent once everything is loaded."""

    type: Literal["wants"]
    documents: dict[str, list[str]]
    """Document to paths, FileItem too if files are to be judged."""
    files: bool
    """Are files to be looked at at all?"""


class Loaded(TypedDict):
    """What became of one file of rules or indicators: `loaded` is a `core.scanning.Loaded`."""

    type: Literal["loaded"]
    loaded: dict[str, Any]


class Events(TypedDict):
    """A batch: each event is `[kind, fields]`, kind one of finding, skip, advance; fields as in `core.scanning`."""

    type: Literal["events"]
    events: list[list[Any]]


class At(TypedDict):
    """What each thread is about to look at: if the worker dies now, one of these has killed it.

    Only without the `at` descriptor of the job.
    """

    type: Literal["at"]
    names: list[str]


class End(TypedDict):
    """The last message: `tally` is a `core.scanning.Tally`; or why there was none."""

    type: Literal["end"]
    tally: dict[str, Any] | None
    error: str
