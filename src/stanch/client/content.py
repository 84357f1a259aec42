"""Rules and indicators in files of this machine, made a pack and brought to the server.

Every file is read twice: once to know what it is and its hash, and once to be sent; one that changes in between is
refused. What a file holds is told by its content, not by its name.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import httpx2

from stanch.client.download import Progress, silent
from stanch.client.http import CONNECT_SECONDS, Http, read
from stanch.client.uploads import CHUNK, LONGEST_NAME, opened, printable
from stanch.core.content import MAX_PACK_BYTES, MAX_PACK_FILES, ContentKind, PackFile, PackIndex
from stanch.core.content_kind import HEAD, SUFFIXES, kind_of
from stanch.core.errors import Conflict, Denied, Invalid, StanchError, TooLarge
from stanch.core.pack import first_line, index_of, refuse_large_file
from stanch.core.rest_content import Imported, Lint

ANSWER_SECONDS: Final = 600.0
"""The server answers when it has compiled everything."""

MAX_DEPTH: Final = 40
"""Folders inside one another."""

MAX_NAMED: Final = 5
"""Files that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Files that make a pack."""

    index: PackIndex
    paths: Mapping[str, Path]
    """Name in the pack to where it is."""
    left_out: Sequence[str] = ()
    """Files of folders that are nothing of ours, or of another kind than was wanted."""

    @property
    def size(self) -> int:
        """Bytes of the pack."""
        return len(first_line(self.index)) + sum(one.size for one in self.index.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    name: str
    path: Path
    named: bool
    """Did somebody name it, or was it found in a folder?"""


def gather(paths: Sequence[Path], kind: ContentKind | None = None) -> Gathered:
    """The rules or indicators in these files and folders, all of one kind, of `kind` if that is given.

    NotFound, Denied, TooLarge; Invalid if they are of several kinds, or there are none.
    """
    found: dict[str, tuple[_Candidate, ContentKind, PackFile]] = {}
    left_out: list[str] = []
    room = MAX_PACK_BYTES
    for one in _candidates(paths):
        seen = _looked_at(one, kind)
        if seen is None:
            left_out.append(one.name)
            continue
        if one.name in found:
            raise Invalid(
                "Two files have the same name",
                got=one.name,
                expected="names that differ",
                hint="Give a folder that has both of them: then their folders are part of their names.",
            )
        found[one.name] = (one, *seen)
        room -= seen[1].size
        _refuse_too_many(len(found), room)
    _refuse_none(paths, kind, left_out, found)
    index = index_of(_one_kind(found), [file for _, _, file in found.values()])
    return Gathered(index=index, paths={name: one.path for name, (one, _, _) in found.items()}, left_out=left_out)


def bring(
    http: Http,
    name: str,
    gathered: Gathered,
    *,
    note: str = "",
    strict: bool = False,
    progress: Progress = silent,
) -> Imported:
    """Bring a pack to the server, as the newest version of this content; Conflict if a file changes meanwhile."""
    query = {"name": name, "note": note or None, "strict": "true" if strict else None}
    return read(Imported, _sent(http, "content", query, gathered, progress))


def look_through(http: Http, gathered: Gathered, *, progress: Progress = silent) -> Lint:
    """Let the server look through a pack, and keep nothing of it."""
    return read(Lint, _sent(http, "content-check", {}, gathered, progress))


def _sent(http: Http, path: str, query: Mapping[str, Any], gathered: Gathered, progress: Progress) -> bytes:
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(gathered.size)}
    given = {key: value for key, value in query.items() if value is not None}
    timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    content = _bytes_of(gathered, progress)
    with http.stream("POST", path, params=given, headers=headers, content=content, timeout=timeout) as answer:
        return bytes(answer.read())


def _bytes_of(gathered: Gathered, progress: Progress) -> Iterator[bytes]:
    """All bytes of the pack, in order."""
    line, whole = first_line(gathered.index), gathered.size
    done = len(line)
    yield line
    for one in gathered.index.files:
        for piece in _again(gathered.paths[one.name], one):
            yield piece
            done += len(piece)
            progress(done, whole)


def _again(path: Path, file: PackFile) -> Iterator[bytes]:
    """The bytes of a file, which are still what they were; Conflict."""
    digest, left = hashlib.sha256(), file.size
    with opened(path) as source:
        while left:
            piece = source.read(min(CHUNK, left))
            if not piece:
                raise _changed(path)
            left -= len(piece)
            digest.update(piece)
            if not left and digest.hexdigest() != file.sha256:
                raise _changed(path)
            yield piece


# --- finding ---------------------------------------------------------------------------------------------------------


def _candidates(paths: Sequence[Path]) -> Iterator[_Candidate]:
    """The files that may belong to it, by their names in the pack."""
    for path in paths:
        if not path.is_dir():
            yield _Candidate(name=printable(path.name)[-LONGEST_NAME:], path=path, named=True)
            continue
        before = f"{path.resolve().name}/" if len(paths) > 1 else ""
        for inside in _walk(path):
            name = printable(before + inside.as_posix())[-LONGEST_NAME:]
            yield _Candidate(name=name, path=path / inside, named=False)


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder with a name that rules or indicators have; links are not followed.

    Denied or Invalid for a folder that cannot be looked into: rules that are missing must not go unseen.
    """
    for here, folders, files in os.walk(folder, followlinks=False, onerror=_refuse_folder):
        folders.sort()
        inside = Path(here).relative_to(folder)
        if folders and len(inside.parts) >= MAX_DEPTH:
            raise Invalid("These folders are too deep", got=here[:1000], expected=f"at most {MAX_DEPTH} in one another")
        for name in sorted(files):
            path = Path(here, name)
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
                yield inside / name


def _refuse_folder(error: OSError) -> NoReturn:
    kind = Denied if isinstance(error, PermissionError) else Invalid
    raise kind(f"Cannot read {error.filename}", got=error.strerror, expected="a folder on this machine") from None


def _looked_at(one: _Candidate, wanted: ContentKind | None) -> tuple[ContentKind, PackFile] | None:
    """What it holds; None if it is to be left out, Invalid if somebody named it all the same."""
    with opened(one.path) as file:
        seen = kind_of(file.read(HEAD))
        if seen is None or wanted not in {None, seen}:
            if one.named:
                raise _unfit(one, seen, wanted)
            return None
        file.seek(0)
        return seen, _measured(file, one, seen)


def _measured(file: BinaryIO, one: _Candidate, kind: ContentKind) -> PackFile:
    digest, size = hashlib.sha256(), 0
    while piece := file.read(CHUNK):
        digest.update(piece)
        size += len(piece)
        refuse_large_file(kind, one.name, size)
    return PackFile(name=one.name, size=size, sha256=digest.hexdigest())


def _one_kind(found: Mapping[str, tuple[_Candidate, ContentKind, PackFile]]) -> ContentKind:
    """The kind of all of them; Invalid says which there are."""
    counts = Counter(kind for _, kind, _ in found.values())
    if len(counts) == 1:
        return next(iter(counts))
    examples = {kind: next(name for name, (_, its, _) in found.items() if its is kind) for kind in counts}
    raise Invalid(
        "These files are of several kinds",
        got=", ".join(f"{count} {kind} (such as {examples[kind]})" for kind, count in counts.most_common()),
        expected="files of one kind, since content has one",
        hint="Choose with --kind, and import the others under another name.",
    )


# --- what is refused -------------------------------------------------------------------------------------------------


def _refuse_too_many(count: int, room: int) -> None:
    if count > MAX_PACK_FILES or room < 0:
        raise TooLarge(
            "These are too many rules and indicators for one version",
            got=f"{count} files, {MAX_PACK_BYTES - room} bytes",
            expected=f"at most {MAX_PACK_FILES} files, {MAX_PACK_BYTES} bytes",
            hint="Import them under several names.",
        )


def _refuse_none(
    paths: Sequence[Path], kind: ContentKind | None, left_out: Sequence[str], found: Mapping[str, object]
) -> None:
    if not found:
        raise Invalid(
            "There are no rules or indicators in it",
            got=", ".join([*map(str, paths[:MAX_NAMED]), *(f"left out: {one}" for one in left_out[:MAX_NAMED])]),
            expected=f"files of {kind}" if kind else "files of YARA rules, OpenIOC or STIX indicators, or hashes",
            hint="In folders, files with the usual endings are looked at (.yar, .ioc, .json, .txt, ...); name others.",
        )


def _unfit(one: _Candidate, seen: ContentKind | None, wanted: ContentKind | None) -> StanchError:
    return Invalid(
        f"{one.name} is nothing that can be imported so",
        got=seen or "a file that is neither rules nor indicators",
        expected=wanted or "YARA rules, OpenIOC or STIX indicators, or hashes",
        hint="What a file holds is told by its content: rules as text, not compiled ones.",
    )


def _changed(path: Path) -> StanchError:
    return Conflict(f"{path} changed while it was read", hint="Import it again.")
