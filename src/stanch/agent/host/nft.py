"""nft, the program that speaks to the kernel's nftables: transactions in, listings out.

One `nft -j -i` stays and reads a transaction a line from its pipe: twenty times faster than a program for each. Its
answer is over when it has described a type that we ask for after each command. Whenever the child misbehaves it is
killed and the same command goes to an `nft` of its own, so every command must be safe to repeat; a new child starts
with the next command. libnftables is not used in this process: it is GPL-2, and a crash of it would be ours.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import structlog

from stanch.agent.host.run import Child, run
from stanch.agent.host.tablespec import Family
from stanch.core.errors import ActionFailed, Invalid, StanchError, TimedOut, Unavailable, Unsupported
from stanch.core.types import seconds

Listing = dict[str, Any]

OUTPUT_LIMIT = 32 * 1_048_576
"""A listing of the largest rules that we write is below 4 MiB; a complaint repeats the whole transaction."""

_MARK_COMMAND = b"describe ipv4_addr\n"
_MARK_ANSWER = b"datatype ipv4_addr"
_PIDS_KEPT = 8
_COMPLAINT = "Error:"
_ABSENT = "No such file or directory"

log = structlog.get_logger(__name__)


class Nft:
    """Transactions, one at a time. Close it, or its child stays until this process ends."""

    def __init__(self, *, within: timedelta = seconds(20), keep_child: bool = True) -> None:
        self._within = within
        self._keep_child = keep_child
        self._child: Child | None = None
        self._turn = asyncio.Lock()
        self.pids: deque[int] = deque(maxlen=_PIDS_KEPT)
        """The last programs that were started: the kernel tells who changed a table by these numbers."""

    async def apply(self, text: str) -> None:
        """Run statements as one transaction, which must be safe to repeat.

        Raises Unsupported if nft is missing or the kernel cannot do it, ActionFailed with nft's words otherwise.
        """
        _raise_complaint(await self._command(text, without_child=lambda: self._program(stdin=text)))

    async def check(self, text: str) -> None:
        """Like `apply`, but nothing is changed."""
        _raise_complaint(await self._program("-c", stdin=text))

    async def table(self, family: Family, name: str) -> Listing | None:
        """The kernel's listing of a table, in nft's JSON; None if there is no such table."""
        return (await self.tables((family, name)))[0]

    async def tables(self, *wanted: tuple[Family, str]) -> list[Listing | None]:
        """The same for several tables, asked for at once."""
        commands = [("list", "table", family, name) for family, name in wanted]

        async def without_child() -> str:
            return "\n".join([await self._program("-j", *command) for command in commands])

        answer = await self._command(*(" ".join(command) for command in commands), without_child=without_child)
        _raise_complaint(answer, but=_ABSENT)
        found = {_key(listing): listing for listing in map(_parse_listing, _listings(answer))}
        return [found.get(key) for key in wanted]

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            await self._end_child()

    # --- commands, by the child or without it ------------------------------------------------------------------------

    async def _command(self, *texts: str, without_child: Callable[[], Awaitable[str]]) -> str:
        if not self._keep_child:
            return await without_child()
        async with self._turn:
            try:
                return await self._ask_child([" ".join(text.split()) for text in texts])
            except (Unavailable, TimedOut, ActionFailed) as error:
                log.warning("nft-child-misbehaved", error=str(error))
                await self._end_child()
            except BaseException:
                await self._end_child()
                raise
            return await without_child()

    async def _ask_child(self, lines: Sequence[str]) -> str:
        if self._child is None or not self._child.alive:
            self._child = await Child.start(["nft", "-j", "-i"], output_limit=OUTPUT_LIMIT)
            self.pids.append(self._child.pid)
        request = "".join(f"{line}\n" for line in lines).encode() + _MARK_COMMAND
        answer = await self._child.ask(request, until=_MARK_ANSWER, within=self._within)
        return answer.decode("utf-8", "backslashreplace")

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()

    async def _program(self, *arguments: str, stdin: str = "") -> str:
        # Never -j with statements: nft 1.0.6 then takes a text on its standard input for an empty one, and succeeds.
        done = await run(
            ["nft", *arguments, *(["-f", "-"] if stdin else [])],
            stdin=stdin.encode(),
            within=self._within,
            output_limit=OUTPUT_LIMIT,
            started=self.pids.append,
        )
        said = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
        return said if done.returncode == 0 or _COMPLAINT in said else f"{_COMPLAINT} status {done.returncode}: {said}"


def _raise_complaint(answer: str, *, but: str | None = None) -> None:
    for line in answer.splitlines():
        if _COMPLAINT in line and not line.startswith("{") and not (but and but in line):
            raise _error(line.partition(_COMPLAINT)[2].strip()[:500])


def _error(words: str) -> StanchError:
    if "Operation not permitted" in words:
        return Unsupported(
            "Not allowed to change the firewall", got=words, hint="Run the agent as root, with CAP_NET_ADMIN."
        )
    if "JSON support" in words:
        return Unsupported(
            "This nft cannot tell what is in force", got=words, hint="Install nftables 1.0 or later, built with JSON."
        )
    if "not supported" in words:
        return Unsupported(
            "This kernel cannot do what the firewall needs",
            got=words,
            hint="Linux 5.16 or later with CONFIG_NF_TABLES_INET and CONFIG_NF_TABLES_NETDEV can.",
        )
    return ActionFailed("nft refused the transaction; nothing was changed", got=words)


def _listings(answer: str) -> list[str]:
    return [line for line in answer.splitlines() if line.startswith("{")]


def _parse_listing(line: str) -> Listing:
    try:
        listing = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Invalid("nft listed a table in an unknown way", got=error, expected="its JSON") from None
    if not isinstance(listing, dict):
        raise Invalid("nft listed a table in an unknown way", got=type(listing).__name__, expected="an object")
    return listing


def _key(listing: Listing) -> tuple[str, str]:
    """Which table it is: family and name."""
    try:
        (table,) = (item["table"] for item in listing["nftables"] if "table" in item)
        return str(table["family"]), str(table["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid("nft listed a table in an unknown way", got=error, expected="one table") from None
