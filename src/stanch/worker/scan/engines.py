"""The engines of one scan, as whoever looks at files needs them: what each can be asked, and what all of them need."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stanch.core.ioc.items import Item, Value
from stanch.worker.scan.file_facts import of_content
from stanch.worker.scan.rules import RuleSet


class Judging(Protocol):
    """As `core.ioc.judging.Judge`."""

    def needs(self, item: Item) -> frozenset[str]:
        """What can still decide."""
        ...

    def concerns(self, item: Item) -> bool:
        """Is there anything in it for `see`?"""
        ...

    def see(self, item: Item) -> Sequence[Any]:
        """Matches."""
        ...


class Facts(Protocol):
    """As `file_facts.FileFacts.facts`."""

    def __call__(
        self, path: bytes, fd: int, status: os.stat_result, wanted: frozenset[str], /
    ) -> Mapping[str, tuple[Value, ...]]:
        """Values by path."""
        ...


class ListHit(Protocol):
    """As `hash_lists.Hit`."""

    @property
    def digest(self) -> str:
        """The hash by which it is listed."""
        ...

    @property
    def list(self) -> str:
        """Which list."""
        ...

    @property
    def name(self) -> str:
        """What the list says of it."""
        ...


class HashLists(Protocol):
    """As `hash_lists.HashLists`."""

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of hashes that are asked for."""
        ...

    def find(self, digests: Mapping[str, str], /) -> Sequence[ListHit]:
        """The lists that have a file with these hashes, in hexadecimal digits."""
        ...


class Clamd(Protocol):
    """As `clamd.Clamd`."""

    key: bytes
    """Names the engine and its data: 16 bytes."""
    version: str
    """As it tells it; empty if it does not answer."""

    def scan(self, file: int, /) -> str | None:
        """What is in the open file, None for nothing. OSError if there was no answer."""
        ...


class MatchTeller(Protocol):
    """Tells what indicators matched."""

    def __call__(self, matches: Sequence[Any], /) -> None:
        """All of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """What looks at files."""

    rules: RuleSet | None = None
    judge: Judging | None = None
    wanted: frozenset[str] = frozenset()
    """Paths of FileItem that some indicator asks for."""
    free: frozenset[str] = frozenset()
    """Of them, those that are known without opening the file."""
    facts: Facts | None = None
    owners: Mapping[int, str] = field(default_factory=dict)
    hashes: HashLists | None = None
    clamd: Clamd | None = None
    told: MatchTeller | None = None

    @property
    def only_clean(self) -> bool:
        """Is all that is asked of a file whether it is clean?"""
        return not self.wanted and self.hashes is None and bool(self.rules or self.clamd)

    @property
    def all_kinds(self) -> bool:
        """Can an indicator hold for what is no regular file? Not if all it asks for is content."""
        return self.judge is not None and not self.wanted <= of_content(self.wanted)

    def key(self, path: bytes, status: os.stat_result) -> bytes:
        """The name under which this file is clean for all that searches content; empty if nothing does."""
        same = self.key_of_all
        if same is not None or self.rules is None:
            return same or b""
        return self._with_clamd(self.rules.key_for(path, self.owner(status)))

    @property
    def key_of_all(self) -> bytes | None:
        """That name, if it is the same for all files."""
        if self.rules is None or self.rules.empty:
            return self._with_clamd(b"")
        return None if self.rules.asks_whose else self._with_clamd(self.rules.key)

    def _with_clamd(self, key: bytes) -> bytes:
        if self.clamd is not None:
            key = bytes(a ^ b for a, b in zip(key or bytes(16), self.clamd.key, strict=True))
        return key

    def owner(self, status: os.stat_result) -> str:
        """The name of its owner, or his number."""
        return self.owners.get(status.st_uid) or str(status.st_uid)
