"""The bodies of the REST API about content: rules and indicators that endpoints scan with.

A part of `core.rest`.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from stanch.core.content import MAX_PACK_FILES, ContentKind, ContentName
from stanch.core.model import LooseModel, Model
from stanch.core.types import Instant, Name, Sha256, Text

MAX_PROBLEMS = 1000
"""Problems of one version that are told."""

MAX_UNKNOWN = 500
MAX_GROUPS_AT_ONCE = 100
EVERY_ENDPOINT = "all"
"""The group of every endpoint."""

VersionNumber = Annotated[int, Field(ge=1, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
FileText = Annotated[str, Field(max_length=255)]
GroupNames = Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_GROUPS_AT_ONCE)]


# --- what is in it ---------------------------------------------------------------------------------------------------


class ContentProblem(LooseModel):
    """Something in a version that does not count; the rest does."""

    file: FileText = ""
    """In which file."""
    line: Count = 0
    """Where in it, from 1; 0 if that is not known."""
    rule: Text = ""
    """Which rule or indicator."""
    text: Text
    """What is wrong with it."""


class UnknownHere(LooseModel):
    """A term of indicators that cannot be known on Linux: it never matches."""

    term: Text
    """The term."""
    times: Count = 1
    """How often it is asked."""


class ContentFile(LooseModel):
    """One file of a version."""

    name: FileText
    """As it was imported."""
    size: Count
    """Bytes."""
    sha256: Sha256
    """Of them."""
    rules: Count = 0
    """Rules, indicators or hashes that count."""
    problems: Count = 0
    """What does not."""


class Lint(LooseModel):
    """What the server has found in a version, when it was imported."""

    files: Annotated[tuple[ContentFile, ...], Field(max_length=MAX_PACK_FILES)] = ()
    """All of its files."""
    problems: Annotated[tuple[ContentProblem, ...], Field(max_length=MAX_PROBLEMS)] = ()
    """The first of what does not count."""
    unknown: Annotated[tuple[UnknownHere, ...], Field(max_length=MAX_UNKNOWN)] = ()
    """Terms that cannot be known on Linux."""
    complete: bool = True
    """False if there was no time to look at all of it: what was not looked at counts for nothing here."""
    why_incomplete: Text = ""
    """Why there was none."""
    confined: Annotated[Mapping[Annotated[str, Field(max_length=64)], Text], Field(max_length=30)] = {}
    """How the process was confined that looked: measure to `yes`, or why not."""


# --- views -----------------------------------------------------------------------------------------------------------


class Publication(LooseModel):
    """A version that is the current one for a group."""

    group: Name
    """For its endpoints; `all` is every endpoint."""
    version: VersionNumber
    """Which version."""
    at: Instant
    """Since when."""
    by: Name
    """Who published it, or went back to it."""


class Published(LooseModel):
    """One step of what was published."""

    group: Name
    """For whom."""
    version: VersionNumber | None = None
    """Which version; null if it was taken back."""
    at: Instant
    """When."""
    by: Name
    """Who."""
    undone: Instant | None = None
    """When a rollback undid it."""
    undone_by: Name | None = None
    """Who rolled it back."""


class VersionView(LooseModel):
    """A version of content."""

    content: ContentName
    """Of which content."""
    kind: ContentKind
    """What is in it."""
    version: VersionNumber
    """Its number."""
    sha256: Sha256
    """Of its pack."""
    size: Count
    """Bytes of its pack."""
    files: Count
    """How many files it has."""
    rules: Count
    """How many rules, indicators or hashes count."""
    problems: Count
    """How many things in it do not."""
    note: Text = ""
    """What whoever imported it wrote about it."""
    created: Instant
    """When it was imported."""
    by: Name
    """Who imported it."""
    groups: tuple[Name, ...] = ()
    """For which groups it is the current one."""


class VersionDetail(VersionView):
    """A version, and what is in it."""

    lint: Lint
    """Its files, and what is wrong with them."""


class Imported(LooseModel):
    """What became of an import."""

    new: bool
    """False if there was a version of the very same bytes already."""
    version: VersionDetail
    """The version."""


class ContentView(LooseModel):
    """Content by name."""

    name: ContentName
    """What it is called."""
    kind: ContentKind
    """What is in it."""
    versions: Count
    """How many versions are kept."""
    newest: VersionNumber | None = None
    """The newest of them."""
    published: tuple[Publication, ...] = ()
    """The version that is current, for each group for which there is one."""
    endpoints: Count = 0
    """How many endpoints should have it, by their groups."""
    refused: Count = 0
    """How many of them have told that the version which they should have does not load, and not that it does since."""
    refused_before: Count = 0
    """How many of them have told so, and have loaded it since; `stanch detections` has all that was told."""


class ContentDetail(ContentView):
    """Content, with its versions and what was published."""

    every: tuple[VersionView, ...]
    """Its versions, the newest first."""
    history: tuple[Published, ...] = ()
    """What was published and taken back, the newest first; the last 1000 steps."""


class KeptVersion(LooseModel):
    """A version that is kept, and why."""

    version: VersionNumber
    """Its number."""
    why: Text
    """What it is kept for."""


class Pruned(LooseModel):
    """What pruning removes of one content, and what it leaves."""

    content: ContentName
    """Of which content."""
    dry_run: bool = False
    """Was it only looked at? Then nothing is gone."""
    removed: tuple[VersionView, ...] = ()
    """Versions that are gone, the newest first."""
    kept: tuple[KeptVersion, ...] = ()
    """Versions that stay, the newest first."""
    freed: Count = 0
    """Bytes on the server's disk; a pack that other content has too stays there."""


class ContentRoom(LooseModel):
    """How much content there is on the server, and may be."""

    names: Count
    """Names that have versions."""
    most_names: Count
    """The most there may be."""
    versions: Count
    """Versions of all names together."""
    most_versions: Count
    """The most that one name may have."""
    bytes: Count
    """All packs together; one that several versions share counts once."""
    most_bytes: Count
    """The most there may be."""


# --- requests --------------------------------------------------------------------------------------------------------


class Publish(Model):
    """Make a version the current one."""

    version: VersionNumber
    """Which version."""
    groups: GroupNames = (EVERY_ENDPOINT,)
    """For the endpoints of these groups; for every endpoint if none is named."""


class ForGroups(Model):
    """Take back what is current, or go back to what was current before."""

    groups: GroupNames | None = None
    """For the endpoints of these groups; for all groups for which there is something if none is named."""


class Prune(Model):
    """Remove versions that nobody needs."""

    keep: Annotated[int, Field(ge=1, le=500)] = 10
    """Keep so many of the newest versions; besides them always those that are current for a group, those that were so
    before (a rollback goes back to them), and those that an open order refers to."""
    dry_run: bool = False
    """Only say what would be removed."""
