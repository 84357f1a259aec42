"""Are lines in memory a source like any other?"""

from stanch.core.evidence import Lines


async def test_lines_are_a_source_that_is_named_after_its_content():
    """The same content has the same name after a crash, and pieces sort by their number."""
    one, other = Lines("files", 1, b'{"a":1}\n'), Lines("files", 2, b"")
    assert (await one.read(1, 3), one.size) == (b'"a"', 8)
    assert [(found.offset, found.length) for found in await one.extents()] == [(0, 8)]
    assert one.name == Lines("files", 1, one.data).name != Lines("files", 1, b"x").name
    assert one.name.startswith("files-0001-")
    assert one.name < other.name
