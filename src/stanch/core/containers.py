"""The containers of an endpoint, by their runtime where it answers, by their control groups otherwise.

A part of `core.host`, which says what these protocols are for.
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field

from stanch.core.errors import Conflict, TargetGone, Unsupported
from stanch.core.model import Model
from stanch.core.types import MAX_PID, Instant, Text

SHORTEST_BEGINNING = 12
"""Characters of an id that are enough, if no other id begins so: as many as runtimes show."""

_MOST_LISTED = 10


class ContainerState(StrEnum):
    """How a container is."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"

    @property
    def alive(self) -> bool:
        """Does it have processes, be they held still?"""
        return self is not ContainerState.STOPPED


class Container(Model):
    """One container."""

    id: Annotated[str, Field(pattern=r"^[0-9A-Za-z_.:-]{1,220}$")]
    """The runtime's id, in full; its name, if the runtime knows no ids (lxc, nspawn). No two have the same: one that
    takes the id of another, as a user's can, has `:` and a digest of its control group after it."""

    name: Text = ""
    """Its name, where the runtime tells it."""

    image: Text = ""
    """The image that it was made from."""

    runtime: Annotated[str, Field(max_length=40)]
    """docker, podman, containerd, cri-o, lxc, nspawn, or unknown."""

    user: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """The user id whose own (rootless) runtime it belongs to, on whose word id, name and image are; null for one of
    the machine's."""

    state: ContainerState
    """How it is."""

    pid: Annotated[int, Field(ge=0, le=MAX_PID)] = 0
    """Its first process, as the endpoint sees it; 0 for none."""

    cgroup: Text = ""
    """Its control group."""

    cgroup_number: Annotated[int, Field(ge=0, le=2**64 - 1)] = 0
    """The number of that group in the kernel: a container that was started anew has another one. 0 if unknown."""

    processes: Annotated[int, Field(ge=0, le=MAX_PID)] = 0
    """How many processes it has."""

    started: Instant | None = None
    """When it began."""

    pod: Text = ""
    """The pod that it belongs to."""

    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    """What deserves a look: privileged, shares namespaces with the machine, ..."""

    def is_same_run(self, other: "Container") -> bool:
        """Are both the same container, neither of them started anew since the other was seen?"""
        numbers = {self.cgroup_number, other.cgroup_number}
        return self.id == other.id and (len(numbers) == 1 or 0 in numbers)

    def __str__(self) -> str:
        """For people: its name and the beginning of its id."""
        short = self.id[:SHORTEST_BEGINNING]
        return f"{self.name[:200]} ({self.runtime} {short})" if self.name else f"{self.runtime} {self.id}"


class Runtime(Model):
    """A way by which containers are found."""

    name: Annotated[str, Field(max_length=40)]
    """docker, podman, crictl, or control groups."""

    place: Text
    """Its socket, program or folder."""

    answers: bool
    """Does it answer?"""

    detail: Text
    """How many containers it tells of; or why it does not answer."""

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.name} at {self.place}: {self.detail}"


def tells_of(runtime: str, one: Container) -> bool:
    """Is it this way (by its name) that would tell of this container?"""
    return runtime == one.runtime or (runtime == "crictl" and one.runtime in {"containerd", "cri-o"})


def choose(containers: Sequence[Container], name: str) -> Container | None:
    """By id, name, or the beginning of an id; None if none fits, Conflict if several fit equally well.

    A whole id goes before a name, and a name is worth no more than the beginning of an id, so that no container can
    hide another by its name: a user's may be called as people call one of the machine's.
    """
    whole = [one for one in containers if one.id == name]
    found = whole or [one for one in containers if name and (one.name == name or _begins(one, name))]
    if len(found) > 1:
        raise Conflict(
            f"Several containers are called {name[:200]}",
            got="; ".join(f"{one.runtime} {one.id}{_of_user(one)}" for one in found[:_MOST_LISTED]),
            expected="the name of one",
            hint="Give the whole id.",
        )
    return found[0] if found else None


def _begins(one: Container, name: str) -> bool:
    return len(name) >= SHORTEST_BEGINNING and one.id.startswith(name)


def _of_user(one: Container) -> str:
    return "" if one.user is None else f" of user {one.user}"


class Containers(Protocol):
    """The containers of this machine."""

    async def list(self) -> Sequence[Container]:
        """All of them; those that do not run as far as their runtime tells."""
        ...

    async def runtimes(self) -> Sequence[Runtime]:
        """By which ways containers are found here, and why not by the others."""
        ...

    async def find(self, name: str) -> Container | None:
        """See `choose`: by id, unambiguous beginning of one (12 characters at least), or name."""
        ...

    async def why_protected(self, one: Container) -> str | None:
        """Why it must not be touched (Stanch runs in it), or None."""
        ...

    async def pause(self, one: Container) -> None:
        """Hold all its processes still, and see that they are; repeating it changes nothing.

        TargetGone if it does not run, Unsupported if there is no way to, ActionFailed if it did not work.
        """
        ...

    async def resume(self, one: Container) -> None:
        """Let them go on; repeating it changes nothing. Errors as for `pause`."""
        ...

    async def kill(self, one: Container) -> None:
        """End all its processes and see them gone; repeating it changes nothing, not even one that was started anew.

        Its runtime may start it anew: see `restarts`. ActionFailed if some did not end.
        """
        ...

    async def restarts(self, one: Container) -> str | None:
        """Who would start it anew after it was killed, in words; None if nobody is known to."""
        ...

    async def loses(self, one: Container) -> str | None:
        """What is lost when it ends, in words; None if nothing is known to be."""
        ...

    async def started_anew(self, one: Container, *, within: timedelta) -> Container | None:
        """The one that was started in place of one that was killed; None if none was for so long."""
        ...


async def chosen(containers: Containers, name: str) -> Container:
    """The container that is meant; see `choose`.

    TargetGone if there is none such; Unsupported, with all that was tried, if no runtime answers and no control group
    is a container.
    """
    found = await containers.find(name)
    if found is not None:
        return found
    runtimes = await containers.runtimes()
    if any(one.answers for one in runtimes) or await containers.list():
        raise TargetGone(
            f"There is no container {name[:200]}",
            expected="an id, 12 characters or more of its beginning, or a name",
            hint="Look again with list-containers --all.",
        )
    raise Unsupported(
        "No runtime of containers answers here, and no control group is a container",
        got="; ".join(map(str, runtimes))[:3000],
        hint="Start Docker or Podman, or name the processes: kill-process, suspend-process.",
    )
