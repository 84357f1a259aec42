"""A preview of evidence on a terminal: lines of text, of bytes, of strings; or the structure of a program."""

from collections.abc import Iterator

import click

from stanch.cli.plain import plain
from stanch.cli.render import Block, Note, fields, human_size, table
from stanch.cli.screen import show_blocks
from stanch.core.rest_evidence import ElfPreview, HexPreview, Preview, StringsPreview, TextPreview

PER_LINE = 16
LONGEST_LINE = 4000
DONE = "yes"
ESSENTIAL = "seccomp"
"""The measure that stops everything by itself. Others may be missing: our own unit of systemd allows no namespaces."""


def show_preview(found: Preview) -> None:
    """Print it: what it is about, then line by line, each of them harmless."""
    show_blocks(_about(found))
    for line in lines(found):
        click.echo(plain(line, longest=LONGEST_LINE))
    if found.elf is not None:
        show_blocks(elf_blocks(found.elf))
    if found.confined.get(ESSENTIAL) != DONE:
        missing = {name: why for name, why in found.confined.items() if why != DONE}
        show_blocks([Note(f"The server could not confine the worker as it should: {plain(missing)}")])


def _about(found: Preview) -> Iterator[Block]:
    end = found.offset + found.length
    yield fields(
        evidence=found.evidence,
        shown_as=found.kind.value,
        bytes=f"{found.offset} to {end} of {found.size} ({human_size(found.size)})",
    )
    if found.text is not None:
        guess = ", a guess: it may be no text" if found.text.guessed else ""
        yield fields(encoding=f"{found.text.encoding}{guess}")


def lines(found: Preview) -> Iterator[str]:
    """What is shown as lines."""
    if found.text is not None:
        yield from text_lines(found.text)
    if found.hex is not None:
        yield from hex_lines(found.hex, found.offset)
    if found.strings is not None:
        yield from string_lines(found.strings)


def text_lines(found: TextPreview) -> Iterator[str]:
    """Its lines, tabs as spaces."""
    for line in found.text.split("\n"):
        yield line.expandtabs(8)


def hex_lines(found: HexPreview, offset: int) -> Iterator[str]:
    """Where, 16 bytes in hexadecimal, and the same as ASCII."""
    for n in range(0, len(found.ascii), PER_LINE):
        digits = found.data[2 * n : 2 * (n + PER_LINE)]
        pairs = [digits[i : i + 2] for i in range(0, len(digits), 2)]
        half = PER_LINE // 2
        shown = f"{' '.join(pairs[:half]):<{3 * half - 1}}  {' '.join(pairs[half:]):<{3 * half - 1}}"
        yield f"{offset + n:08x}  {shown}  |{found.ascii[n : n + PER_LINE]}|"


def string_lines(found: StringsPreview) -> Iterator[str]:
    """Where, and what; marked if it is UTF-16, or goes on."""
    for one in found.strings:
        wide = "" if one.encoding == "ascii" else f" ({one.encoding})"
        yield f"{one.offset:08x}  {one.text}{'…' if one.cut else ''}{wide}"
    if found.more:
        yield "… and more: go on with --offset."


def elf_blocks(found: ElfPreview) -> Iterator[Block]:
    """The structure of a program."""
    yield fields(
        "program",
        bits=found.bits,
        machine=found.machine,
        type=found.type,
        entry=hex(found.entry),
        interpreter=found.interpreter,
        build_id=found.build_id,
        libraries=found.libraries,
    )
    if found.segments:
        rows = (
            (one.type, one.flags, hex(one.address), hex(one.offset), one.file_size, one.memory_size)
            for one in found.segments
        )
        title = _counted("segments", len(found.segments), found.segment_count)
        yield table(("type", "flags", "address", "offset", "in file", "in memory"), rows, title=title)
    if found.sections:
        lines_ = (
            (one.name, one.type, one.flags, hex(one.address), hex(one.offset), one.size, one.entropy)
            for one in found.sections
        )
        title = _counted("sections", len(found.sections), found.section_count)
        yield table(("section", "type", "flags", "address", "offset", "size", "entropy"), lines_, title=title)
    for problem in found.problems:
        yield Note(f"Not everything can be told: {plain(problem)}")


def _counted(what: str, shown: int, said: int) -> str:
    return what if shown >= said else f"{what}, the first {shown} of {said}"
