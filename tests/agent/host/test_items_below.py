"""Items from files below a root: bounded, plain, and only what is wanted."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.items import Parts
from stanch.agent.host.items_below import Hashes, collector, item, some
from stanch.core.ioc.items import Item

WANTED = frozenset({"Name", "Size", "Owner"})
MD5 = "900150983cd24fb0d6963f7d28e17f72"
TERMS = {"Md5sum": "md5", "Sha1sum": "sha1"}


def test_an_item_has_what_is_wanted_and_known() -> None:
    """What is not known is left out, what is not wanted too; odd bytes and line ends move no terminal."""
    made = item("X", "a\nb\udcff", {"Name": ("\udcff",), "Size": None, "Other": (1,), "Owner": ()}, WANTED)
    assert made == Item(document="X", name="a b\\xff", values={"Name": ("\\xff",), "Owner": ()})


def test_what_is_about_an_item_is_left_out_where_empty() -> None:
    """An empty path leads nowhere."""
    assert item("X", "", {}, WANTED, about={"path": "", "user": "a"}).about == {"user": "a"}
    assert item("X", "", {}, WANTED).name == "-"
    assert (some("a"), some("")) == (("a",), ())


def test_below_a_root_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    """No error: there are no items."""

    async def collect() -> list[Item]:
        made = collector(Parts(root=tmp_path / "none"), lambda _tree, _wanted: iter([item("X", "a", {}, WANTED)]))
        return [one async for batch in made(WANTED) for one in batch]

    assert asyncio.run(collect()) == []


def test_who_leaves_early_closes_the_tree(tmp_path: Path) -> None:
    """Nothing stays open, and nothing more is made."""
    made, trees = list[int](), list[Tree]()

    def make(tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
        trees.append(tree)
        for number in range(1000):
            made.append(number)
            yield item("X", str(number), {}, wanted)

    async def first() -> int:
        batches = collector(Parts(root=tmp_path), make)(WANTED)
        async for batch in batches:
            await batches.aclose()
            return len(batch)
        return 0

    before = len(list(Path("/proc/self/fd").iterdir()))
    assert asyncio.run(first()) == 200
    assert len(made) <= 401
    assert len(trees) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_hashes_are_those_that_are_wanted(tmp_path: Path) -> None:
    """Of the content; of what is no file there are none; of what is too large they are not known."""
    (tmp_path / "file").write_bytes(b"abc")
    tree = Tree(tmp_path)
    hashes = Hashes(tree, TERMS, {"Md5sum", "Name"})
    assert hashes.of("/file") == {"Md5sum": (MD5,)}
    assert hashes.of("/none") == hashes.of("") == {"Md5sum": ()}
    assert Hashes(tree, TERMS, {"Name"}).of("/file") == {}
    tree.close()


def test_of_several_files_all_must_be_known(tmp_path: Path, monkeypatch) -> None:
    """Else another hash could be the one that is asked for."""
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "large").write_bytes(b"abcd")
    monkeypatch.setattr("stanch.agent.host.items_below.HASHED", 3)
    tree = Tree(tmp_path)
    hashes = Hashes(tree, TERMS, {"Md5sum"})
    assert hashes.of_all(["/file", "/none"]) == {"Md5sum": [MD5]}
    assert hashes.of_all(["/file", "/large"]) == {"Md5sum": None}
    assert hashes.of_all([]) == {"Md5sum": []}
    tree.close()
