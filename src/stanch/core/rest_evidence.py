"""The bodies of the REST API about evidence: what was taken, what it looks like inside, and whether it is still whole.

A part of `core.rest`. What a preview shows comes from hostile bytes and from the process that opened them: every field
is bounded, and no text in it holds a control character besides line breaks and tabs where that is said.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from stanch.core.model import LooseModel
from stanch.core.types import Id, Instant

KIB, MIB = 2**10, 2**20
MAX_SECTIONS = 200
MAX_SEGMENTS = 100
MAX_LIBRARIES = 200
MAX_STRINGS = 5000
LONGEST_STRING = 200
MAX_PROBLEMS = 20

_Int = Annotated[int, Field(ge=0, le=2**64 - 1)]
_Word = Annotated[str, Field(max_length=300)]
_Hex = Annotated[str, Field(max_length=2 * 64 * KIB, pattern=r"^[0-9a-f]*$")]


class EvidenceView(LooseModel):
    """Evidence, as the API shows it."""

    id: Id
    """Identifier."""
    task: Id
    """The task that took it."""
    endpoint: Id
    """Where from."""
    name: str
    """What it was called there."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of the whole; null until complete."""
    complete: bool
    """All parts are here and verified."""
    received: int
    """Bytes here so far."""
    created: Instant
    """When it was begun."""
    verified: Instant | None = None
    """When the server last read all of it and found it whole."""
    damage: str | None = None
    """What was wrong with it when the server last read all of it."""
    deleted: Instant | None = None
    """When its bytes were deleted; null while they are here."""
    deleted_by: str | None = None
    """Who deleted them."""
    deleted_why: str | None = None
    """Why."""


class EvidenceVerdict(LooseModel):
    """Is it still what the endpoint sent?"""

    evidence: Id
    """Which."""
    intact: bool
    """Every byte is as it came."""
    size: int
    """Bytes that it should have."""
    expected: str
    """SHA-256 that it should have."""
    found: str | None
    """SHA-256 of what is there; null if not all of it could be read."""
    problem: str | None = None
    """What is wrong with it."""
    at: Instant
    """When it was read."""


# --- previews --------------------------------------------------------------------------------------------------------


class PreviewKind(StrEnum):
    """How evidence is shown."""

    TEXT = "text"
    HEX = "hex"
    STRINGS = "strings"
    ELF = "elf"
    AUTO = "auto"
    """By its first bytes."""


MOST: Mapping[PreviewKind, int] = {
    PreviewKind.TEXT: 64 * KIB,
    PreviewKind.HEX: 64 * KIB,
    PreviewKind.STRINGS: 4 * MIB,
    PreviewKind.ELF: 16 * MIB,
}
"""Bytes that are looked at for a preview, at most."""

UNSAID: Mapping[PreviewKind, int] = {**MOST, PreviewKind.HEX: 4 * KIB}
"""Bytes that are looked at if nobody says how many."""


class TextPreview(LooseModel):
    """Some of it, read as text."""

    encoding: _Word
    """utf-8, utf-16-le, utf-16-be or latin-1."""
    guessed: bool
    """It is in none of the others, so each byte was taken for a character: perhaps it is no text at all."""
    text: Annotated[str, Field(max_length=12 * 64 * KIB)]
    r"""Lines end with \n; other control characters, and marks that turn the direction of writing, are escapes."""


class HexPreview(LooseModel):
    """Some of it, byte by byte."""

    data: _Hex
    """The bytes, hexadecimal."""
    ascii: Annotated[str, Field(max_length=64 * KIB)]
    """One character for each byte; a dot for what is not printable ASCII."""


class FoundString(LooseModel):
    """Some printable characters in a row."""

    offset: _Int
    """Where, in bytes from the start of the evidence."""
    encoding: _Word
    """ascii or utf-16-le."""
    text: Annotated[str, Field(max_length=LONGEST_STRING)]
    """Its characters, all printable ASCII."""
    cut: bool = False
    """It goes on."""


class StringsPreview(LooseModel):
    """What can be read in it."""

    strings: Annotated[tuple[FoundString, ...], Field(max_length=MAX_STRINGS)]
    """In their order, each of at least 4 characters."""
    more: bool
    """There are more than these in the bytes that were looked at."""


class ElfSection(LooseModel):
    """A section of a program."""

    name: _Word
    """Its name."""
    type: _Word
    """Such as SHT_PROGBITS."""
    flags: _Word
    """W, A, X, ..."""
    address: _Int
    """Where it is in memory."""
    offset: _Int
    """Where it is in the file."""
    size: _Int
    """Bytes."""
    entropy: Annotated[float, Field(ge=0, le=8)] | None
    """Bits for each of its first bytes, at most a MiB of them; near 8 if packed or encrypted; null if not measured."""


class ElfSegment(LooseModel):
    """A segment of a program."""

    type: _Word
    """Such as PT_LOAD."""
    flags: _Word
    """R, W, X."""
    address: _Int
    """Where it is in memory."""
    offset: _Int
    """Where it is in the file."""
    file_size: _Int
    """Bytes in the file."""
    memory_size: _Int
    """Bytes in memory."""


class ElfPreview(LooseModel):
    """The structure of a program. It may lie."""

    bits: _Word = ""
    """32 or 64, and the order of bytes."""
    machine: _Word = ""
    """Such as EM_X86_64."""
    type: _Word = ""
    """Such as ET_DYN."""
    entry: _Int = 0
    """Where it begins to run."""
    interpreter: _Word | None = None
    """The loader that it asks for."""
    build_id: _Word | None = None
    """What its linker called it."""
    libraries: Annotated[tuple[_Word, ...], Field(max_length=MAX_LIBRARIES)] = ()
    """Libraries that it needs."""
    sections: Annotated[tuple[ElfSection, ...], Field(max_length=MAX_SECTIONS)] = ()
    """Its sections."""
    section_count: _Int = 0
    """How many it says it has."""
    segments: Annotated[tuple[ElfSegment, ...], Field(max_length=MAX_SEGMENTS)] = ()
    """Its segments."""
    segment_count: _Int = 0
    """How many it says it has."""
    problems: Annotated[tuple[_Word, ...], Field(max_length=MAX_PROBLEMS)] = ()
    """What could not be read, and why: the rest is shown all the same."""


class Preview(LooseModel):
    """What evidence looks like inside."""

    evidence: Id
    """Which."""
    kind: PreviewKind
    """How it is shown; never `auto`."""
    size: int
    """Bytes that the evidence has."""
    offset: int
    """Where the bytes that were looked at begin."""
    length: int
    """How many they are."""
    text: TextPreview | None = None
    """For `text`."""
    hex: HexPreview | None = None
    """For `hex`."""
    strings: StringsPreview | None = None
    """For `strings`."""
    elf: ElfPreview | None = None
    """For `elf`."""
    confined: Mapping[str, str] = Field(default_factory=dict)
    """How the process was confined that opened it: measure to `yes`, or why not."""
