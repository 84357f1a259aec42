"""The people who are logged in on this host, and telling them something: `core.host.Users` by wall(1)."""

import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import structlog

from stanch.agent.host.inventory import MAX_SESSIONS, SESSIONS, UTMP, parse_logins, parse_session, read_bounded
from stanch.agent.host.run import run
from stanch.core.errors import StanchError, TimedOut
from stanch.core.types import seconds

MAX_TEXT = 1000
WIDTH = 76

_SESSION_TERMINAL = re.compile(r"^TTY=(.+)$", re.MULTILINE)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalUsers:
    """Those with a terminal; who works on a graphical desktop alone sees nothing of it."""

    program: str = "wall"
    utmp: Path = UTMP
    sessions: Path = SESSIONS
    within: timedelta = seconds(5)
    """A terminal that takes nothing must not hold anybody up for longer."""

    async def tell(self, text: str) -> int:
        """Show a text on every terminal; how many there are, 0 if it could not be shown. Never raises."""
        plain = sanitised(text)
        try:
            there = len(self.terminals())
            if plain and there:
                await self._wall(plain)
        except (StanchError, OSError) as error:
            log.warning("users-not-told", error=str(error))
            return 0
        return there if plain else 0

    async def _wall(self, plain: str) -> None:
        try:
            done = await run([self.program], stdin=plain.encode(), within=self.within)
        except TimedOut:
            log.warning("a terminal took no text", within=self.within.total_seconds())
            return  # the others have it by now
        if done.returncode != 0:
            raise OSError(f"wall ended with {done.returncode}: {done.stderr[:200].decode('utf-8', 'backslashreplace')}")

    def terminals(self) -> frozenset[str]:
        """The terminals on which somebody is logged in, by utmp and, where there is none, by logind."""
        lines = {line for _user, line in parse_logins(read_bounded(self.utmp))}
        # An entry such as `:0` is a graphical session, which is no terminal to write to.
        return frozenset(line for line in lines | set(self._of_sessions()) if line and not line.startswith(":"))

    def _of_sessions(self) -> Iterator[str]:
        with suppress(OSError):
            for path in islice(self.sessions.iterdir(), MAX_SESSIONS):
                text = read_bounded(path).decode("utf-8", "backslashreplace") if path.is_file() else ""
                if parse_session(text):
                    yield from _SESSION_TERMINAL.findall(text)


def sanitised(text: str) -> str:
    """At most 1,000 characters of it in lines that fit a terminal, without control characters of any kind."""
    lines = (re.sub(r"\s+", " ", "".join(map(_printable, line))).strip() for line in text[:MAX_TEXT].splitlines())
    wrapped = (textwrap.fill(line, WIDTH, break_on_hyphens=False) for line in lines)
    return "\n".join(wrapped).strip("\n")


def _printable(character: str) -> str:
    """A space in place of what moves a cursor, rings, colours or turns the direction of writing."""
    return character if character.isprintable() else " "
