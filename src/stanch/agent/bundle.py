"""`stanch agent support-bundle`: one archive of what a developer needs to see, and of nothing that is secret.

Each part stands alone: what cannot be read is told in its place. All of it is bounded, made in memory, and written as
one file that only its owner may read.
"""

import gzip
import hashlib
import io
import json
import platform
import sys
import tarfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from stanch import __version__
from stanch.agent.bundle_machine import disk_use, log_tail, tables
from stanch.agent.bundle_secrets import LEFT_OUT, Secrets, secrets_of, told_policy
from stanch.agent.host.clock import wall_clock
from stanch.agent.host.inventory import capabilities, read_inventory
from stanch.agent.host.run import run
from stanch.agent.host.vault_items import Items, Record
from stanch.agent.identity import Identity
from stanch.agent.local_policy import MAX_FILE_BYTES, LocalPolicy
from stanch.agent.lock_holder import agent_pid
from stanch.agent.selftest import selftest
from stanch.agent.selftest_probe import Bench
from stanch.agent.systemd import Run, Systemd
from stanch.core.errors import Conflict, NotFound, StanchError
from stanch.core.model import Model
from stanch.core.types import Sha256, Size, Text
from stanch.disk.atomic import atomic_write

MAX_PART = 8 * 1_048_576
"""Bytes of one part; the rest is cut off."""

MAX_NAMES = 10_000
MAX_PACKAGES = 2000

README = f"""\
A support bundle of Stanch's agent. Look through it before you send it to anybody.

In it: versions, the self-test, the inventory of the machine, how the agent is, its lasting effects (without their
private parts), its tasks (id, action, state, times, code of the error), how much waits for the server, the local
policy, what systemd says of our units, the end of the agent's log, our own tables of nftables, how much room the state
folder takes, how many items are in the vault, and the Python packages. Names of accounts, addresses of the network and
paths on this machine come up in it.

Not in it: keys, certificates, passwords of proxies, what recognises release codes, the parameters, results and records
of tasks, evidence, anything from the vault but its counts (names too, with --with-names), and the journal itself.
What was taken out of a text reads {LEFT_OUT}.

manifest.json lists every file with its SHA-256, and what could not be read.
"""


class Part(Model):
    """One file of the archive."""

    name: Text
    """Its name in the archive."""
    size: Size
    """Bytes."""
    sha256: Sha256
    """Of its bytes."""


class Manifest(Model):
    """What is in the archive."""

    version: Text
    """Of Stanch."""
    made: Text
    """When, by this machine's clock."""
    files: tuple[Part, ...]
    """All but this one."""
    missing: Mapping[str, str]
    """What could not be read, and why."""


Status = Callable[[], Mapping[str, Any] | None]
"""What the running agent says of itself; None if none runs."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What to look at."""

    bench: Bench
    status: Status
    with_names: bool = False
    run: Run = run
    missing: dict[str, str] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)

    async def collect(self) -> tuple[bytes, Manifest]:
        """The archive and what is in it."""
        makers: Mapping[str, Callable[[], Awaitable[object]]] = {
            "versions.json": self._in_thread(_versions),
            "selftest.json": self._selftest,
            "inventory.json": self._in_thread(self._inventory),
            "agent.json": self._in_thread(self._agent),
            "effects.json": self._in_thread(self._effects),
            "tasks.json": self._in_thread(lambda: [one.model_dump(mode="json") for one in self.bench.journal.tasks]),
            "spool.json": self._in_thread(lambda: [one.model_dump(mode="json") for one in self.bench.journal.spool]),
            "local-policy.toml": self._in_thread(self._policy),
            "units.json": self._units,
            "agent.log": lambda: log_tail(self.run),
            "nftables.txt": lambda: tables(self.run),
            "disk.json": self._in_thread(lambda: disk_use(self.bench.settings.state)),
            "vault.json": self._in_thread(self._vault),
            "packages.txt": self._in_thread(_packages),
        }
        self.parts["README.txt"] = README.encode()
        for name, make in makers.items():
            await self._add(name, make)
        return self._packed()

    # --- parts -------------------------------------------------------------------------------------------------------

    async def _add(self, name: str, make: Callable[[], Awaitable[object]]) -> None:
        try:
            made = await make()
        except Exception as error:  # noqa: BLE001 - what is broken here is why somebody wants a bundle
            why = str(error) or type(error).__name__
            self.missing[name] = self._clean(why.encode("utf-8", "replace")).decode("utf-8", "replace")[:1000]
            return
        text = made if isinstance(made, str) else json.dumps(made, indent=2, default=str) + "\n"
        self.parts[name] = self._clean(text.encode("utf-8", "surrogateescape"))[-MAX_PART:]

    def _in_thread(self, make: Callable[[], object]) -> Callable[[], Awaitable[object]]:
        return lambda: self.bench.in_thread(make)

    def _clean(self, data: bytes) -> bytes:
        return self._secrets().out_of(data)

    def _secrets(self) -> Secrets:
        private: list[Mapping[str, Any]] = []
        with suppress(StanchError):
            private = [one.effect.private for one in self.bench.journal.effects.values()]
        return secrets_of(self.bench.settings, private)

    async def _selftest(self) -> object:
        return (await selftest(self.bench)).model_dump(mode="json")

    def _inventory(self) -> object:
        name = ""
        with suppress(StanchError):
            name = Identity.load(self.bench.settings.state).endpoint
        return {**read_inventory(identity=name).model_dump(mode="json"), "capabilities": capabilities()}

    def _agent(self) -> object:
        said = self.status()
        pid = agent_pid(self.bench.settings.state)
        return {"supervisor": pid, "answers": said is not None, "status": said}

    def _effects(self) -> object:
        journal = self.bench.journal
        effects = [one.effect.model_dump(mode="json", exclude={"private"}) for one in journal.effects.values()]
        return {"effects": effects, "unread": journal.unread, "damage": journal.damage}

    def _policy(self) -> str:
        config = self.bench.settings.config
        with config.open("rb") as file:
            text = file.read(MAX_FILE_BYTES).decode("utf-8", "surrogateescape")
        broken = LocalPolicy(config).broken
        head = "" if broken is None else "# It is not valid, so every order is refused.\n"
        return head + told_policy(text, self._secrets())

    async def _units(self) -> object:
        there = Systemd(root=self.bench.root, run=self.run)
        return {"systemd": there.runs, "units": await there.units()}

    def _vault(self) -> object:
        settings = self.bench.settings
        items = Items(LocalPolicy(settings.config).vault_folder(settings.vault))
        found = [one.item if isinstance(one, Record) else one for one in items.every()]
        counts: dict[str, int] = {}
        for one in found:
            counts[one.why] = counts.get(one.why, 0) + 1
        told = {"items": len(found), "bytes": items.used(), "why": counts, "damaged": sum(map(_damaged, found))}
        names = [{"id": one.id, "path": one.path} for one in found[:MAX_NAMES]]
        return {**told, "names": names} if self.with_names else told

    # --- the archive -------------------------------------------------------------------------------------------------

    def _packed(self) -> tuple[bytes, Manifest]:
        files = tuple(
            Part(name=name, size=Size(len(data)), sha256=hashlib.sha256(data).hexdigest())
            for name, data in self.parts.items()
        )
        made = f"{wall_clock():%Y-%m-%dT%H:%M:%SZ}"
        manifest = Manifest(version=__version__, made=made, files=files, missing=dict(self.missing))
        everything = {"manifest.json": manifest.model_dump_json(indent=2).encode(), **self.parts}
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
            for name, data in everything.items():
                archive.addfile(_entry(name, len(data)), io.BytesIO(data))
        return packed.getvalue(), manifest


def _damaged(one: Any) -> bool:
    return one.damage is not None


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"stanch-support/{name}")
    entry.size, entry.mode, entry.mtime = size, 0o600, int(wall_clock().timestamp())
    return entry


def _versions() -> object:
    system = platform.uname()
    return {
        "stanch": __version__,
        "python": sys.version,
        "executable": sys.executable,
        "kernel": f"{system.system} {system.release} {system.version}",
        "machine": system.machine,
    }


def _packages() -> str:
    return "".join(sorted(islice(_installed(), MAX_PACKAGES)))


def _installed() -> Iterator[str]:
    for one in metadata.distributions():
        yield f"{one.metadata['Name']} {one.version}\n"


def usual_name(folder: Path) -> Path:
    """A new name."""
    return folder / f"stanch-support-{wall_clock():%Y%m%d-%H%M%S}.tar.gz"


def refuse(path: Path) -> None:
    """Conflict if something is there; NotFound if there is no such folder."""
    if path.exists() or path.is_symlink():
        raise Conflict("Something is there already", got=path, expected="a new name", hint="Choose another --output.")
    if not path.parent.is_dir():
        raise NotFound("There is no such folder", got=path.parent, hint="Make it, or choose another --output.")


def write(path: Path, archive: bytes) -> None:
    """Put it on the disk, mode 0600; like `refuse`."""
    refuse(path)
    atomic_write(path, archive, mode=0o600)
