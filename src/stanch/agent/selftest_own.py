"""Does the agent have what is its own: identity, folder, journal, time, keys, a way to its server, local policy?"""

import asyncio
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from stanch import actions
from stanch.agent.certificates import validity
from stanch.agent.host.clock import boot_id
from stanch.agent.host.inventory import capabilities
from stanch.agent.identity import Binding, Identity, check_private
from stanch.agent.link import Link
from stanch.agent.local_policy import LocalPolicy, read
from stanch.agent.lock_holder import agent_pid
from stanch.agent.proxy import configured_proxy
from stanch.agent.resolve import AddressBook
from stanch.agent.selftest_probe import Bench, Finding, Probe, failed, limited, ok, skipped
from stanch.core.frames import Notice, Report
from stanch.core.types import minutes, seconds
from stanch.disk.atomic import atomic_write

LEAST_FREE = 256 * 1_048_576
"""Bytes below which the agent soon cannot keep what it has to."""

CONFIRM_WITHIN = seconds(12)
_OFF = minutes(5)
_SOON = timedelta(days=3)
_ENROL = "Enrol it: stanch agent enroll --server URL --token TOKEN --ca-pin SHA256"


# --- account, identity -----------------------------------------------------------------------------------------------


async def account(_bench: Bench) -> Finding:
    """May this process do what the agent does?"""
    said = capabilities()["root"]
    return ok("root") if said == "yes" else limited(said, "Run it again as root, with sudo: the agent runs as root.")


async def identity(bench: Bench) -> Finding:
    """Is the endpoint enrolled, may it act here, and how long is its certificate good?"""
    state = bench.settings.state
    mine = Identity.load(state)
    mine.binding.check(Binding.here(boot_id()))
    mine.tls(state)
    start, end = validity(mine.credentials(state).read_bytes())
    return _valid(mine.endpoint, start, end, bench.now())


def _valid(endpoint: str, start: datetime, end: datetime, now: datetime) -> Finding:
    seen = f"{endpoint}, certificate valid until {end:%Y-%m-%d}"
    if now < start:
        return failed(f"{endpoint}, certificate not valid before {start:%Y-%m-%d}", "Set the clock of this machine.")
    if now >= end:
        return failed(f"{endpoint}, certificate expired on {end:%Y-%m-%d}", "Enrol again: stanch agent enroll --again")
    if end - now < _SOON:
        return limited(seen, "The agent renews it while it runs and reaches its server; otherwise enrol again.")
    return ok(seen)


async def state(bench: Bench) -> Finding:
    """May the agent write into its folder, durably, and is there room?"""
    return await bench.in_thread(lambda: _state(bench))


def _state(bench: Bench) -> Finding:
    folder = bench.settings.state
    if not folder.exists():
        return failed(f"there is no {folder}", _ENROL)
    check_private(folder)
    with bench.scratch() as scratch:
        atomic_write(scratch / "file", b"stanch")
    usage = shutil.disk_usage(folder)
    mode = stat.S_IMODE(folder.stat().st_mode)
    seen = f"{folder}, mode {mode:04o}, written and synced, {usage.free // 1_048_576} MiB free"
    if usage.free < LEAST_FREE:
        return limited(seen, f"Make room: the agent needs {LEAST_FREE // 1_048_576} MiB, and the vault what it keeps.")
    return ok(seen)


async def journal(bench: Bench) -> Finding:
    """Can the agent's memory be read?"""
    if not bench.settings.journal.exists():
        return skipped("no journal yet: the agent has never run")
    found = await bench.in_thread(lambda: bench.journal)
    unfinished = sum(one.phase != "finished" for one in found.tasks)
    waiting = sum(one.entries for one in found.spool)
    seen = f"{len(found.effects)} effects in force, {unfinished} open tasks, {waiting} messages wait for the server"
    if found.unread:
        return limited(f"{seen}; not understood: {', '.join(found.unread)[:500]}", "Install the newer agent again.")
    if found.damage:
        return limited(
            f"{seen}; an earlier journal was damaged: {found.damage}", "The server is told at the next link."
        )
    return ok(seen)


async def agent(bench: Bench) -> Finding:
    """Does it run?"""
    pid = await bench.in_thread(lambda: agent_pid(bench.settings.state))
    if pid is None:
        return skipped("it does not run", "Start it: systemctl start stanch-agent, or stanch agent run")
    if not bench.settings.socket.exists():
        return limited(f"supervisor runs as process {pid}, no socket {bench.settings.socket}", "Its log tells why.")
    return ok(f"supervisor runs as process {pid}, socket {bench.settings.socket}")


async def clock(bench: Bench) -> Finding:
    """Does the agent know the time, and does the machine's clock agree?"""
    if not bench.settings.journal.exists():
        return skipped("the agent has never run", "Start it once.")
    known = (await bench.in_thread(lambda: bench.journal)).time
    if known is None:
        return limited("the agent does not know the time yet", "It learns it from its server, at its first link.")
    off = bench.now() - known
    seen = f"agent's time {known:%Y-%m-%d %H:%M} UTC"
    if abs(off) > _OFF:
        # After a reboot or an outage the agent's time is a lower bound: only one direction is certain.
        how = "behind it" if off < timedelta(0) else "ahead of it, or the agent had no link for as long"
        apart = timedelta(seconds=int(abs(off).total_seconds()))
        return limited(f"{seen}; this machine's clock is {apart} {how}", "Set the clock, by NTP.")
    return ok(seen)


async def evidence_key(bench: Bench) -> Finding:
    """Is it known to whom evidence is encrypted?"""
    if not bench.settings.journal.exists():
        return skipped("the agent has never run", "Start it once.")
    key = (await bench.in_thread(lambda: bench.journal)).evidence_key
    if not key:
        return limited("the server has not told it yet", "Files cannot be sent before the first link to the server.")
    return ok(f"{key[:12]}...{key[-4:]}")


# --- the way to the server -------------------------------------------------------------------------------------------


class _NoOutbox:
    """Nothing to be sent."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def pending(self, _limit: int, *, after: int) -> tuple[Report | Notice, ...]:  # noqa: ARG002 - of the protocol
        """Nothing."""
        return ()

    async def ack(self, _seqs: object) -> None:
        """Nothing."""


async def server(bench: Bench) -> Finding:
    """Does the server answer a question on a new connection?"""
    settings = bench.settings
    mine = Identity.load(settings.state)
    proxy = configured_proxy(settings.config, mine.proxy)
    with bench.scratch() as scratch, _only_collected() as said:
        # Of the addresses a copy: what is looked up here is not the agent's.
        copy = scratch / "addresses.json"
        if settings.addresses.is_file():
            shutil.copyfile(settings.addresses, copy)
        book = AddressBook(copy, urls=mine.urls, proxy=proxy)
        await book.refresh()
        targets = book.targets()
        if not targets:
            return failed(f"no address for {', '.join(mine.urls)[:500]}", "Does the name resolve on this machine?")
        link = Link(tls=mine.tls(settings.state), book=book, outbox=_NoOutbox())
        answered = await link.confirm(within=CONFIRM_WITHIN)
    through = f" through the proxy {proxy}" if proxy else ""
    if answered:
        return ok(f"answers{through}, {len(targets)} known ways")
    why = "; ".join(dict.fromkeys(said[-4:])) or f"nothing in {CONFIRM_WITHIN.total_seconds():g} s"
    hint = "Does a firewall or proxy stand between? [link] proxy in the local policy names one."
    return failed(f"{targets[0].authority} does not answer{through}: {why[:800]}", hint)


@contextmanager
def _only_collected() -> Iterator[list[str]]:
    """What the link logs is the reason, and no line of our output."""
    said: list[str] = []

    def collect(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        said.append(str(event.get("error") or event.get("event")))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[collect], wrapper_class=structlog.BoundLogger)
    try:
        yield said
    finally:
        structlog.configure(**before)


# --- the owner's limits ----------------------------------------------------------------------------------------------


async def policy(bench: Bench) -> Finding:
    """Is the local policy valid, and what does it say?"""
    return await bench.in_thread(lambda: _policy(bench.settings.config))


def _policy(config: Path) -> Finding:
    registry = actions.load()
    reading = read(config)
    if reading.limits is None:
        hint = f"Repair {config}: until then the agent refuses every order."
        return failed(f"{config} cannot be used: {reading.broken}", hint)
    limits = reading.limits.actions
    forbidden = sorted(one.name for one in registry.values() if limits.forbids(one.name))
    switches = {one.name: limits.enables(one) for one in registry.values() if one.opt_in}
    opt_in = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in sorted(switches.items()))
    head = f"{config}" if reading.mark is not None else f"no {config}"
    seen = f"{head}; forbids {', '.join(forbidden) or 'nothing'}; must be switched on: {opt_in or 'nothing'}"
    warnings = LocalPolicy(config).warnings(registry)
    return limited(seen, " ".join(warnings)[:2000]) if warnings else ok(seen)


OWN_PROBES = (
    Probe(name="account", look=account, within=seconds(5)),
    Probe(name="identity", look=identity, within=seconds(10)),
    Probe(name="state", look=state, within=seconds(20)),
    Probe(name="journal", look=journal, within=seconds(20)),
    Probe(name="agent", look=agent, within=seconds(10)),
    Probe(name="server", look=server, within=CONFIRM_WITHIN + seconds(18)),
    Probe(name="clock", look=clock, within=seconds(20)),
    Probe(name="evidence-key", look=evidence_key, within=seconds(20)),
    Probe(name="local-policy", look=policy, within=seconds(10)),
)
