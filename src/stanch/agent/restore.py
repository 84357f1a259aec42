"""What must be in force again after a reboot, from what is written down; and putting it in force.

The journal is only read, but for `remember`: where no agent writes down what is left of the deadlines, the end of the
boot does, so that they do not begin anew at each boot. Decisions:

- The journal tells. An isolation that was in force and is not due comes back for what is left of its time; one that
  the server had not confirmed yet, or that was being released, does not: the agent's own recovery decides about those.
- A journal that cannot be read cannot tell whether the endpoint was isolated. The mark beside it can (marker.py): then
  this fails closed, and only the server's remembered addresses stay reachable, for at most five hours of this boot.
  Without the mark the network stays as it is, and the exit code says that something is wrong.
- An agent that has begun a new journal after damage, and not yet told the server, is in the same place: the mark tells.
- An opening that cannot be made yet (a unit that does not run) is left out; if the kernel refuses openings, all are.
"""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from stanch.actions.block_address import blocks_of
from stanch.actions.isolate import EFFECT
from stanch.agent.effects import Held, load
from stanch.agent.host.cgroups import Hierarchy, hierarchy
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.identity import Binding, Identity
from stanch.agent.journal import DAMAGE, MIGRATIONS
from stanch.agent.marker import is_marked
from stanch.agent.proxy import configured_proxy
from stanch.agent.resolve import AddressBook
from stanch.agent.settings import Settings
from stanch.core.errors import Invalid, StanchError, Unavailable, Unsupported
from stanch.core.isolation import Phase, rules_of
from stanch.core.network import Block, IsolationRules
from stanch.core.types import hours

BLIND_FOR = hours(5)
"""How long the endpoint is cut off if nobody can tell what was ordered: the default of an isolation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What is to be in force."""

    isolate: bool = False
    rules: IsolationRules | None = None
    """None if they are not known: then the server alone stays reachable."""

    lift_after: timedelta | None = None
    """What is left of the isolation; None for never."""

    blocks: tuple[Block, ...] = ()
    remarks: tuple[str, ...] = ()
    """What is not restored, or not as it was, one line each."""

    wrong: str | None = None
    """What is broken here, so that somebody has to look; None if all is well."""

    @property
    def nothing(self) -> bool:
        """Is there nothing to restore?"""
        return not (self.isolate or self.blocks)


# --- deciding --------------------------------------------------------------------------------------------------------


def look(settings: Settings, *, boot_seconds: float, boot_id: str) -> Restoration:
    """What is to be restored on this state folder. Never raises: what cannot be read is told in `wrong`."""
    marked = is_marked(settings.state)
    try:
        held, damage = read_journal(settings.journal, boot_id)
        return decide(held, damage=damage, marked=marked, boot_seconds=boot_seconds)
    except (StanchError, sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
        return unreadable(str(error) or type(error).__name__, marked=marked)


def read_journal(path: Path, boot_id: str) -> tuple[dict[str, Held], str | None]:
    """The effects of a journal, and why its predecessor was given up, if that has not been told yet.

    Nothing is changed, repaired or moved. Raises Unavailable, sqlite3.Error, OSError or ValueError.
    """
    if not path.is_file():
        raise Unavailable("The agent's journal is gone", got=f"no file {path}")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        db.execute("PRAGMA trusted_schema = OFF")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if not 1 <= version <= len(MIGRATIONS):
            raise Unavailable("This is no journal of this version", got=version, expected=f"1 to {len(MIGRATIONS)}")
        damage = db.execute("SELECT value FROM entries WHERE key = ?", (DAMAGE,)).fetchone()
        return load(db, boot_id), None if damage is None else str(damage[0])[:500]


def remember(path: Path, *, boot_seconds: float, boot_id: str) -> int:
    """Write down what is left of each deadline now, and how many there are.

    Only while no agent runs, which does so itself. Raises like `read_journal`.
    """
    held, _damage = read_journal(path, boot_id)
    rows = [
        (one.deadline - boot_seconds, boot_seconds, boot_id, name)
        for name, one in held.items()
        if one.deadline is not None
    ]
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        db.executemany("UPDATE effects SET remaining = ?, boot_seconds = ?, boot_id = ? WHERE name = ?", rows)
        db.execute("COMMIT")
    return len(rows)


def decide(held: Mapping[str, Held], *, damage: str | None, marked: bool, boot_seconds: float) -> Restoration:
    """What to restore of these effects. `damage`: they are what came after a journal that was lost."""
    remaining = {name: remaining_of(one, boot_seconds) for name, one in held.items()}
    blocks = tuple(blocks_of([one.effect for one in held.values()], remaining))
    isolation = held.get(EFFECT)
    if isolation is None and damage is not None and marked:
        return replace(unreadable(f"an earlier journal was damaged: {damage}", marked=True), blocks=blocks)
    if isolation is None:
        remarks = ("The mark of an isolation is left from before: the journal knows of none.",) if marked else ()
        return Restoration(blocks=blocks, remarks=remarks)
    return replace(_isolation(isolation, remaining[EFFECT]), blocks=blocks)


def remaining_of(held: Held, boot_seconds: float) -> timedelta | None:
    """What is left until its deadline, 0 if that has passed; None for never."""
    return None if held.deadline is None else timedelta(seconds=max(0.0, held.deadline - boot_seconds))


def _isolation(held: Held, remaining: timedelta | None) -> Restoration:
    phase = held.effect.detail.get("phase", Phase.IN_FORCE)
    if phase != Phase.IN_FORCE:
        return Restoration(remarks=(f"The isolation is {phase}: not restored, the agent decides about it.",))
    if remaining is not None and remaining <= timedelta(0):
        return Restoration(remarks=("The isolation has reached its deadline: not restored.",))
    try:
        rules, remarks = without_absent_groups(rules_of(held.effect.private["rules"]))
    except (StanchError, KeyError, TypeError, ValueError) as error:
        wrong = f"The isolation's rules cannot be read ({error}): the server alone stays reachable."
        return Restoration(isolate=True, lift_after=remaining, wrong=wrong)
    return Restoration(isolate=True, rules=rules, lift_after=remaining, remarks=remarks)


def unreadable(why: str, *, marked: bool) -> Restoration:
    """What to do where the journal does not tell."""
    if not marked:
        return Restoration(
            wrong=f"The journal cannot be read ({why}), so nothing is restored and the network stays open. "
            "If this endpoint was isolated, isolate it again: from the server once its agent runs."
        )
    return Restoration(
        isolate=True,
        lift_after=BLIND_FOR,
        wrong=f"The journal cannot be read ({why}), but this endpoint was isolated: it is cut off from everything but "
        f"its server, for {BLIND_FOR.total_seconds() / 3600:g} hours. Start the agent, then isolate or release it.",
    )


def without_absent_groups(
    rules: IsolationRules, find: Callable[[], Hierarchy] = hierarchy
) -> tuple[IsolationRules, tuple[str, ...]]:
    """The rules without openings for control groups that are not there (yet), and a line about each.

    The kernel refuses a rule that names one; at boot, few units run. The agent opens them when they do.
    """
    absent = _absent({one.cgroup for one in rules.allow if one.cgroup is not None}, find)
    kept = tuple(one for one in rules.allow if one.cgroup not in absent)
    lines = (f"{name}: it does not run yet, so what is open to it alone stays shut." for name in sorted(absent))
    return replace(rules, allow=kept), tuple(lines)[:100]


def _absent(named: set[str], find: Callable[[], Hierarchy]) -> set[str]:
    if not named:
        return set()
    try:
        tree = find()
    except Unsupported:
        return named
    return {name for name in named if not tree.number(name)}


# --- doing -----------------------------------------------------------------------------------------------------------


async def apply(found: Restoration, settings: Settings, boot_id: Callable[[], str]) -> Restoration:
    """Put it in force in the namespace of this thread, and return what is in force then.

    VerificationFailed or NotFound if this is not where the agent may act; other errors if it cannot be done at all.
    """
    identity = Identity.load(settings.state)
    identity.binding.check(Binding.here(boot_id()))
    found, way = _way_to_server(found, settings, identity)
    firewall = NftFirewall(Namespace.current("net"))
    try:
        if found.isolate:
            found = await _isolate(firewall, found, way)
        return await _block(firewall, found, way) if found.blocks else found
    finally:
        await firewall.close()


def _way_to_server(found: Restoration, settings: Settings, identity: Identity) -> tuple[Restoration, IsolationRules]:
    """What is remembered of it, as rules that open nothing else."""
    try:
        proxy = configured_proxy(settings.config, identity.proxy)
    except Invalid as error:
        proxy, found = None, replace(found, remarks=(*found.remarks, f"The proxy is left out: {error}"))
    book = AddressBook(settings.addresses, urls=identity.urls, proxy=proxy)
    return found, IsolationRules(servers=book.peers(), proxies=book.proxies())


async def _block(firewall: NftFirewall, found: Restoration, way: IsolationRules) -> Restoration:
    """Block; an isolation that is in force by now is told all the same."""
    servers = (one for rules in (found.rules or way, way) for one in (*rules.servers, *rules.proxies))
    try:
        await firewall.block(found.blocks, servers=tuple(dict.fromkeys(servers)))
    except StanchError as error:
        wrong = f"{found.wrong or ''} The blocks are not restored: {error}".strip()
        return replace(found, blocks=(), wrong=wrong)
    return found


async def _isolate(firewall: NftFirewall, found: Restoration, way: IsolationRules) -> Restoration:
    """Isolate; if the kernel will not have the openings, then without them."""
    rules = found.rules or way
    try:
        await firewall.isolate(rules, lift_after=found.lift_after)
    except Exception as error:  # whatever is the matter with an opening, cut off is the safe side
        if not rules.allow:
            raise
        rules = replace(rules, allow=())
        await firewall.isolate(rules, lift_after=found.lift_after)
        return replace(found, rules=rules, wrong=f"The exclusions were refused, and are shut: {error}")
    return replace(found, rules=rules)
