"""Who runs or has open the files that are taken away.

A file's number may be given to another file as soon as it is gone. So who held it is written down before, and only a
process that is known from then, or runs a program of that very name where nothing is any more, is meant.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from stanch.core.files import FileId
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.processes import Held, Holder, ProcessId
from stanch.core.types import EndpointPath, Pid, Text, seconds

MAX_HOLDERS = 1000
"""Holders that are written down and told."""

DELETED = " (deleted)"
"""What the kernel adds to the name of a program that is gone."""


class Ended(Model):
    """A process that ran one of the files, and was ended."""

    pid: Pid
    """Process id."""

    name: Text
    """Short name that the kernel showed."""

    path: EndpointPath
    """What it ran."""


class StillHeld(Model):
    """A process that goes on holding the content of a file that is not at its place any more."""

    pid: Pid
    """Process id."""

    name: Text
    """Short name that the kernel shows."""

    how: Held
    """runs, maps, writes or reads."""

    path: EndpointPath
    """Which file."""

    why: Text = ""
    """Why it was not ended, if it should have been."""


Holders = Annotated[tuple[Holder, ...], Field(max_length=MAX_HOLDERS)]
Places = Mapping[FileId, EndpointPath]


async def holders_of(host: Host, places: Places) -> Holders:
    """Who holds them now; those who run or write them first."""
    order = list(Held)
    found = await host.processes.holders(tuple(places)) if places else ()
    return tuple(sorted(found, key=lambda one: order.index(one.how)))[:MAX_HOLDERS]


async def meant(host: Host, before: Collection[Holder], places: Places) -> list[Holder]:
    """Who holds them now, and not merely another file that got the number."""
    known = {(one.process, one.file) for one in before}
    return [
        one
        for one in await holders_of(host, places)
        if (one.process, one.file) in known or (one.how is Held.RUNS and await _runs_what_is_gone(host, one, places))
    ]


async def _runs_what_is_gone(host: Host, holder: Holder, places: Places) -> bool:
    place, found = places[holder.file], await host.processes.find(holder.process.pid)
    if found is None or found.id != holder.process or found.executable is None:
        return False
    return found.executable.removesuffix(DELETED) == place and await host.files.look(place) is None


async def ended_of(host: Host, known: Collection[Holder], places: Places) -> list[Ended]:
    """Those who ran a file, and do not run any more."""
    ran = [one for one in known if one.how is Held.RUNS and one.file in places]
    gone = [one for one in ran if not await host.processes.alive(one.process)]
    return [Ended(pid=one.process.pid, name=one.name, path=places[one.file]) for one in gone]


async def still_held(
    host: Host, known: Collection[Holder], places: Places, spared: Mapping[ProcessId, str]
) -> list[StillHeld]:
    """Who goes on holding the content."""
    return [
        StillHeld(
            pid=one.process.pid,
            name=one.name,
            how=one.how,
            path=places[one.file],
            why=spared.get(one.process, "") if one.how is Held.RUNS else "",
        )
        for one in await meant(host, known, places)
    ]


async def end_runners(host: Host, known: Collection[Holder], places: Places) -> Mapping[ProcessId, str]:
    """End those who run a file that was taken away; the processes that had to be left, and why."""
    runners = dict.fromkeys([one.process for one in await meant(host, known, places) if one.how is Held.RUNS])
    return await end_all(host, runners)


async def end_all(host: Host, ones: Collection[ProcessId]) -> Mapping[ProcessId, str]:
    """End these processes together; those that had to be left, and why."""
    spared = {one: why for one in ones if (why := await host.processes.why_protected(one)) is not None}
    doomed = [one for one in ones if one not in spared]
    try:
        # All are stopped before the first is ended: none starts the other again.
        for one in doomed:
            await host.processes.stop(one)
        for one in doomed:
            await host.processes.kill(one)
    except BaseException:
        await asyncio.shield(_let_go(host, doomed))
        raise
    left = await host.processes.wait_gone(doomed, within=seconds(30)) if doomed else ()
    return spared | dict.fromkeys(left, "it did not end: it waits inside the kernel")


async def _let_go(host: Host, ones: Sequence[ProcessId]) -> None:
    for one in ones:
        await host.processes.resume(one)
