"""Count the processes of an endpoint, by user: the example of docs/guide/add-an-action.md, in one file."""

from collections import Counter
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.types import Text, seconds

MAX_USERS = 10_000

Number = Annotated[int, Field(ge=0, le=4_194_304)]


class CountProcesses(Params):
    """Whose processes to count."""

    user: Text = ""
    """Only this account; empty for all."""

    at_least: Annotated[int, Field(ge=1, le=4_194_304)] = 1
    """Leave out accounts that have fewer processes than this."""


class UserCount(Model):
    """How many processes one account has."""

    user: Text
    """Account name."""

    processes: Number
    """Processes that run under it."""


class ProcessCount(Result):
    """The processes, counted."""

    total: Number
    """Processes of the whole endpoint."""

    users: Annotated[tuple[UserCount, ...], Field(max_length=MAX_USERS)]
    """Accounts with their processes, the busiest one first."""


@action(
    "count_processes",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    time_limit=seconds(30),
    examples=("web-01 --wait", "--label env=prod --user www-data --at-least 100 --wait --json"),
)
async def count_processes(host: Host, params: CountProcesses) -> ProcessCount:
    """Count the processes of an endpoint by user.

    A quick look at many machines at once: an account that suddenly has hundreds of processes stands out.
    """
    processes = await host.processes.list()
    counted = Counter(one.user for one in processes if params.user in {"", one.user})
    users = [UserCount(user=user, processes=n) for user, n in counted.most_common(MAX_USERS) if n >= params.at_least]
    return ProcessCount(total=len(processes), users=tuple(users))
