"""The containers of this machine: `core.containers` by runtimes and control groups.

What there is, is the union of what runtimes tell and what control groups show. The kernel goes before the runtime:
whether a container runs, and whether it is held still, is read from its group where it has one.

A runtime of the machine is asked to pause and to kill its own containers, so that it knows of it; where it fails, or
there is none, the control group does it. **A user's own (rootless) runtime is only read.** It is a program of that
user, who may be the attacker: it could say that it paused and not do it, or give its container the id of another. So
its containers are paused and killed by their control groups, and only by those that lie in the slice of that user.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from datetime import timedelta
from itertools import chain
from os import getpid
from pathlib import Path

from stanch.agent.host.container_crictl import Ask, ask_crictl, told_by
from stanch.agent.host.container_facts import ancestors, own_containers
from stanch.agent.host.container_groups import PROC, ROOT, Group, Groups, are_all
from stanch.agent.host.container_restarts import restart_of
from stanch.agent.host.container_sockets import FOLDERS, ROOT_USER, RuntimeSocket, Told, sockets, why
from stanch.agent.host.container_union import Known, Source, plain_id, put_together
from stanch.core.containers import Container, Runtime, choose, tells_of
from stanch.core.errors import StanchError, TargetGone, TimedOut, Unavailable, Unsupported
from stanch.core.types import seconds

AT_ONCE = 8
"""Runtimes that are asked at a time."""

ALL_WITHIN = seconds(15)
"""For all runtimes together: each of many users may keep one that is silent."""

_LOOK_AGAIN_SECONDS = 0.5
_INIT = 1
_Change = Callable[[RuntimeSocket, str], Awaitable[None]]


class LinuxContainers:
    """The containers of this machine.

    `folders`: where sockets are looked for. `cgroups`, `proc`, `root`: where those are. `owner`: to whom the sockets
    of the machine must belong. `me`: the process that must not be touched, with those above it.
    """

    def __init__(
        self,
        *,
        folders: Sequence[Path] = FOLDERS,
        cgroups: Path = ROOT,
        proc: Path = PROC,
        root: Path = Path("/"),
        owner: int = ROOT_USER,
        me: Callable[[], int] = getpid,
        crictl: Ask = ask_crictl,
        within: timedelta = ALL_WITHIN,
    ) -> None:
        self._folders = folders
        self._groups = Groups(root=cgroups, proc=proc)
        self._proc = proc
        self._root = root
        self._owner = owner
        self._me = me
        self._crictl = crictl
        self._within = within

    async def list(self) -> Sequence[Container]:
        """All of them, those that run first, of these the machine's; those that do not run as far as they are told."""
        found = [one.container for one in await self._look()]
        return sorted(found, key=lambda one: (not one.state.alive, one.user is not None, one.runtime, one.name, one.id))

    async def runtimes(self) -> Sequence[Runtime]:
        """By which ways containers are found here, and why not by the others."""
        found = await asyncio.to_thread(self._groups.find)
        left_out = "" if are_all(found) else "; not all of them are looked at"
        shown = f"they show {len(found)} containers with processes{left_out}"
        by_groups = Runtime(name="control groups", place=self._groups.mounts, answers=bool(found), detail=shown)
        return [by_groups, *map(_runtime, await self._sources())]

    async def find(self, name: str) -> Container | None:
        """By id, unambiguous beginning of one (12 characters at least), or name. Conflict if several fit."""
        chosen = choose(await self.list(), name)
        if chosen is not None:
            return chosen
        # By its whole id it is found among however many others, and when the other that had this id has gone.
        return next((known.container for known in await self._called(name) if name in known.ids), None)

    async def why_protected(self, one: Container) -> str | None:
        """Why it must not be touched (Stanch runs in it), or None."""
        known = await self._again(one)
        return await asyncio.to_thread(self._why_protected, one, known.group if known else None)

    def _why_protected(self, one: Container, group: Group | None) -> str | None:
        if one.id in own_containers(self._proc):
            return "Stanch's agent runs in it"
        inside = {member.pid for member in group.members} if group else set[int]()
        if self._me() in inside:
            return "Stanch's agent runs in it"
        if _INIT in inside:
            return "the first process of the machine runs in it"
        return "what started Stanch's agent runs in it" if ancestors(self._proc, self._me()) & inside else None

    async def pause(self, one: Container) -> None:
        """Hold all its processes still, and see that they are; repeating it changes nothing."""
        await _to_the_end(self._hold(one, RuntimeSocket.pause, still=True))

    async def resume(self, one: Container) -> None:
        """Let them go on; repeating it changes nothing."""
        await _to_the_end(self._hold(one, RuntimeSocket.resume, still=False))

    async def _hold(self, one: Container, ask: _Change, *, still: bool) -> None:
        known = await self._alive(one)
        failed = await self._through_runtime(known, ask)
        if known.group is None:
            if failed is not None:
                raise failed
            return
        if await asyncio.to_thread(self._groups.frozen, known.group) is not still:
            await asyncio.to_thread(self._groups.freeze, known.group, still=still)

    async def kill(self, one: Container) -> None:
        """End all its processes and see them gone; repeating it changes nothing, not even one started anew."""
        await _to_the_end(self._kill(one))

    async def _kill(self, one: Container) -> None:
        known = await self._again(one)
        if known is None:
            await self._check_that_it_would_be_seen(one)
            return
        if not known.container.state.alive or not known.is_same_run(one):
            return
        failed = await self._through_runtime(known, RuntimeSocket.kill)
        if known.group is not None:
            await asyncio.to_thread(self._groups.kill, known.group, known.container.cgroup_number)
        elif failed is not None:
            raise failed

    async def _through_runtime(self, known: Known, ask: _Change) -> StanchError | None:
        """Let the runtime of the machine do it; why it was not done, if it was not."""
        if known.socket is None or known.container.user is not None:
            return Unsupported(
                "The container can be reached in no way",
                got=f"{known.container} has no control group that is seen from here",
                expected="a control group, or a runtime of the machine that answers",
            )
        try:
            await ask(known.socket, known.container.id)
        except StanchError as error:
            return error
        return None

    async def restarts(self, one: Container) -> str | None:
        """Who would start it anew after it was killed, in words; None if nobody is known to."""
        known = await self._again(one)
        found = [] if known is None else [text async for text in self._restarts(known)]
        return "; ".join(found) or None

    async def _restarts(self, known: Known) -> AsyncIterator[str]:
        one = known.container
        if one.pod and one.runtime in {"containerd", "cri-o", "docker"}:
            yield "the kubelet, unless the restart policy of its pod is Never"
        value = await asyncio.to_thread(restart_of, self._root, known.unit)
        if value not in {"", "no"}:
            yield f"systemd, since {known.unit} has Restart={value}"
        if known.socket is not None and known.told is not None:
            try:
                policy = (await known.socket.ending(known.told.id)).restart
            except StanchError as error:
                yield f"perhaps {one.runtime}, which does not tell: {why(error)}"
            else:
                if policy:
                    yield f"{one.runtime}, whose restart policy for it is {policy}"

    async def loses(self, one: Container) -> str | None:
        """What is lost when it ends, in words; None if nothing is known to be."""
        known = await self._again(one)
        if known is None or known.socket is None or known.told is None:
            return None
        try:
            ending = await known.socket.ending(known.told.id)
        except StanchError:
            return None
        return f"{one.runtime} removes it when it ends, with the files that it wrote" if ending.removes else None

    async def started_anew(self, one: Container, *, within: timedelta) -> Container | None:
        """The one that was started in place of one that was killed; None if none was for so long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within.total_seconds()
        while True:
            found = next((other for other in await self.list() if _is_in_place_of(other, one)), None)
            left = until - loop.time()
            if found is not None or left <= 0:
                return found
            await asyncio.sleep(min(left, _LOOK_AGAIN_SECONDS))

    # --- looking ---

    async def _alive(self, one: Container) -> Known:
        known = await self._again(one)
        if known is None or not known.container.state.alive:
            raise TargetGone("The container does not run", got=str(one), hint="Look again with list-containers.")
        return known

    async def _again(self, one: Container) -> Known | None:
        """The same control group first: another may bear its id by now, to be taken for it."""
        called = await self._called(one.id, only=frozenset({None, one.user}))
        same = (known for known in called if one.cgroup_number and known.is_same_run(one))
        named = (known for known in called if one.id in known.ids)
        return next(chain(same, named), None)

    async def _check_that_it_would_be_seen(self, one: Container) -> None:
        """Unavailable if it may well run: what only a runtime knows of is not gone because that is silent."""
        if one.cgroup_number or not one.state.alive:
            return
        asked = [source for source in await self._sources() if tells_of(source.name, one)]
        silent = [source.told for source in asked if isinstance(source.told, StanchError)]
        if asked and len(silent) == len(asked):
            raise Unavailable(f"Whether {one} has ended cannot be told", got=f"{one.runtime}: {why(silent[0])}")

    async def _called(self, id_: str, *, only: Collection[int | None] | None = None) -> Sequence[Known]:
        """All that bear this id; `only`: whose runtimes are asked, so that a silent one of others holds up nothing."""
        plain = plain_id(id_)
        sources, found = await asyncio.gather(self._sources(only), asyncio.to_thread(self._groups.called, plain))
        return await asyncio.to_thread(put_together, sources, found, self._groups, self._proc, only=plain)

    async def _look(self) -> Sequence[Known]:
        sources, found = await asyncio.gather(self._sources(), asyncio.to_thread(self._groups.find))
        return await asyncio.to_thread(put_together, sources, found, self._groups, self._proc)

    async def _sources(self, only: Collection[int | None] | None = None) -> Sequence[Source]:
        """Every runtime, or those of these users, asked at the same time; the machine's first."""
        turn = asyncio.Semaphore(AT_ONCE)
        until = asyncio.get_running_loop().time() + self._within.total_seconds()
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(_ask_socket(RuntimeSocket(one, root=self._owner), turn, until))
                for one in await asyncio.to_thread(sockets, self._folders)
                if only is None or one.user in only
            ]
            kubernetes = group.create_task(self._ask_crictl())
        return [*(one.result() for one in asked), kubernetes.result()]

    async def _ask_crictl(self) -> Source:
        told: Sequence[Told] | StanchError
        try:
            told = told_by(await self._crictl())
        except StanchError as error:
            told = error
        return Source("crictl", "crictl", None, None, told)


async def _to_the_end(work: Coroutine[None, None, None]) -> None:
    """Do it whole, even if the caller is cancelled meanwhile: whoever looks afterwards sees what came of it."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


async def _ask_socket(one: RuntimeSocket, turn: asyncio.Semaphore, until: float) -> Source:
    told: Sequence[Told] | StanchError
    try:
        async with asyncio.timeout_at(until), turn:
            told = await one.containers()
    except TimeoutError:
        told = TimedOut("it was not asked: the others were silent for too long")
    except StanchError as error:
        told = error
    where = one.socket
    return Source(where.runtime, str(where.path), where.user, one, told)


def _runtime(source: Source) -> Runtime:
    whose = "" if source.user is None else f" of user {source.user}"
    answers = not isinstance(source.told, StanchError)
    detail = why(source.told) if isinstance(source.told, StanchError) else f"it tells of {len(source.told)} containers"
    return Runtime(name=source.name, place=f"{source.place}{whose}"[:4000], answers=answers, detail=detail[:4000])


def _is_in_place_of(other: Container, one: Container) -> bool:
    """Was it started in place of one that was killed: the same anew, or another of the same name in the same pod?"""
    if not other.state.alive:
        return False
    if other.id == one.id:
        return one.cgroup_number == 0 or not other.is_same_run(one)
    same = one.pod and one.name and (other.pod, other.name) == (one.pod, one.name)
    return bool(same and (one.started is None or other.started is None or other.started > one.started))
