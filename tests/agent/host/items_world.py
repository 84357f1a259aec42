"""What the tests of items share: items collected, and judged by indicators made of a few words."""

from collections.abc import Collection
from pathlib import Path

from stanch.agent.host.items import Parts, collectors
from stanch.core.errors import ActionFailed
from stanch.core.ioc.expression import Condition, Group, Indicator, Operator, Term
from stanch.core.ioc.items import Item
from stanch.core.ioc.judging import Judge
from stanch.core.ioc.terms import DOCUMENTS


async def collect(
    document: str, paths: Collection[str] | None = None, parts: Parts | None = None, *, missed: list[str] | None = None
) -> list[Item]:
    """All items of a document with these paths; with all that it has if none are named. And what they lack."""
    wanted = frozenset(DOCUMENTS[document] if paths is None else paths)
    items = list[Item]()
    try:
        async for batch in collectors(parts or Parts())[document](wanted):
            items += batch
    except ActionFailed as error:
        if missed is None:
            raise
        missed.append(str(error.got))
    return items


def all_of(*terms: tuple[str, str, object]) -> Indicator:
    """An indicator: all of these (document and path, condition, content) hold for one item."""
    made = []
    for number, (name, condition, content) in enumerate(terms):
        document, _, path = name.partition("/")
        made.append(
            Term(
                id=f"term{number}",
                document=document,
                path=path,
                condition=Condition(condition),
                content=str(content),
                type=DOCUMENTS[document][path].kind.value,
            )
        )
    return Indicator(
        id="one", title="one", format="test", root=Group(id="top", operator=Operator.AND, parts=tuple(made))
    )


async def found(*terms: tuple[str, str, object], parts: Parts | None = None) -> list[Item]:
    """The items of one document for which all of these hold."""
    judge = Judge([all_of(*terms)])
    assert not judge.unknown
    ((document, wanted),) = judge.wanted.items()
    matches = []
    for item in await collect(document, wanted, parts):
        assert item.values.keys() <= wanted
        matches += judge.see(item)
    return [item for match in (*matches, *judge.finish()) for item in match.items]


async def pids(*terms: tuple[str, str, object], parts: Parts | None = None) -> set[object]:
    """The processes for which all of these hold."""
    return {item.about.get("pid") for item in await found(*terms, parts=parts)}


def only(folder: Path, *ones: int) -> Parts:
    """A system in which there are these processes only: to look at all that all of them have takes long."""
    folder.mkdir()
    for one in ones:
        (folder / str(one)).symlink_to(f"/proc/{one}")
    return Parts(proc=folder)


def program_of(pid: int | str) -> str:
    """The path of the program of a process, as the kernel has it."""
    return str(Path(f"/proc/{pid}/exe").readlink())
