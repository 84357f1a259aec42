"""What an endpoint tells of itself, as the server keeps it: bounded, since it may be hostile.

It is kept in memory between two flushes, in the database, and is part of every list of endpoints: a frame may have
4 MiB, but a thousand endpoints must not make that 4 GiB. Honest endpoints stay far below these bounds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stanch.core.frames import Interface, Inventory
from stanch.core.host import Effect
from stanch.core.isolation import IsolationStatus, shortened

MAX_BYTES = 262_144
"""Of all effects together, of the isolation and of the inventory, in JSON."""

MAX_ITEMS = 100
MAX_DEVICES = 32
MAX_ADDRESSES = 16
MAX_TEXT = 200
"""Of each list and text of an isolation or an inventory that tells more than `MAX_BYTES`."""

_LISTS = ("allow", "profiles", "not_covered", "not_open")
_TEXTS = ("by", "origin", "why", "order", "task")


def kept_effects(told: Iterable[Effect]) -> Sequence[Mapping[str, Any]]:
    """Every effect in plain JSON; those for which there is no room without parameters and reason."""
    kept, room = [], MAX_BYTES
    for one in told:
        size = len(one.model_dump_json(exclude={"private"}))
        fits = size <= room
        room -= size if fits else 0
        less = one if fits else one.model_copy(update={"lift_params": {}, "detail": {}, "reason": ""})
        kept.append(less.model_dump(mode="json", exclude={"private"}))
    return kept


def kept_isolation(told: IsolationStatus | None) -> Mapping[str, Any] | None:
    """The state in plain JSON without defaults; the beginning of everything if it is too much."""
    if told is None:
        return None
    if len(told.model_dump_json()) > MAX_BYTES:
        told = _cut(told)
    return told.model_dump(mode="json", exclude_defaults=True)


def kept_inventory(told: Inventory) -> Inventory:
    """What the machine is; the beginning of everything if it is too much."""
    if len(told.model_dump_json()) <= MAX_BYTES:
        return told
    devices = tuple(
        Interface(name=one.name, mac=one.mac[:MAX_TEXT], addresses=_begun(one.addresses, MAX_ADDRESSES))
        for one in told.interfaces[:MAX_DEVICES]
    )
    words = {name: getattr(told, name)[:MAX_TEXT] for name in ("machine_id", "os", "kernel", "architecture", "boot_id")}
    return told.model_copy(update={**words, "interfaces": devices, "users": _begun(told.users, MAX_ITEMS)})


def _begun(texts: Sequence[str], most: int) -> tuple[str, ...]:
    return tuple(one[:MAX_TEXT] for one in texts[:most])


def _cut(told: IsolationStatus) -> IsolationStatus:
    lists = {name: tuple(shortened([one[:MAX_TEXT] for one in getattr(told, name)], MAX_ITEMS)) for name in _LISTS}
    texts = {name: getattr(told, name)[:MAX_TEXT] for name in _TEXTS}
    return told.model_copy(update={**lists, **texts})
