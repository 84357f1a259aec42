"""Which files an action is about: by path, by pattern, by hash or both; chosen within a bound, before any is touched.

The parameters are the same for every action on files, so that who has learnt one knows them all.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from stanch.core.action import Params
from stanch.core.errors import StanchError, TargetGone, TooLarge
from stanch.core.files import Digests, FileInfo, Found, HashKind, Kind, Search, Skipped
from stanch.core.host import Host
from stanch.core.types import EndpointPath, Glob, Md5, Sha256, Size

MAX_SKIPPED_TOLD = 100
"""Files that were left out and are told one by one; the others are counted by reason."""

MAX_REASONS = 99
"""Reasons that are counted apart; some name the file, so that there may be as many as files."""

OTHER_REASONS = "other reasons"

_MAX_LIST = 1000


class Selection(Params):
    """Which files."""

    path: Annotated[tuple[EndpointPath, ...], Field(max_length=_MAX_LIST)] = ()
    """Files on the endpoint; with `recursive` also folders, for all that is below them."""

    glob: Annotated[tuple[Glob, ...], Field(max_length=100)] = ()
    """Patterns: `*` and `?` within a name, `**` across folders."""

    sha256: Annotated[tuple[Sha256, ...], Field(max_length=_MAX_LIST)] = ()
    """Only files with one of these SHA-256 hashes."""

    md5: Annotated[tuple[Md5, ...], Field(max_length=_MAX_LIST)] = ()
    """Only files with one of these MD5 hashes."""

    area: Annotated[tuple[EndpointPath, ...], Field(max_length=100)] = ()
    """Folders in which to look, with all that is below them, for files with the hashes."""

    recursive: bool = False
    """Take folders too, with all that is below them."""

    max_files: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Refuse if more files fit, before any is touched."""

    @field_validator("path", mode="before")
    @classmethod
    def _one_path_is_a_list_of_one(cls, value: object) -> object:
        """Scripts of before a list was possible say only its text."""
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        by_hash = bool(self.sha256 or self.md5)
        if self.area and not by_hash:
            raise ValueError("expected --sha256 or --md5 with --area: an area alone says not which files")
        if not (self.path or self.glob or self.area):
            missing = "--area, --path or --glob with the hash" if by_hash else "--path, --glob, or a hash with --area"
            raise ValueError(f"expected {missing}")
        return self

    @property
    def hashes(self) -> Collection[HashKind]:
        """Which hashes must be taken to decide."""
        return tuple(
            kind for kind, asked in ((HashKind.SHA256, self.sha256), (HashKind.MD5, self.md5)) if asked
        )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class LeftOut:
    """What was left out: the first ones, and how many for which reason; bounded, whatever is there."""

    skipped: list[Skipped] = field(default_factory=list)
    """The first that were left out."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many were left out, by reason."""

    def skip(self, one: Skipped) -> None:
        """One more is left out."""
        known = one.why in self.reasons or len(self.reasons) < MAX_REASONS
        self.reasons[one.why if known else OTHER_REASONS] += 1
        if len(self.skipped) < MAX_SKIPPED_TOLD:
            self.skipped.append(one)


@dataclass(slots=True, kw_only=True)
class Chosen(LeftOut):
    """What fits, and what was left out."""

    files: list[Found] = field(default_factory=list)
    """Parents before what is below them."""
    looked_at: int = 0
    """How many fit by name, whether or not by hash."""
    digests: dict[EndpointPath, Digests] = field(default_factory=dict)
    """What the content of each file was, where hashes were asked for."""


async def choose(
    host: Host,
    which: Selection,
    *,
    kinds: Collection[Kind] = (Kind.FILE,),
    hash_at_most: int | None = None,
    leaves_mounts: bool = False,
) -> Chosen:
    """Everything that fits; TargetGone if a path is not there or nothing fits, TooLarge if more than allowed does.

    Of a larger file than `hash_at_most` bytes the hash is not taken: it is skipped. What is mounted below a path that
    was named may be left out, too. Nothing is changed.
    """
    chosen, seen = Chosen(), set[EndpointPath]()
    async for one in _candidates(host, which, kinds, hash_at_most, leaves_mounts=leaves_mounts):
        if isinstance(one, Skipped):
            chosen.skip(one)
        elif one.path not in seen and await _fits(host, which, one, chosen, hash_at_most):
            seen.add(one.path)
            chosen.files.append(one)
            if len(chosen.files) > which.max_files:
                raise TooLarge(
                    "More files fit than allowed; nothing was touched",
                    got=f"over {which.max_files}",
                    expected=f"at most {which.max_files}",
                    hint="Narrow it, or raise --max-files.",
                )
    if not chosen.files:
        left_out = ", ".join(f"{n} {why}" for why, n in chosen.reasons.most_common(5))
        raise TargetGone("No file fits", got=f"{chosen.looked_at} looked at, left out: {left_out or 'none'}")
    return chosen


async def _candidates(
    host: Host, which: Selection, kinds: Collection[Kind], most: int | None, *, leaves_mounts: bool
) -> AsyncGenerator[Found | Skipped, None]:
    for path in which.path:
        info = await host.files.look(path)
        if info is None:
            raise TargetGone(f"There is no file {path}")
        if info.kind is not Kind.FOLDER or not which.recursive:
            yield Found(path, info)
    named = which.path if which.recursive else ()
    more: dict[str, Any] = {"kinds": kinds, "hashes": which.hashes, "hash_at_most": most}
    searches = [Search(roots=(one,), **more) for one in which.area]
    searches += [Search(roots=(one,), leaves_mounts=leaves_mounts, **more) for one in named]
    searches += [Search(pattern=one, **more) for one in which.glob]
    for search in searches:
        async with aclosing(_all(host, search)) as found:
            async for one in found:
                yield one


async def _all(host: Host, search: Search) -> AsyncGenerator[Found | Skipped, None]:
    async for batch in host.files.search(search):
        for one in batch:
            yield one


async def _fits(host: Host, which: Selection, one: Found, chosen: Chosen, most: int | None) -> bool:
    """Has it one of the hashes, or were none asked for?"""
    chosen.looked_at += 1
    host.progress(chosen.looked_at, None, "files", str(one.path)[-200:])
    if not which.hashes:
        return True
    if one.info.kind is not Kind.FILE:
        return False
    if most is not None and one.info.size > most:
        chosen.skip(Skipped(one.path, "larger than is hashed"))
        return False
    try:
        digests = one.digests or await _digests(host, one.path, which.hashes)
    except StanchError as error:
        chosen.skip(Skipped(one.path, error.message[:200]))
        return False
    fits = digests.sha256 in which.sha256 or digests.md5 in which.md5
    if fits:
        chosen.digests[one.path] = digests
    return fits


async def _digests(host: Host, path: EndpointPath, kinds: Collection[HashKind]) -> Digests:
    async with host.files.open(path) as file:
        return await file.digests(kinds)


def total_size(files: Collection[Found]) -> Size:
    """Bytes of all of them."""
    return Size(sum(one.info.size for one in files))


def described(info: FileInfo) -> str:
    """One line about a file, for a plan."""
    return f"{info.kind}, {info.size} bytes, {info.user}, mode {info.mode:04o}"
