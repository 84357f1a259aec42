"""Puts together what runtimes tell of containers and what control groups show: each container once.

Ids are given away in the order of trust: what the machine's runtimes tell, then the groups of the machine, then what
users' runtimes tell, then the groups in the slices of users. So no user's container can take the id of another; one
that tries gets a digest of its group behind its id.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

from stanch.agent.host.container_facts import Facts
from stanch.agent.host.container_groups import Group, Groups
from stanch.agent.host.container_sockets import RuntimeSocket, Told
from stanch.core.containers import Container, ContainerState
from stanch.core.errors import StanchError

MAX_CONTAINERS = 8000
_MAX_NOTES = 20
_DIGEST = re.compile(r":[0-9a-f]{8}$")
_STATES = {"running": ContainerState.RUNNING, "paused": ContainerState.PAUSED}
_MACHINES_OWN = frozenset({None, 0})
"""What is in root's own slice is root's, too."""


@dataclass(frozen=True, slots=True)
class Source:
    """A runtime, and what it told; or why it did not."""

    name: str
    place: str
    user: int | None
    socket: RuntimeSocket | None
    told: Sequence[Told] | StanchError


@dataclass(frozen=True, slots=True)
class Known:
    """A container, and by what it can be reached."""

    container: Container
    group: Group | None = None
    socket: RuntimeSocket | None = None
    told: Told | None = None

    @property
    def ids(self) -> frozenset[str]:
        """Its id; and, if it has a group, the one by which it is told from others that say they had the same."""
        group = self.group
        return frozenset({self.container.id, *([f"{group.names.container}:{group.digest}"] if group else [])})

    def is_same_run(self, one: Container) -> bool:
        """Is it what was seen as `one`, under whichever of its ids, and not started anew since?"""
        mine = self.container
        same = plain_id(mine.id) == plain_id(one.id) and mine.user == one.user
        return same and mine.model_copy(update={"id": one.id}).is_same_run(one)

    @property
    def unit(self) -> str:
        """The unit of the machine's systemd that keeps it; empty if none is known to."""
        if self.container.user is not None:
            return ""
        return (self.told.unit if self.told else "") or (self.group.names.unit if self.group else "")


@dataclass(frozen=True, slots=True)
class _Pair:
    """One container, before it is described."""

    user: int | None
    group: Group | None = None
    source: Source | None = None
    told: Told | None = None
    sandbox: bool = False
    """Is it of a pod, and not among the containers that are told of that?"""

    @property
    def id(self) -> str:
        """As it is told or shown."""
        return self.told.id if self.told else self.group.names.container if self.group else ""

    def other_id(self) -> str:
        """An id for one that has the id of another."""
        digest = self.group.digest if self.group else sha256(f"{self.user}".encode()).hexdigest()[:8]
        return f"{self.id}:{digest}"


def plain_id(id_: str) -> str:
    """An id without the digest that tells it from another."""
    return _DIGEST.sub("", id_)


def put_together(
    sources: Iterable[Source], found: Iterable[Group], groups: Groups, proc: Path, *, only: str = ""
) -> list[Known]:
    """Every container once, described by what is known of it; blocks: ask in a thread.

    `only`: those that bear this id, digest or not.
    """
    known, facts = dict[str, Known](), Facts(proc)
    pairs = (one for one in _pairs(list(sources), sorted(found, key=_doubt)) if not only or one.id == only)
    for pair in islice(pairs, MAX_CONTAINERS):
        name = next((one for one in (pair.id, pair.other_id()) if one not in known), None)
        if name is not None:
            container = _describe(name, pair, groups, facts)
            known[name] = Known(container, pair.group, pair.source.socket if pair.source else None, pair.told)
    return list(known.values())


def _doubt(group: Group) -> tuple[bool, bool, int, bytes]:
    """The more of it, the later: a service with a tree of its own may give a group in it any name."""
    above = group.path.rpartition(b"/")[0].split(b"/")
    in_service = any(one.endswith(b".service") for one in above)
    return _user(group) is not None, in_service, len(group.path), group.path


def _user(group: Group) -> int | None:
    return None if group.names.user in _MACHINES_OWN else group.names.user


def _pairs(sources: Sequence[Source], groups: Sequence[Group]) -> Iterator[_Pair]:
    waiting: dict[tuple[int | None, str], list[Group]] = {}
    for group in groups:
        waiting.setdefault((_user(group), group.names.container), []).append(group)
    told = {(source.user, row.id): (source, row) for source in reversed(sources) for row in _rows(source)}
    in_pods = any(source.name == "crictl" and _rows(source) for source in sources)
    for of_users in (False, True):
        for (user, number), (source, row) in told.items():
            if (user is not None) is of_users:
                found = waiting.get((user, number), [])
                yield _Pair(user, found.pop(0) if found else None, source, row)
        for (user, _number), left in waiting.items():
            if (user is not None) is of_users:
                yield from (_Pair(user, group, sandbox=in_pods and _in_pod(group)) for group in left)


def _in_pod(group: Group) -> bool:
    return group.names.user is None and bool(group.names.pod) and group.names.runtime in {"containerd", "cri-o"}


def _rows(source: Source) -> Sequence[Told]:
    return () if isinstance(source.told, StanchError) else source.told


def _describe(name: str, pair: _Pair, groups: Groups, facts: Facts) -> Container:
    group, told = pair.group, pair.told
    first = group.first if group else None
    return Container(
        id=name,
        name=told.name if told else "",
        image=told.image if told else "",
        runtime=_runtime(pair),
        user=pair.user,
        state=_state(pair, groups),
        pid=first.pid if first else 0,
        cgroup=f"/{group.path.decode('utf-8', 'backslashreplace')}"[:4000] if group else "",
        cgroup_number=groups.number(group) if group else 0,
        processes=len(group.members) if group else 0,
        started=facts.began(first.started) if first else None,
        pod=(told.pod if told else "") or (group.names.pod if group else ""),
        notes=tuple(islice(_notes(name, pair, facts), _MAX_NOTES)),
    )


def _runtime(pair: _Pair) -> str:
    if pair.source is not None and pair.source.socket is not None:
        return pair.source.name
    return pair.group.names.runtime if pair.group else "containerd"


def _state(pair: _Pair, groups: Groups) -> ContainerState:
    """As the kernel has it; without a group, as it is told."""
    told = _STATES.get(pair.told.state if pair.told else "", ContainerState.STOPPED)
    if pair.group is None:
        return told
    held = groups.frozen(pair.group) or (pair.user is None and told is ContainerState.PAUSED)
    return ContainerState.PAUSED if held else ContainerState.RUNNING


def _notes(name: str, pair: _Pair, facts: Facts) -> Iterator[str]:
    if name != pair.id:
        yield "it bears the id of another container"
    if pair.user is not None:
        yield f"of user {pair.user}'s own runtime, on whose word its id, name and image are"
    if pair.sandbox:
        yield "its pod does not count it among its containers: the sandbox, as a rule, which holds the pod's network"
    if pair.group is not None:
        yield from facts.notes(pair.group.first.pid)
