"""Items of the documents that indicators ask for, files apart: which collector gives them.

A collector is imported when an indicator asks for its document and not before. The files themselves are looked at by
the scanner's worker, which needs no collector for them.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol

from stanch.core.autoruns import Autoruns
from stanch.core.ioc.items import Item
from stanch.core.types import EndpointPath

Collector = Callable[[frozenset[str]], AsyncIterator[Sequence[Item]]]
"""The paths that are wanted (without the document) -> the items there are, in batches.

Only what these paths need is read; other paths may be missing in an item, or there. Whatever blocks is done in a
thread. What cannot be read leaves its paths out of the item (not known); of a list that is cut, CUT is the last
element. It raises nothing of what it meets on the way; at the end StanchError, with what was left out, if that was not
all of the document: whoever judges these items then adds `the_rest`. Bounded: in items, in the bytes of each value, and
in the time that nothing comes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What of the endpoint collectors may need."""

    root: Path = Path("/")
    """Where the files of the system are (/etc, /var, /usr, /home, ...)."""
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    autoruns: Callable[[], Autoruns] | None = field(default=None)
    """What starts by itself here, as the rules of this task let it be seen."""
    forbidden: Callable[[EndpointPath], None] = field(default=lambda _path: None)
    """ForbiddenHere for files that the owner of the machine lets nobody read."""


class Maker(Protocol):
    """What a module of collectors offers for each of its documents: a function of this shape."""

    def __call__(self, parts: Parts, /) -> Collector:
        """The collector of the document."""
        ...


MAKERS: Final[Mapping[str, str]] = {
    "ProcessItem": "items_processes:process_items",
    "PortItem": "items_network:port_items",
    "ArpEntryItem": "items_network:arp_items",
    "RouteEntryItem": "items_network:route_items",
    "DnsEntryItem": "items_dns:dns_items",
    "SystemInfoItem": "items_system:system_items",
    "ServiceItem": "items_services:service_items",
    "TaskItem": "items_services:task_items",
    "UserItem": "items_accounts:user_items",
    "GroupItem": "items_accounts:group_items",
    "LoginHistoryItem": "items_history:login_items",
    "ShellHistoryItem": "items_history:shell_items",
    "ModuleItem": "items_devices:module_items",
    "DiskItem": "items_devices:disk_items",
    "VolumeItem": "items_devices:volume_items",
}
"""Document to the module beside this one and its `Maker` in it."""


def collectors(parts: Parts) -> Mapping[str, Collector]:
    """Document to its collector; each is imported when it is first called."""
    return {document: _lazy(where, parts) for document, where in MAKERS.items()}


def _lazy(where: str, parts: Parts) -> Collector:
    async def collect(paths: frozenset[str]) -> AsyncIterator[Sequence[Item]]:
        module, _, name = where.partition(":")
        maker: Maker = getattr(import_module(f"{__package__}.{module}"), name)
        batches = maker(parts)(paths)
        try:
            async for batch in batches:
                yield batch
        finally:
            if isinstance(batches, AsyncGenerator):
                await batches.aclose()

    return collect
