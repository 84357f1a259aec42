"""List the containers of an endpoint."""

from itertools import accumulate
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.containers import Container, Runtime
from stanch.core.host import Host
from stanch.core.types import Text, minutes

MAX_ROWS = 10_000
MAX_RUNTIMES = 500
MAX_BYTES = 3 * 1_048_576
"""Of all rows in JSON: a report must fit a frame of the link."""


class ListContainers(Params):
    """Which containers to list."""

    all: bool = False
    """Those that do not run, too."""

    match: Text = ""
    """Only containers whose id, name, image, pod, control group or notes contain this; empty for all."""


class ContainerTable(Result):
    """The containers, those that run first."""

    total: Annotated[int, Field(ge=0, le=2**31)]
    """How many containers the endpoint has, those that do not run included."""

    containers: Annotated[tuple[Container, ...], Field(max_length=MAX_ROWS)]
    """One row for each."""

    cut: bool = False
    """The table was too large to be sent whole; `--match` narrows it."""

    runtimes: Annotated[tuple[Runtime, ...], Field(max_length=MAX_RUNTIMES)] = ()
    """By which ways containers are found here, and why not by the others."""


@action(
    "list_containers",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    time_limit=minutes(2),
    examples=("web-01 --wait", "--label env=prod --all --match nginx --wait --json"),
)
async def list_containers(host: Host, params: ListContainers) -> ContainerTable:
    """List the containers of an endpoint, by their runtimes and by their control groups.

    Docker, Podman (users' own included) and what crictl speaks to are asked; what no runtime tells of, such as lxc and
    nspawn, is found by the control groups of its processes. The notes say what deserves a look: privileged containers,
    and those that share namespaces or files with the machine.
    """
    everything = tuple(await host.containers.list())
    wanted = [one for one in everything if (params.all or one.state.alive) and _contains(one, params.match.lower())]
    rows = _as_many_as_fit(wanted)
    return ContainerTable(
        total=len(everything),
        containers=rows,
        cut=len(rows) < len(wanted),
        runtimes=tuple(await host.containers.runtimes())[:MAX_RUNTIMES],
    )


def _contains(one: Container, text: str) -> bool:
    return any(text in field.lower() for field in (one.id, one.name, one.image, one.pod, one.cgroup, *one.notes))


def _as_many_as_fit(containers: list[Container]) -> tuple[Container, ...]:
    sizes = accumulate(len(one.model_dump_json().encode()) + 1 for one in containers)
    return tuple(one for one, size in zip(containers[:MAX_ROWS], sizes, strict=False) if size <= MAX_BYTES)
