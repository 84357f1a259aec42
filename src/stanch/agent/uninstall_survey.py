"""What `stanch agent uninstall` finds: what is in force, what is ours on this machine, and what is not."""

import asyncio
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stanch.agent.host import blocks, ruleset
from stanch.agent.host.clock import boot_id
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.pen import Groups, usual_groups
from stanch.agent.host.procfs import read_stat
from stanch.agent.host.run import run
from stanch.agent.host.vault_items import Items
from stanch.agent.identity import IDENTITY_FILE, MAX_IDENTITY_BYTES, Binding, Identity, check_private
from stanch.agent.journal_reading import Journalled, TaskLine, read_journal
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.lock_holder import agent_pid
from stanch.agent.marker import MARK, is_marked
from stanch.agent.settings import Settings
from stanch.agent.supervisor import LOCK_FILE
from stanch.agent.systemd import AGENT, Systemd, UnitState
from stanch.agent.tasks import Phase
from stanch.core.errors import Invalid, NotFound, StanchError, Unsupported, VerificationFailed
from stanch.core.host import Effect
from stanch.core.network import IsolationState
from stanch.core.types import seconds
from stanch.disk import service_files
from stanch.disk.service_files import HEAD

OURS = re.compile(
    r"credentials-[0-9A-Za-z_-]{1,200}\.pem|addresses\.json|isolated|programs|scans|selftest-[0-9]{1,10}-[0-9a-f]{8}"
    r"|\.stanch-[0-9a-f]{16}|journal\.db(-wal|-shm|\.damaged-[0-9]{1,10})?|identity\.json"
    r"|journal-before-[0-9A-Za-z_-]{1,64}\.db(-wal|-shm)?"
)
"""Names in the state folder that the agent makes. What is called otherwise stays."""

_WANTED = tuple(str(service_files.UNITS / Path(one).parent) for one in service_files.LINKS)
TABLES = tuple(f"{name}{end}" for name in (ruleset.TABLE, blocks.TABLE) for end in ("", "_bridge"))
_TABLE = re.compile(r"table (inet|netdev) (\w+)")
_GENERATIONS = 8
"""Between what systemd started and the supervisor: a wrapper, a shell."""
_UNREADABLE = "what is in force cannot be read"


class Kernel(Protocol):
    """Our tables in the kernel's firewall."""

    async def in_force(self) -> Sequence[str]:
        """What they enforce now, in words."""
        ...

    async def tables(self) -> Sequence[str]:
        """Those of ours that are there, by family and name."""
        ...

    async def remove(self) -> None:
        """Remove them."""
        ...


class OwnTables:
    """Those of one network namespace, which is checked before each change."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    async def in_force(self) -> Sequence[str]:
        """See the protocol."""
        if not await self.tables():
            return ()
        firewall = NftFirewall(self._namespace)
        try:
            isolation = await firewall.isolation()
            cut = [] if isolation.state is IsolationState.RELEASED else ["network isolation"]
            return (*cut, *await _blocked(firewall))
        finally:
            await firewall.close()

    async def tables(self) -> Sequence[str]:
        """See the protocol; none where nft is not installed."""
        self._namespace.check()
        try:
            done = await run(["nft", "list", "tables"], within=seconds(20))
        except Unsupported:
            return ()
        found = _TABLE.findall(done.stdout.decode("utf-8", "backslashreplace"))
        return tuple(f"{family} {name}" for family, name in found if name in TABLES)

    async def remove(self) -> None:
        """See the protocol."""
        if not await self.tables():
            return
        firewall = NftFirewall(self._namespace)
        try:
            await firewall.lift()
            await firewall.block((), servers=())
        finally:
            await firewall.close()


async def _blocked(firewall: NftFirewall) -> Sequence[str]:
    try:
        count = len(await firewall.blocks())
    except Invalid:
        return (f"blocks: {_UNREADABLE}",)
    return (f"{count} blocked networks",) if count else ()


class NoKernel:
    """Of an image: nothing is in force."""

    async def in_force(self) -> Sequence[str]:
        """Nothing."""
        return ()

    async def tables(self) -> Sequence[str]:
        """None."""
        return ()

    async def remove(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the agent is."""

    settings: Settings
    root: Path = Path("/")
    systemd: Systemd = field(default_factory=Systemd)
    kernel: Kernel = field(default_factory=NoKernel)
    groups: Callable[[], Groups | None] = lambda: None
    """Where a killed agent may have left processes that it held still."""

    @classmethod
    def of(cls, settings: Settings, root: Path) -> "Places":
        """Of this machine, or of an image below a root folder, where nothing runs."""
        if root != Path("/"):
            return cls(settings=settings, root=root, systemd=Systemd(root=root))
        return cls(settings=settings, kernel=OwnTables(Namespace.current("net")), groups=usual_groups)

    @property
    def vaults(self) -> tuple[Path, ...]:
        """Where the vault is; and its usual place, where items stay when the owner moves it."""
        settings = self.settings
        there = LocalPolicy(settings.config).vault_folder(settings.vault)
        if self.root != Path("/") and settings.config.is_relative_to(self.root) and there != settings.vault:
            there = self.root / there.relative_to("/")  # what an image says is meant inside of it
        return tuple(dict.fromkeys((there, settings.vault)))

    def check_inside(self) -> None:
        """VerificationFailed if a link of an image may lead out of it: what it leads to is this machine's."""
        if self.root == Path("/"):
            return
        places = (self.settings.config, self.settings.state, self.settings.socket, *self.vaults)
        units = (self.root / one for one in (*service_files.FILES.values(), *map(Path, _WANTED)))
        for place in (*places, *(one / "file" for one in units)):
            if place.is_relative_to(self.root):
                self._check_way(place)

    def _check_way(self, place: Path) -> None:
        way = self.root
        for part in place.relative_to(self.root).parts[:-1]:
            way /= part
            if part == ".." or way.is_symlink():
                raise VerificationFailed(
                    "A link in the image may lead out of it",
                    got=way,
                    expected="folders only",
                    hint="Run it inside of the image: chroot, or nsenter for a container.",
                )


def root_of(folder: Path) -> Path:
    """`/` itself, whatever it is called, or the folder of an image; NotFound if there is none."""
    try:
        same = folder.samefile("/")
    except OSError as error:
        hint = "--root names the folder of an image."
        raise NotFound("There is no such folder", got=f"{folder}: {error.strerror}", hint=hint) from None
    return Path("/") if same else folder.absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is there."""

    endpoint: str | None
    """None if it is not enrolled, or the identity cannot be read."""
    pid: int | None
    """Of a supervisor that holds the state folder."""
    managed: bool
    """Does systemd run it?"""
    elsewhere: int | None
    """The process by which systemd runs an agent of another state folder; None if it does not."""
    effects: tuple[Effect, ...]
    kernel: tuple[str, ...]
    """What our tables enforce."""
    unsure: str | None
    """Why nobody can tell what is in force; None if it is known."""
    begun: tuple[TaskLine, ...]
    """Tasks that have begun and have no end: what they have touched is known by the journal alone."""
    waiting: int
    """Messages that the server has not got."""
    tables: tuple[str, ...]
    units: tuple[Path, ...]
    """Files and links of ours for systemd and udev."""
    foreign: tuple[Path, ...]
    """Of a package, or of the owner."""
    sockets: tuple[Path, ...]
    state: tuple[Path, ...]
    """What of the state folder is ours, in the order in which it goes."""
    others: tuple[Path, ...]
    """What is in the state folder besides."""
    damaged: tuple[Path, ...]
    """Journals that the agent has moved aside."""
    vaults: tuple[tuple[Path, int], ...]
    """Where the vault is or was, and how many items are in each place."""
    lost_vault: str | None
    """Why nobody can tell where the vault is; None if it is known."""

    @property
    def nothing(self) -> bool:
        """Is there nothing of the agent's to remove?"""
        return not (self.pid or self.tables or self.units or self.sockets or self.state or self.effects)

    @property
    def items(self) -> int:
        """How many are in the vault."""
        return sum(count for _folder, count in self.vaults)


async def survey(places: Places) -> Survey:
    """What is there now.

    VerificationFailed if the state folder is none that the agent could have made, or if its agent is bound to other
    namespaces: the tables here are not its own then.
    """
    settings = places.settings
    await asyncio.to_thread(_check_ours, places)
    pid = await asyncio.to_thread(agent_pid, settings.state)
    unit = (await places.systemd.units()).get(AGENT, {})
    managed, elsewhere = _managed(unit, pid)
    journalled, unsure = _journalled(settings)
    files, foreign = _unit_files(places.root)
    return Survey(
        endpoint=_endpoint(settings.state),
        pid=pid,
        managed=managed,
        elsewhere=elsewhere,
        effects=tuple(one.effect for one in journalled.effects.values()) if journalled else (),
        kernel=tuple(await places.kernel.in_force()),
        unsure=unsure,
        begun=tuple(one for one in journalled.tasks if one.phase == Phase.BEGUN) if journalled else (),
        waiting=sum(one.entries for one in journalled.spool) if journalled else 0,
        tables=tuple(await places.kernel.tables()),
        units=files,
        foreign=foreign,
        sockets=tuple(filter(_is_socket, (settings.socket, settings.code_socket))),
        state=_of_state(settings.state),
        others=_others(settings),
        damaged=tuple(sorted(settings.state.glob(f"{settings.journal.name}.damaged-*"))),
        vaults=tuple([(one, await asyncio.to_thread(_count, one)) for one in places.vaults]),
        lost_vault=LocalPolicy(settings.config).broken,
    )


def _managed(unit: UnitState, pid: int | None) -> tuple[bool, int | None]:
    """Does systemd run this agent, and by which process does it run another one?"""
    if unit.get("ActiveState") not in {"active", "activating", "reloading"}:
        return False, None
    main = unit.get("MainPID", "0")
    if main == "0" or not main.isdecimal() or (pid is not None and _descends(pid, int(main))):
        return True, None
    return False, int(main)


def _descends(pid: int, from_: int) -> bool:
    for _generation in range(_GENERATIONS):
        if pid == from_:
            return True
        stat_ = read_stat(pid)
        if stat_ is None:
            return False
        pid = stat_.parent
    return False


def _check_ours(places: Places) -> None:
    places.check_inside()
    state = places.settings.state
    if os.path.lexists(state):
        check_private(state)
    try:
        identity = Identity.load(state)
    except (NotFound, VerificationFailed):
        return  # of what is left of it, nobody can tell
    if places.root == Path("/"):
        identity.binding.check(Binding.here(boot_id()))


def _endpoint(state: Path) -> str | None:
    """Be it that its credentials are gone already."""
    with suppress(OSError, ValueError, KeyError, TypeError), (state / IDENTITY_FILE).open("rb") as file:
        name = json.loads(file.read(MAX_IDENTITY_BYTES))["endpoint"]
        return name if re.fullmatch(r"[0-9A-Za-z_-]{1,64}", name) else None
    return None


def _journalled(settings: Settings) -> tuple[Journalled | None, str | None]:
    """What the journal says, and why nobody can tell what is in force."""
    try:
        found = read_journal(settings.journal)
    except NotFound:
        lost = "the journal is gone, and the mark of an isolation is there" if is_marked(settings.state) else None
        return None, lost
    except StanchError as error:
        return None, f"{error.message} ({error.got})"
    unsure = f"effects of another version: {', '.join(found.unread)[:500]}" if found.unread else None
    return found, unsure


def _unit_files(root: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Ours, with the links that enable them; and those of others, which stay."""
    names = [root / folder / name for name, folder in service_files.FILES.items()]
    there = [path for path in names if os.path.lexists(path)]
    ours = [path for path in there if _begins(path)]
    links = [one for one in service_files.links(root) if one.is_symlink() and ours]
    dropins = [path.with_name(f"{path.name}.d") for path in names]
    others = [*(one for one in there if one not in ours), *filter(Path.exists, dropins)]
    return (*links, *ours), (*others, *service_files.packaged(root))


def _begins(path: Path) -> bool:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(len(HEAD)) == HEAD.encode()
    except OSError:
        return False


def _is_socket(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(path.lstat().st_mode)
    return False


def _entries(state: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from sorted(state.iterdir())


def _of_state(state: Path) -> tuple[Path, ...]:
    """The journal after what is of no use without it, the identity last: it names the endpoint."""
    found = [one for one in _entries(state) if OURS.fullmatch(one.name)]
    return tuple(sorted(found, key=lambda one: (one.name == IDENTITY_FILE, one.name.startswith("journal.db"))))


def _others(settings: Settings) -> tuple[Path, ...]:
    known = {settings.vault.name, settings.vault_key.name, LOCK_FILE, MARK}
    return tuple(one for one in _entries(settings.state) if one.name not in known and not OURS.fullmatch(one.name))


def _count(vault: Path) -> int:
    items = Items(vault)
    return len(items.ids()) + len(items.orphans())


def package_command(root: Path) -> str:
    """What removes the program itself."""
    if service_files.packaged(root):
        return "apt-get remove stanch" if (root / "usr/bin/dpkg").exists() else "dnf remove stanch"
    return f"{sys.executable} -m pip uninstall stanch"
