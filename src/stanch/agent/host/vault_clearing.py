"""The original of what was copied goes, each name of it, or comes back: also when a crash has cut that short.

Each name is moved aside first, and removed once all are: so as long as none is removed, all can come back.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from stanch.agent.host.metadata import clear_flags, put_flags
from stanch.agent.host.path_calls import open_folder
from stanch.agent.host.pinned import Aside, Pinned, beside, find_aside, pin, place
from stanch.agent.host.vault_items import Record, Stage
from stanch.agent.host.vault_parts import Parts, here
from stanch.core.errors import ActionFailed, TargetGone
from stanch.core.files import Kind
from stanch.core.types import EndpointPath

_FREE_NAMES = 100
"""Names that are tried beside one that is taken."""


# --- the names -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name:
    """One name of what is taken: in its place, aside, or gone. Both, where a rename has but two steps."""

    token: str
    """Recognises it while it is aside."""
    held: Pinned | None
    aside: Aside | None


def names_of(record: Record, stack: ExitStack) -> Iterator[Name]:
    """Each name, as it is now."""
    for n, path in enumerate(record.names):
        token = _token(record.item.id, n)
        yield Name(token, _in_place(record, path, stack), _found_aside(record, path, token, stack))


def first_token(id_: str) -> str:
    """Recognises the first name of an item while it is aside."""
    return _token(id_, 0)


def _token(id_: str, n: int) -> str:
    return f"{id_[4:]}-{n}"


def _in_place(record: Record, path: EndpointPath, stack: ExitStack) -> Pinned | None:
    try:
        pinned = stack.enter_context(pin(path))
    except TargetGone:
        return None
    return pinned if is_identical(record, pinned.status) else None


def _found_aside(record: Record, path: EndpointPath, token: str, stack: ExitStack) -> Aside | None:
    try:
        folder = open_folder(os.fsencode(here(path).parent))
    except (FileNotFoundError, NotADirectoryError):
        return None
    stack.callback(os.close, folder)
    aside = stack.enter_context(find_aside(folder, token, os.fsencode(here(path).name)))
    return aside if aside is not None and _is_it(record, aside.status) else None


def is_identical(record: Record, status: os.stat_result) -> bool:
    """Is this the very file that was copied?"""
    return (status.st_dev, status.st_ino) == (record.file.device, record.file.inode)


def _is_it(record: Record, status: os.stat_result) -> bool:
    """The same for what is aside: on an overlay file system, a file gets another number when it is moved."""
    is_file = stat.S_ISREG(status.st_mode) and record.item.info.kind is Kind.FILE
    return is_identical(record, status) or (is_file and is_unchanged(record, status))


def is_unchanged(record: Record, status: os.stat_result) -> bool:
    """Has it the content that was copied, as far as the kernel tells?"""
    return content_of(status) == (record.item.info.size, record.modified_ns)


def content_of(status: os.stat_result) -> tuple[int, int]:
    """What a change of content changes; of the times, our own renaming changes but the last one."""
    return status.st_size, status.st_mtime_ns


# --- it goes ---------------------------------------------------------------------------------------------------------


def move_aside(record: Record, pinned: Pinned) -> None:
    """Move its first name aside before it is copied: whoever opens it by its path reaches it no more."""
    if pinned.kind is Kind.FILE:
        clear_flags(pinned.descriptor)
    with ExitStack() as stack:
        first = next(names_of(record, stack))
        if first.held is not None:
            first.held.aside(first.token)


def clear(parts: Parts, record: Record, descriptor: int, copied: os.stat_result) -> Record:
    """Remove every name of what a descriptor holds; on an error, `settle` brings back what is aside.

    ActionFailed if it has changed since it was copied; TargetGone if no name leads to it any more.
    """
    with ExitStack() as stack:
        names = [one for one in names_of(record, stack) if one.held or one.aside]
        if not names:
            raise TargetGone(f"Another file is at {record.item.path} by now, or none", hint="Look at it first.")
        if not same(copied, os.fstat(descriptor)):
            raise written_to(record.item.path)
        if record.item.info.kind is Kind.FILE:
            clear_flags(descriptor)
        asides = [found for one in names if (found := _moved(one))]
        if record.data_sha256 and content_of(os.fstat(descriptor)) != content_of(copied):
            raise written_to(record.item.path)
        left = 0
        for aside in asides:
            left = aside.remove()
    return parts.items.write(_held(record, left))


def same(before: os.stat_result, now: os.stat_result) -> bool:
    """Has nobody changed content or metadata?"""
    return content_of(before) == content_of(now) and before.st_ctime_ns == now.st_ctime_ns


def written_to(path: EndpointPath) -> ActionFailed:
    """It does not rest."""
    return ActionFailed(f"{path} is being written to", hint="End the process that writes, then order it again.")


def _moved(name: Name) -> Aside | None:
    return name.aside or (name.held.aside(name.token) if name.held else None)


def _held(record: Record, left: int) -> Record:
    """Its names are gone, but for so many."""
    return record.at(Stage.HELD, item=record.item.model_copy(update={"names_left": left}))


# --- after a crash, or an error --------------------------------------------------------------------------------------


def settle(parts: Parts, record: Record, *, links: int | None = None) -> Record | None:
    """Undo a take of which no name is gone; finish any other. The record then, or None if all is as it was. OSError.

    A name that is gone was removed by us, or by somebody else: what is in the vault is the only copy, or may be.
    Whoever still holds the file knows better, by how many names it has: one that was moved elsewhere is not gone.
    """
    with ExitStack() as stack:
        names = list(names_of(record, stack))
        if record.stage is Stage.MOVING:  # there is no copy yet
            for name in names:
                _keep(name)
        elif _is_gone(record, names, links) or [one for one in names if not _back(one)]:
            # Some may be back already: what was aside a moment ago is asked for anew.
            return _finish(parts, record, list(names_of(record, stack)))
    _put_flags(record)
    parts.items.remove(record.item.id)
    return None


def _is_gone(record: Record, names: Sequence[Name], links: int | None) -> bool:
    """Is a name of it gone for good?"""
    if links is None or record.item.info.kind is Kind.FOLDER:
        return any(one.held is None and one.aside is None for one in names)
    return links < record.item.info.links


def _back(name: Name) -> bool:
    """Give it its name again; False if something else has that by now."""
    if name.aside is None:
        return True
    if name.held is not None:
        name.aside.remove()
        return True
    try:
        name.aside.back()
    except FileExistsError:
        return False
    return True


def _finish(parts: Parts, record: Record, names: Sequence[Name]) -> Record:
    """Remove the names that are still there, unless the content has changed since it was copied."""
    left = 0
    for name in names:
        found = name.aside or name.held
        if found is None:
            continue
        if record.data_sha256 and not is_unchanged(record, found.status):
            left = found.status.st_nlink
            _keep(name)
        else:
            aside = _moved(name)
            left = aside.remove() if aside else left
    return parts.items.write(_held(record, left))


def _keep(name: Name) -> None:
    """Bring back what is aside: to its name, or to one beside it if something else has that by now."""
    if name.aside is None or _back(name):
        return
    for n in range(1, _FREE_NAMES):
        with suppress(FileExistsError):
            place(name.aside.folder, name.aside.temporary, beside(name.aside.name, n))
            return


def _put_flags(record: Record) -> None:
    """A file that could not be taken is as immutable as before."""
    with suppress(TargetGone), pin(record.item.path) as pinned:
        if pinned.kind is Kind.FILE and is_identical(record, pinned.status):
            put_flags(record.metadata, pinned.descriptor)
