"""Which parts of a piece of evidence are here: the units of work on the tables of parts and of holes."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from stanch.core.errors import Conflict, Invalid, NotFound, TooLarge
from stanch.core.frames import MAX_RUNS, PART_BYTES, Encoding, PartInfo, PartRun
from stanch.server.evidence_files import Kept, size_of_part
from stanch.server.store.tables import evidence, evidence_holes, evidence_parts


def one(connection: Connection, evidence_id: str) -> Row[Any]:
    """The row of one piece of evidence; NotFound."""
    row = connection.execute(select(evidence).where(evidence.c.id == evidence_id)).one_or_none()
    if row is None:
        raise NotFound("There is no such evidence", got=evidence_id[:100], hint="`stanch evidence list` lists it.")
    return row


def kept_parts(connection: Connection, evidence_id: str) -> list[Kept]:
    """The parts that have files, in order."""
    query = select(evidence_parts).where(evidence_parts.c.evidence == evidence_id).order_by(evidence_parts.c.n)
    return list(map(_kept, connection.execute(query)))


def holes(connection: Connection, evidence_id: str) -> list[PartRun]:
    """The parts that are nothing but zeros, in order."""
    query = select(evidence_holes).where(evidence_holes.c.evidence == evidence_id).order_by(evidence_holes.c.first)
    return [PartRun(first=row.first, count=row.count) for row in connection.execute(query)]


def kept_already(connection: Connection, evidence_id: str, part: PartInfo) -> str | None:
    """SHA-256 of the file of this very part, empty for a hole, None if it is missing; Conflict if another is here."""
    mine = (evidence_parts.c.evidence == evidence_id, evidence_parts.c.n == part.n)
    row = connection.execute(select(evidence_parts).where(*mine)).one_or_none()
    if row is not None:
        _refuse_other(part, row.sha256)
        return _kept(row).sha256
    if _is_hole(connection, evidence_id, part.n):
        _refuse_other(part, hash_of_zeros(part.size))
        return ""
    return None


def record_part(connection: Connection, evidence_id: str, part: Kept) -> bool:
    """Note that it is on the disk; False if another copy of it was faster."""
    row = one(connection, evidence_id)
    there = kept_already(connection, evidence_id, part.info)
    if there is not None:
        return there == part.sha256
    _refuse_deleted(row)
    if row.complete or size_of_part(row.size, part.info.n) != part.info.size:
        raise Conflict("The evidence was begun anew, with another size")
    stored = {"encoding": part.encoding.value, "stored_size": part.size, "stored_sha256": part.sha256}
    connection.execute(insert(evidence_parts), {"evidence": evidence_id, **part.info.model_dump(), **stored})
    _count(connection, evidence_id, part.info.size)
    return True


def record_holes(connection: Connection, evidence_id: str, runs: Sequence[PartRun]) -> None:
    """Note that these parts are nothing but zeros; Conflict if one of them is here and is not."""
    row = one(connection, evidence_id)
    _refuse_deleted(row)
    _refuse_disorder(runs, -(-row.size // PART_BYTES))
    if row.complete or not runs:
        return  # that it is the same is what the hash of the whole says
    before = holes(connection, evidence_id)
    taken = [*before, *_zeros_between(connection, evidence_id, runs)]
    new = list(without(runs, sorted(taken, key=lambda run: run.first)))
    if len(before) + len(new) > MAX_RUNS:
        raise TooLarge("The evidence has too many holes", got=len(before) + len(new), expected=f"at most {MAX_RUNS}")
    if new:
        rows = [{"evidence": evidence_id, "first": run.first, "count": run.count} for run in new]
        connection.execute(insert(evidence_holes), rows)
        _count(connection, evidence_id, sum(_bytes(run, row.size) for run in new))


def forget_parts(connection: Connection, evidence_id: str, size: int) -> None:
    """Begin anew: nothing is here, and it shall be of this size."""
    connection.execute(delete(evidence_parts).where(evidence_parts.c.evidence == evidence_id))
    connection.execute(delete(evidence_holes).where(evidence_holes.c.evidence == evidence_id))
    connection.execute(update(evidence).where(evidence.c.id == evidence_id).values(size=size, received=0))


def refuse_gaps(connection: Connection, row: Row[Any]) -> None:
    """Conflict unless every part of it is here."""
    numbers = connection.execute(select(evidence_parts.c.n).where(evidence_parts.c.evidence == row.id)).scalars()
    here = [*holes(connection, row.id), *_singles(numbers)]
    count = -(-row.size // PART_BYTES)
    everything = [PartRun(first=0, count=count)] if count else []
    missing = next(without(everything, sorted(here, key=lambda run: run.first)), None)
    if missing is not None:
        got = f"{sum(run.count for run in here)} of {count} parts"
        raise Conflict("Some parts are missing", got=got, expected=f"part {missing.first} too")


def without(runs: Iterable[PartRun], taken: Sequence[PartRun]) -> Iterator[PartRun]:
    """What is in `runs` and not in `taken`; both in order."""
    at = 0
    for run in runs:
        first = run.first
        while at < len(taken) and taken[at].end <= first:
            at += 1
        ahead = at
        while first < run.end and ahead < len(taken) and taken[ahead].first < run.end:
            if taken[ahead].first > first:
                yield PartRun(first=first, count=taken[ahead].first - first)
            first = max(first, taken[ahead].end)
            ahead += 1
        if first < run.end:
            yield PartRun(first=first, count=run.end - first)


def hash_of_zeros(size: int) -> str:
    """SHA-256 of so many zero bytes; at most a part."""
    return hashlib.sha256(bytes(size)).hexdigest()


def _kept(row: Row[Any]) -> Kept:
    info = PartInfo(n=row.n, size=row.size, sha256=row.sha256)
    if row.stored_sha256 is None:
        return Kept(info, Encoding(row.encoding), row.size, row.sha256)
    return Kept(info, Encoding(row.encoding), row.stored_size, row.stored_sha256)


def _is_hole(connection: Connection, evidence_id: str, n: int) -> bool:
    at = (evidence_holes.c.evidence == evidence_id, evidence_holes.c.first <= n)
    query = select(evidence_holes).where(*at).order_by(evidence_holes.c.first.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return row is not None and n < row.first + row.count


def _zeros_between(connection: Connection, evidence_id: str, runs: Sequence[PartRun]) -> list[PartRun]:
    """The parts with files that are said to be zeros; Conflict if one is not."""
    between = (evidence_parts.c.n >= runs[0].first, evidence_parts.c.n < runs[-1].end)
    mine = evidence_parts.c.evidence == evidence_id
    query = select(evidence_parts.c.n, evidence_parts.c.size, evidence_parts.c.sha256).where(mine, *between)
    rows = connection.execute(query.order_by(evidence_parts.c.n)).all()
    firsts = [run.first for run in runs]
    inside = [row for row in rows if row.n < runs[bisect_right(firsts, row.n) - 1].end]
    zeros = {size: hash_of_zeros(size) for size in {row.size for row in inside}}
    for row in inside:
        if row.sha256 != zeros[row.size]:
            raise Conflict(f"Part {row.n} is here, with data", got="no data", expected=row.sha256)
    return [PartRun(first=row.n, count=1) for row in inside]


def _singles(numbers: Iterable[int]) -> Iterator[PartRun]:
    return (PartRun.model_construct(first=n, count=1) for n in numbers)


def _refuse_other(part: PartInfo, sha256: str) -> None:
    if sha256 != part.sha256:
        raise Conflict(f"Another part {part.n} is here already", got=part.sha256, expected=sha256)


def _refuse_deleted(row: Row[Any]) -> None:
    if row.deleted is not None:
        raise Conflict("This evidence was deleted on the server", got=row.id)


def _refuse_disorder(runs: Sequence[PartRun], count: int) -> None:
    behind = 0
    for run in runs:
        if not behind <= run.first < run.end <= count:
            raise Invalid("The runs of parts are out of order", got=run.first, expected=f"{behind} to {count - 1}")
        behind = run.end


def _bytes(run: PartRun, size: int) -> int:
    return min(run.end * PART_BYTES, size) - run.first * PART_BYTES


def _count(connection: Connection, evidence_id: str, size: int) -> None:
    connection.execute(update(evidence).where(evidence.c.id == evidence_id).values(received=evidence.c.received + size))
