"""`python -m stanch.worker`: one request from standard input, one answer to standard output, and the end.

The request is a line of JSON from our own parent, then the bytes. In between it imports what that kind needs, and
confines itself: from then on it can open nothing, reach nobody and start nothing.
"""

import encodings.ascii
import encodings.latin_1
import encodings.utf_8
import encodings.utf_16_be
import encodings.utf_16_le
import json
import os
import signal
import unicodedata
from collections.abc import Mapping
from io import BytesIO
from typing import NoReturn

from stanch.worker import elf, shown
from stanch.worker.confinement import confine
from stanch.worker.elf import OutOfTime

LONGEST_HEADER = 16_384
LONGEST_INPUT = 16 * 2**20
BLOCK = 2**20
IN, OUT = 0, 1

_LOADED = (encodings.ascii, encodings.latin_1, encodings.utf_8, encodings.utf_16_be, encodings.utf_16_le, unicodedata)
"""What is otherwise loaded when it is first used: too late here."""


def main() -> NoReturn:
    """Answer one request. The exit status is 0 if there is an answer at all, an error included."""
    header, begun = _header()
    _load(header["kind"])
    signal.signal(signal.SIGXCPU, _out_of_time)
    confined = confine()
    answer = {"confined": confined, **_answer(header, begun)}
    _write(json.dumps(answer).encode())
    os._exit(0)  # nothing is left to be tidied up, and the tidying would ask the kernel for what is forbidden now


def _header() -> tuple[Mapping[str, object], bytes]:
    """The first line, and what was read beyond it."""
    buffer = bytearray()
    while b"\n" not in buffer:
        piece = os.read(IN, LONGEST_HEADER)
        if not piece or len(buffer) > LONGEST_HEADER:
            raise SystemExit(2)
        buffer += piece
    line, _, rest = bytes(buffer).partition(b"\n")
    header: Mapping[str, object] = json.loads(line)
    return header, rest


def _load(kind: object) -> None:
    """Import what renders this kind, all of it: read a hollow program, so that nothing is left for later."""
    if kind == "elf":
        elf.elf(b"\x7fELF\x02\x01\x01" + bytes(57), more=False)


def _out_of_time(_signal: int, _frame: object) -> NoReturn:
    raise OutOfTime


def _answer(header: Mapping[str, object], begun: bytes) -> Mapping[str, object]:
    try:
        return {"shown": _render(header, _rest(begun))}
    except OutOfTime:
        return {"error": "it took too long"}
    except MemoryError:
        return {"error": "it took too much memory"}
    except Exception as error:  # noqa: BLE001 - whatever a renderer raises, the parent is told
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def _rest(begun: bytes) -> bytes:
    """Everything up to the end of the input."""
    buffer = BytesIO()
    buffer.write(begun)
    while piece := os.read(IN, BLOCK):
        if buffer.tell() + len(piece) > LONGEST_INPUT:
            raise ValueError("too many bytes")
        buffer.write(piece)
    return buffer.getvalue()


def _render(header: Mapping[str, object], data: bytes) -> object:
    offset, more = header["offset"], bool(header["more"])
    if not isinstance(offset, int):
        raise TypeError("offset is no number")
    match header["kind"]:
        case "text":
            return shown.text(data, offset=offset, first=bytes.fromhex(str(header["first"])), more=more)
        case "hex":
            return shown.hexadecimal(data)
        case "strings":
            return shown.strings(data, offset=offset)
        case "elf":
            return elf.elf(data, more=more)
        case _:
            raise ValueError("no such kind")


def _write(answer: bytes) -> None:
    rest = memoryview(answer)
    while rest:
        rest = rest[os.write(OUT, rest) :]


if __name__ == "__main__":
    main()
