"""What collectors find of a machine below a folder, each item as collectors promise it."""

import asyncio
from pathlib import Path

from stanch.agent.host.items import Parts, collectors
from stanch.core.errors import ActionFailed
from stanch.core.ioc.items import Item, Value
from stanch.core.ioc.terms import DOCUMENTS


def parts_of(folder: Path) -> Parts:
    """Everything below one folder."""
    return Parts(root=folder, proc=folder / "proc", sys=folder / "sys")


def found(document: str, parts: Parts, *paths: str, missed: list[str] | None = None) -> list[Item]:
    """All items, with everything that is known of them or what these paths are; and why those are not all."""

    async def collect() -> list[Item]:
        items = list[Item]()
        try:
            async for batch in collectors(parts)[document](frozenset(paths or DOCUMENTS[document])):
                assert 0 < len(batch) <= 200
                items += batch
        except ActionFailed as error:
            if missed is None:
                raise
            missed.append(str(error.got))
        return items

    items = asyncio.run(collect())
    for item in items:
        assert item.document == document
        assert item.name
        assert set(item.values) <= set(paths or DOCUMENTS[document])
        f"{item.name}{item.values}{item.about}".encode()  # no surrogate in it
    return items


def one(
    document: str, parts: Parts, name: str, *paths: str, missed: list[str] | None = None
) -> dict[str, tuple[Value, ...]]:
    """The values of the one item of this name."""
    (item,) = [item for item in found(document, parts, *paths, missed=missed) if item.name == name]
    return dict(item.values)
