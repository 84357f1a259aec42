"""systemd of this machine, where it runs: the state of our units, and stopping them. Elsewhere nothing is asked."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from stanch.agent.host.run import Finished, run
from stanch.core.errors import ActionFailed
from stanch.core.types import seconds
from stanch.disk.service_files import FILES

RUNS = Path("run/systemd/system")
"""There as long as systemd is process 1: sd_booted(3)."""

AGENT = "stanch-agent.service"
UNITS = tuple(name for name in FILES if name.endswith(".service") and "@" not in name)
"""The units that can be asked for."""

WITHIN = seconds(30)
_STATES = ("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "Result")


class Run(Protocol):
    """How programs are run: `agent.host.run.run`."""

    def __call__(self, argv: Sequence[str], *, within: timedelta, output_limit: int = ...) -> Awaitable[Finished]:
        """Run one to its end."""
        ...


UnitState = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Systemd:
    """The one below a root folder; of an image, none runs."""

    root: Path = Path("/")
    run: Run = run
    boots: Callable[[Path], bool] = Path.is_dir

    @property
    def runs(self) -> bool:
        """Is it process 1 of this machine?"""
        return self.root == Path("/") and self.boots(self.root / RUNS)

    async def units(self) -> Mapping[str, UnitState]:
        """Our units by name, as it knows them; none where it does not run. ActionFailed if it does not answer."""
        if not self.runs:
            return {}
        done = await self._ask("show", f"--property={','.join(_STATES)}", *UNITS)
        blocks = [dict(line.split("=", 1) for line in one.splitlines() if "=" in line) for one in done.split("\n\n")]
        return {one["Id"]: one for one in blocks if one.get("Id") in UNITS}

    async def stop(self) -> None:
        """Stop and disable them; nothing where it does not run."""
        if self.runs:
            known = [name for name, one in (await self.units()).items() if one.get("LoadState") != "not-found"]
            if known:
                await self._ask("disable", "--now", *known)

    async def reload(self) -> None:
        """Let it read its files again, and udev too; nothing where it does not run."""
        if self.runs:
            await self._ask("daemon-reload")
            await self.run(["udevadm", "control", "--reload"], within=WITHIN)

    async def _ask(self, *words: str) -> str:
        done = await self.run(["systemctl", "--no-pager", "--no-ask-password", *words], within=WITHIN)
        if done.returncode:
            said = done.stderr.decode("utf-8", "backslashreplace").strip()
            raise ActionFailed(f"systemctl {words[0]} failed", got=said[:500] or f"exit status {done.returncode}")
        return done.stdout.decode("utf-8", "backslashreplace")
