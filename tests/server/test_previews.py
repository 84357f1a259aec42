"""Previews: what the worker is handed, and that what it answers is not believed."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from stanch.core.errors import ActionFailed, Conflict, Invalid, NotFound, TooManyRequests
from stanch.core.rest_evidence import MOST, EvidenceView, PreviewKind
from stanch.server import previews as module
from stanch.server.previews import Previews
from stanch.worker.ask import Answer, Request
from tests.fakes.waiting import eventually

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TEXT = {"encoding": "utf-8", "guessed": False, "text": "x"}


class Kept:
    """Evidence with this content, as far as previews need it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def view(self, **changes: object) -> EvidenceView:
        """How the API shows it."""
        about = {"id": "evd_1", "task": "tsk_1", "endpoint": "end_1", "name": "/x", "created": NOW}
        sizes = {"size": len(self.content), "received": len(self.content), "complete": True}
        digest = hashlib.sha256(self.content).hexdigest()
        return EvidenceView.model_validate({**about, **sizes, "sha256": digest, **changes})

    async def read(self, _view: EvidenceView, *, start: int, length: int) -> AsyncIterator[bytes]:
        """Some of it, in blocks."""

        async def blocks() -> AsyncIterator[bytes]:
            for at in range(start, start + length, 1000):
                yield self.content[at : min(at + 1000, start + length)]

        return blocks()


class Worker:
    """Notes what it is asked, and answers what it is told to."""

    def __init__(self, **shown: object) -> None:
        self.asked: list[tuple[Request, bytes]] = []
        self.shown: dict[str, object] = shown or dict(TEXT)
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: Request, content: bytes) -> Answer:
        """Wait at the gate, then answer."""
        self.asked.append((request, content))
        await self.gate.wait()
        return Answer(confined={"seccomp": "yes"}, shown=self.shown)


async def test_a_part_is_rendered() -> None:
    """The worker gets these bytes only, where they are, whether more follows, and what the whole begins with."""
    kept, worker = Kept(bytes(range(256)) * 40), Worker()
    found = await Previews(kept, ask=worker).show(kept.view(), PreviewKind.TEXT, offset=5, length=3000)
    [(request, content)] = worker.asked
    assert content == kept.content[5:3005]
    assert (request.kind, request.offset, request.more, request.first) == ("text", 5, True, "00010203")
    assert (found.kind, found.offset, found.length, found.size) == ("text", 5, 3000, len(kept.content))
    assert found.text is not None
    assert (found.text.text, found.confined) == ("x", {"seccomp": "yes"})


@pytest.mark.parametrize(
    ("content", "offset", "kind"),
    [(b"\x7fELF...", 0, "elf"), (b"some words", 0, "text"), (b"\x00\x01", 0, "hex"), (b"ab\x7fELF\x00", 2, "hex")],
)
async def test_the_first_bytes_choose(content: bytes, offset: int, kind: str) -> None:
    """`auto` looks at what is asked for, not at the name."""
    shown = {"elf": {}, "text": TEXT, "hex": {"data": "", "ascii": ""}}[kind]
    kept, worker = Kept(content), Worker()
    worker.shown = dict(shown)
    found = await Previews(kept, ask=worker).show(kept.view(), PreviewKind.AUTO, offset=offset, length=None)
    assert (found.kind, worker.asked[0][0].kind) == (kind, kind)


async def test_how_much_if_nobody_says() -> None:
    """As much as suits the kind, and never beyond the end."""
    kept, worker = Kept(bytes(70_000)), Worker(data="", ascii="")
    previews = Previews(kept, ask=worker)
    assert (await previews.show(kept.view(), PreviewKind.HEX, offset=0, length=None)).length == 4096
    assert (await previews.show(kept.view(), PreviewKind.HEX, offset=69_999, length=None)).length == 1
    assert (await previews.show(kept.view(), PreviewKind.HEX, offset=70_000, length=None)).length == 0


@pytest.mark.parametrize(
    ("kind", "offset", "length"),
    [("text", 101, None), ("text", 0, MOST[PreviewKind.TEXT] + 1), ("hex", 0, 2**20), ("elf", 1, None)],
)
async def test_what_is_out_of_bounds_is_refused(kind: str, offset: int, length: int | None) -> None:
    """Beyond the end, too much at once, or the structure of a program from its middle."""
    kept, worker = Kept(bytes(100)), Worker()
    with pytest.raises(Invalid):
        await Previews(kept, ask=worker).show(kept.view(), PreviewKind(kind), offset=offset, length=length)
    assert worker.asked == []


async def test_what_is_not_here_is_not_shown() -> None:
    """Incomplete is a conflict; deleted is not found, and says by whom."""
    kept, worker = Kept(b"x"), Worker()
    previews = Previews(kept, ask=worker)
    with pytest.raises(Conflict):
        await previews.show(kept.view(complete=False), PreviewKind.TEXT, offset=0, length=None)
    with pytest.raises(NotFound, match="ada"):
        await previews.show(kept.view(deleted=NOW, deleted_by="ada"), PreviewKind.TEXT, offset=0, length=None)


@pytest.mark.parametrize(
    "shown", [{}, {"text": 5}, {**TEXT, "text": "x" * 10**6}, {"encoding": ["x"], "guessed": "?", "text": {}}]
)
async def test_a_worker_that_lies_is_an_error(shown: dict[str, object]) -> None:
    """What does not fit the model goes no further."""
    kept, worker = Kept(b"x"), Worker()
    worker.shown = shown
    with pytest.raises(ActionFailed, match="nonsense"):
        await Previews(kept, ask=worker).show(kept.view(), PreviewKind.TEXT, offset=0, length=None)


async def test_few_work_and_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that, asking again later is all that helps; afterwards there is room again."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    kept, worker = Kept(b"x"), Worker()
    worker.gate.clear()
    previews = Previews(kept, ask=worker)
    some = [
        asyncio.ensure_future(previews.show(kept.view(), PreviewKind.TEXT, offset=0, length=None)) for _ in range(3)
    ]
    await eventually(lambda: len(worker.asked) == module.AT_ONCE)
    with pytest.raises(TooManyRequests):
        await previews.show(kept.view(), PreviewKind.TEXT, offset=0, length=None)
    assert len(worker.asked) == module.AT_ONCE
    worker.gate.set()
    await asyncio.gather(*some)
    await previews.show(kept.view(), PreviewKind.TEXT, offset=0, length=None)


async def test_the_real_worker() -> None:
    """From the bytes to the preview, in a process of its own."""
    kept = Kept(b"ein Fund\x1b[2J\n")
    found = await Previews(kept).show(kept.view(), PreviewKind.AUTO, offset=0, length=None)
    assert found.text is not None
    assert found.text.text == "ein Fund\\x1b[2J\n"
    assert "seccomp" in found.confined
