"""How a terminal travels: two hops, agent - server and server - person, that speak the same words.

Bytes are numbered from 0 in each direction, so that a connection that breaks loses and doubles nothing: each side keeps
what the other has not said that it has, and goes on from there on the next connection.

    binary message    8 bytes of offset, big-endian, and then the bytes, at most MAX_DATA
    text message      one JSON object, told apart by `type`

The first message of each side on each connection is `joined`, with what it has; nothing else is sent before both are
said. A person's side waits for the server's, and if it knows nothing of the terminal yet, it begins where the server
says. After `closed` or `refused` from the other side nothing follows: `refused` tells an agent, too, that nobody waits.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from stanch.core.errors import ErrorBody, Invalid
from stanch.core.model import LooseModel
from stanch.core.terminal import Closed

TERMINAL_PATH = "/v1/terminals"
"""On the gateway: GET {task}, a WebSocket, by the endpoint that runs the task. 404, 410: nobody waits there."""

MAX_DATA = 32_768
"""Bytes of one binary message, without its offset."""

MAX_WORD = 4096
"""Bytes of one text message."""

BUFFER = 262_144
"""Bytes that one side keeps at most for the other; when it is full, what would bring more has to wait."""

ON_THE_WAY = 4 * BUFFER
"""Bytes that may have come without having been passed on: more is sent only by who does not listen."""

_OFFSET = 8
_LARGEST = 2**63 - 1

Offset = Annotated[int, Field(ge=0, le=_LARGEST)]
Cells = Annotated[int, Field(ge=1, le=1000)]


class Joined(LooseModel):
    """Either: I am here, and this is what I have of yours."""

    type: Literal["joined"] = "joined"
    have: Offset
    """Bytes that arrived so far, and need not be sent again; the next one has this number."""
    first: Offset = 0
    """Number of the first byte of ours that we still have: whoever comes anew to a terminal begins there."""


class Have(LooseModel):
    """Either: so much has arrived, and need not be kept any more."""

    type: Literal["have"] = "have"
    have: Offset
    """Bytes that arrived so far."""


class Resize(LooseModel):
    """From the person: the window has another size."""

    type: Literal["resize"] = "resize"
    columns: Cells
    """Characters in a line."""
    rows: Cells
    """Lines."""


class HangUp(LooseModel):
    """From the person: end it; from the server: the person is gone for good."""

    type: Literal["hang-up"] = "hang-up"


class Over(LooseModel):
    """From the agent, and from the server to the person: it is closed."""

    type: Literal["closed"] = "closed"
    closed: Closed
    """How."""


class Gone(LooseModel):
    """From the server: there is no such terminal, or no longer, and why."""

    type: Literal["refused"] = "refused"
    error: ErrorBody
    """Why."""


Word = Annotated[Joined | Have | Resize | HangUp | Over | Gone, Field(discriminator="type")]
_words: TypeAdapter[Word] = TypeAdapter(Word)


def read_word(data: str) -> Word:
    """A text message; Invalid if it is none of ours."""
    if len(data) > MAX_WORD:
        raise Invalid("The terminal's message is too long", got=len(data), expected=f"at most {MAX_WORD} characters")
    try:
        word: Word = _words.validate_json(data)
    except ValidationError as error:
        raise Invalid("The terminal's message is malformed", got=data[:100], expected=str(error)[:200]) from None
    return word


def pack(offset: int, data: bytes) -> bytes:
    """A binary message."""
    return offset.to_bytes(_OFFSET, "big") + data


def unpack(message: bytes) -> tuple[int, bytes]:
    """The offset and bytes of a binary message; Invalid if it is none."""
    size = len(message) - _OFFSET
    if not 0 < size <= MAX_DATA:
        raise Invalid(
            "The terminal's data is malformed", got=len(message), expected=f"{_OFFSET} bytes and up to {MAX_DATA}"
        )
    offset = int.from_bytes(message[:_OFFSET], "big")
    if offset > _LARGEST - MAX_DATA:
        raise Invalid("The terminal's data is malformed", got=offset, expected=f"an offset up to {_LARGEST - MAX_DATA}")
    return offset, message[_OFFSET:]


class Outgoing:
    """What goes to the other side: numbered, and kept until it says that it has it."""

    def __init__(self, *, limit: int = BUFFER, start: int = 0) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._first = start
        self._next = start

    @property
    def end(self) -> int:
        """Bytes that were put in so far."""
        return self._first + len(self._kept)

    @property
    def acknowledged(self) -> int:
        """Bytes of them that have arrived."""
        return self._first

    @property
    def room(self) -> int:
        """Bytes that may be put in now."""
        return self._limit - len(self._kept)

    def put(self, data: bytes) -> None:
        """Take these in; ValueError if there is no room for all of them."""
        if len(data) > self.room:
            raise ValueError(f"{len(data)} bytes, and room for {self.room}")
        self._kept += data

    def take(self) -> bytes | None:
        """The next message to be sent on this connection, or None if all has been."""
        at = self._next - self._first
        data = bytes(self._kept[at : at + MAX_DATA])
        if not data:
            return None
        offset, self._next = self._next, self._next + len(data)
        return pack(offset, data)

    def joined(self, have: int) -> None:
        """A new connection, on whose other side so much has arrived: go on from there. Invalid if that cannot be."""
        self.acknowledge(have)
        self._next = have

    def acknowledge(self, have: int) -> None:
        """So much has arrived; Invalid if it is less than was said before, or more than was sent."""
        if not self._first <= have <= self.end:
            raise Invalid("That much cannot have arrived", got=have, expected=f"{self._first} to {self.end}")
        del self._kept[: have - self._first]
        self._first = have
        self._next = max(self._next, have)


class Incoming:
    """What comes from the other side: each byte once, in order."""

    def __init__(self, *, start: int = 0) -> None:
        self.have = start

    def take(self, message: bytes) -> bytes:
        """The new bytes of a binary message; Invalid if some before it are missing."""
        offset, data = unpack(message)
        if offset > self.have:
            raise Invalid("Bytes of the terminal are missing", got=offset, expected=self.have)
        new = data[self.have - offset :]
        self.have += len(new)
        return new


class Typed:
    """What comes from the other side and cannot be passed on at once: bounded, and told only once it is passed on."""

    def __init__(self, *, limit: int = ON_THE_WAY) -> None:
        self._limit = limit
        self._incoming = Incoming()
        self._waiting = bytearray()

    @property
    def passed(self) -> int:
        """Bytes that were passed on so far: what the other side may be told."""
        return self._incoming.have - len(self._waiting)

    @property
    def waiting(self) -> int:
        """Bytes that have come, and have not been passed on."""
        return len(self._waiting)

    def take(self, message: bytes) -> None:
        """Take in a binary message; Invalid if bytes before it are missing, or if more came than may be on the way."""
        new = self._incoming.take(message)
        if len(self._waiting) + len(new) > self._limit:
            self._incoming.have -= len(new)
            raise Invalid("More came than may be on the way", got=self.waiting + len(new), expected=self._limit)
        self._waiting += new

    def first(self, most: int) -> bytes:
        """The next ones to be passed on, at most so many."""
        return bytes(self._waiting[:most])

    def pass_on(self, count: int) -> None:
        """So many of them were passed on."""
        del self._waiting[:count]
