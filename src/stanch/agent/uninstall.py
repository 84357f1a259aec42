"""`stanch agent uninstall`: take the agent off this machine, and say what is left.

Nothing that is in force is forgotten: it is refused as long as the machine is cut off, an account locked, a process
suspended. What was in the vault stays with its key, unless its loss was asked for. Each step may be repeated, so that
what was cut short is finished by saying it again.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanch.agent.host.pen import free_left
from stanch.agent.host.vault_items import Items
from stanch.agent.own_folders import remove_tree
from stanch.agent.supervisor import LOCK_FILE, locked
from stanch.agent.uninstall_survey import Places, Survey, package_command, survey
from stanch.core.errors import Conflict, StanchError
from stanch.core.model import Model
from stanch.core.types import Text

Order = Callable[[str, Mapping[str, Any]], Awaitable[object]]
"""Carries out an action on this machine, by the running agent or without it."""

RELEASE = "release"
_MOST_TOLD = 50


class Plan(Model):
    """What is done, or would be."""

    steps: tuple[Text, ...]
    """One line each, in this order."""
    stays: tuple[Text, ...]
    """What is left on the machine."""
    next: tuple[Text, ...]
    """What to type afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninstall:
    """Of one agent."""

    places: Places
    order: Order
    lift: bool = False
    """Lift what is in force first?"""
    discard_vault: bool = False
    """Remove what is in the vault, for good?"""

    async def plan(self) -> Plan:
        """What would be done. Conflict if it is refused."""
        found = await survey(self.places)
        self._refuse(found)
        return self._plan(found)

    async def carry_out(self) -> Plan:
        """Do it; what was done. Conflict if it is refused, or if something is in force that could not be lifted."""
        found = await survey(self.places)
        self._refuse(found)
        told = self._plan(found)
        await self._check_free(found)
        if self.lift:
            await self._lift(found)
        await self.places.systemd.stop()
        if self.places.settings.state.is_dir():
            with self._alone():
                await self._remove()
        else:
            await self._remove()
        return told

    # --- may it be done? ---------------------------------------------------------------------------------------------

    def _refuse(self, found: Survey) -> None:
        if found.elsewhere is not None:
            raise Conflict(
                "systemd runs an agent with another state folder",
                got=f"process {found.elsewhere}, which does not hold {self.places.settings.state}",
                expected="the state folder of the agent that runs",
                hint="Name it with --state; or stop the other one first: systemctl stop stanch-agent",
            )
        if found.pid is not None and not found.managed:
            raise Conflict(
                "The agent runs, and not by systemd",
                got=f"process {found.pid}",
                expected="no agent, or the unit stanch-agent.service",
                hint=f"End it first: kill {found.pid}. What is in force can be lifted without it, by --lift.",
            )
        if found.lost_vault:
            raise Conflict(
                "The local policy cannot be read, so nobody can tell where the vault is",
                got=found.lost_vault,
                expected=f"a valid {self.places.settings.config}, or none",
                hint="Repair it, or move it away if the vault is in its usual place.",
            )
        if self.discard_vault:
            _refuse_linked(found)
        if not self.lift:
            _refuse_in_force(found)
            _refuse_begun(found)

    async def _check_free(self, found: Survey) -> None:
        """Conflict, before anything is done, if somebody holds the folder whom we cannot see: in a container."""
        if found.pid is None and not found.managed and (self.places.settings.state / LOCK_FILE).exists():
            with self._alone():
                return

    def _alone(self) -> "_Alone":
        return _Alone(self.places.settings.state)

    async def _lift(self, found: Survey) -> None:
        """Each by its own action; those of the kernel alone by the release. Conflict if something is still there."""
        wanted = [(one.name, one.lift_action, one.lift_params) for one in found.effects]
        if found.unsure or (found.kernel and not found.effects):
            wanted.append(("isolation", RELEASE, {}))
        failed = []
        for name, action, params in wanted:
            try:
                await self.order(action, params)
            except StanchError as error:  # the others are lifted all the same
                failed.append(f"{name} could not be lifted: {error}")
        _refuse_in_force(await survey(self.places), failed)

    # --- what is done ------------------------------------------------------------------------------------------------

    def _plan(self, found: Survey) -> Plan:
        return Plan(
            steps=tuple(self._steps(found)),
            stays=tuple(self._stays(found)),
            next=(package_command(self.places.root), *_revoke(found)),
        )

    def _steps(self, found: Survey) -> Iterator[str]:
        yield from self._lifted(found) if self.lift else ()
        if self.places.systemd.runs:
            yield "stop and disable stanch-agent.service and stanch-isolation.service"
        if found.waiting:
            yield f"forget {found.waiting} messages that the server has not got"
        for table in found.tables:
            yield f"remove table {table} of nftables"
        for path in (*found.units, *found.sockets, *found.state):
            yield f"remove {path}"
        for folder, count in found.vaults if self.discard_vault else ():
            if count:
                yield f"remove {count} items of the vault in {folder}, for good"
        if self._empties(found) and self.places.settings.vault_key.exists():
            yield f"remove {self.places.settings.vault_key}"
        elif found.nothing and not (found.items and self.discard_vault):
            yield "nothing: there is no agent here"

    def _lifted(self, found: Survey) -> Iterator[str]:
        for effect in found.effects:
            yield f"lift {effect.name}, by {effect.lift_action.replace('_', '-')}"
        if found.unsure or (found.kernel and not found.effects):
            yield "let the machine back on the network"
        if found.begun:
            some = ", ".join(f"{one.action} {one.id}" for one in found.begun[:_MOST_TOLD])
            yield f"forget what was begun and has no end: {some}"

    def _stays(self, found: Survey) -> Iterator[str]:
        settings = self.places.settings
        for folder, count in found.vaults if not self.discard_vault else ():
            if count:
                yield f"{count} items of the vault in {folder}, and their key {settings.vault_key}"
        for path in found.damaged:
            yield f"what the damaged journal {path} knew to be in force, if anything: nobody has lifted it"
        if os.path.lexists(settings.config):
            yield f"{settings.config}, which is the owner's"
        for path in (*found.foreign, *found.others[:_MOST_TOLD]):
            yield f"{path}, which the agent did not make"

    def _empties(self, found: Survey) -> bool:
        """Does the key go? Not while anything could be opened by it."""
        return self.discard_vault or not found.items

    async def _remove(self) -> None:
        """Units first, so that no boot starts it again; the state folder last, which knows what was in force."""
        now = await survey(self.places)
        _refuse_in_force(now)  # whoever ordered something while we asked
        if not self.lift:
            _refuse_begun(now)
        await free_left(self.places.groups())  # as the next start of the agent would, and there is none
        for path in (*now.units, *now.sockets):
            path.unlink(missing_ok=True)
        if now.units:
            await self.places.systemd.reload()
        await self.places.kernel.remove()
        await asyncio.to_thread(self._remove_files, now)

    def _remove_files(self, now: Survey) -> None:
        settings = self.places.settings
        if self._empties(now):
            for folder, _count in now.vaults:
                _empty_vault(folder, ours=folder == settings.vault)
            _removed(settings.vault_key)
        for path in now.state:
            _removed(path)
        _removed(settings.state / LOCK_FILE)
        # Of a socket that was put elsewhere, the folder is somebody's own.
        for folder in (settings.state, *(one.parent for one in now.sockets[:1] if one.parent.name == "stanch")):
            with suppress(OSError):  # not empty: what is left was told
                folder.rmdir()


class _Alone:
    """Hold the state folder, as a supervisor would."""

    def __init__(self, state: Path) -> None:
        self._locked = locked(state)

    def __enter__(self) -> None:
        try:
            self._locked.__enter__()
        except BlockingIOError:
            raise Conflict("An agent has started meanwhile", hint="End it, and say it again.") from None

    def __exit__(self, *error: object) -> None:
        self._locked.__exit__(None, None, None)


def _refuse_in_force(found: Survey, failed: Sequence[str] = ()) -> None:
    """Conflict, with what is in force and how each is lifted."""
    if found.unsure:
        raise Conflict(
            "Nobody can tell what is in force on this machine",
            got="; ".join([found.unsure, *failed])[:3000],
            expected="a journal that can be read",
            hint="Start the agent, which keeps the old one aside. Or --lift: it lets the machine back on the network, "
            "and forgets the rest, so look for locked accounts, disabled autoruns and stopped processes.",
        )
    if found.effects or found.kernel:
        some = [_shown(effect.name, effect.lift_action, found) for effect in found.effects[:_MOST_TOLD]]
        raise Conflict(
            "Something is in force on this machine",
            got="; ".join([*some, *found.kernel, *failed])[:3000],
            expected="nothing that would stay without anybody who could lift it",
            hint="Lift it on the server, by the commands above, or here: stanch agent uninstall --lift",
        )


def _refuse_begun(found: Survey) -> None:
    if found.begun:
        raise Conflict(
            "Work has begun on this machine, and has no end",
            got="; ".join(f"{one.action}, task {one.id}" for one in found.begun[:_MOST_TOLD])[:3000],
            expected="nothing that would stay half done",
            hint="Let the agent run until it has finished it. --lift goes on all the same, and forgets it.",
        )


def _refuse_linked(found: Survey) -> None:
    for folder, count in found.vaults:
        if count and folder.is_symlink():
            raise Conflict(
                "The vault is reached by a link, and nothing is removed through links",
                got=f"{count} items in {folder}",
                expected="a folder",
                hint=f"Put the folder in the place of the link, or remove what is in it yourself: {folder.resolve()}",
            )


def _shown(name: str, lift_action: str, found: Survey) -> str:
    return f"{name} (stanch {lift_action.replace('_', '-')} {found.endpoint or 'ENDPOINT'})"


def _revoke(found: Survey) -> Iterator[str]:
    """The server does not hear of it: nobody here may make it forget an endpoint."""
    if found.endpoint:
        yield f"stanch endpoint revoke {found.endpoint}"


def _empty_vault(folder: Path, *, ours: bool) -> None:
    """Only what is the vault's, since the owner may have chosen any folder; `ours`: the folder goes, too."""
    if not folder.is_dir() or folder.is_symlink():
        return
    items = Items(folder)
    for one in items.ids():
        items.remove(one)
    for orphan in items.orphans():
        orphan.unlink(missing_ok=True)
    items.sweep()
    if ours:
        with suppress(OSError):
            folder.rmdir()


def _removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
