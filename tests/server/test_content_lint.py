"""What the worker says of a pack, joined with what the server knows of it itself."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from stanch.core.errors import ActionFailed, TimedOut, TooManyRequests, Unavailable
from stanch.server import content_lint as module
from stanch.server.content_lint import Linter, lint_of
from stanch.server.content_packs import Arrived
from stanch.server.upload_files import Received
from stanch.worker.ask_lint import Looked
from tests.fakes.packed import GOOD, index, pack

FILES = {"a.yar": GOOD, "b.yar": GOOD, "c.yar": b""}


def looked(*files: tuple[int, int], why: str = "") -> Looked:
    return Looked(confined={"seccomp": "yes"}, files=files, problems=(), unknown=(("X/y", 2),), why_incomplete=why)


@pytest.fixture
def arrived(tmp_path: Path) -> Arrived:
    data = pack(FILES)
    (tmp_path / "pack").write_bytes(data)
    received = Received(len(data), hashlib.sha256(data).hexdigest())
    return Arrived(tmp_path / "pack", received, index(FILES), ())


def test_counts_go_with_files() -> None:
    """Names, sizes and hashes are the server's own; only numbers are the worker's."""
    lint = lint_of(index(FILES), looked((1, 0), (2, 3), (0, 0)))
    assert [(one.name, one.rules, one.problems) for one in lint.files] == [
        ("a.yar", 1, 0),
        ("b.yar", 2, 3),
        ("c.yar", 0, 0),
    ]
    assert (lint.complete, lint.unknown[0].term, lint.confined) == (True, "X/y", {"seccomp": "yes"})


@pytest.mark.parametrize("answer", [looked((1, 0)), looked((1, 0), why="no time"), looked(*[(0, 0)] * 3, why="x")])
def test_what_was_not_looked_at_counts_for_nothing(answer: Looked) -> None:
    """And that not all of it was looked at is said."""
    lint = lint_of(index(FILES), answer)
    assert (lint.complete, len(lint.files)) == (False, 3)
    assert lint.why_incomplete


def test_more_than_there_is_is_cut() -> None:
    """A worker that was taken over invents no files."""
    assert len(lint_of(index(FILES), looked(*[(9, 9)] * 10)).files) == 3


@pytest.mark.parametrize("error", [ActionFailed("It died"), TimedOut("Too long")])
async def test_content_that_kills_its_reader(arrived: Arrived, error: Exception) -> None:
    """Has no rule that counts."""

    async def dies(_descriptor: int) -> Looked:
        raise error

    lint = await Linter(ask=dies).look(arrived)
    assert (lint.complete, sum(one.rules for one in lint.files), len(lint.files)) == (False, 0, 3)


async def test_a_server_that_has_no_worker(arrived: Arrived) -> None:
    """Is no fault of the content."""

    async def cannot(_descriptor: int) -> Looked:
        raise Unavailable("No worker")

    with pytest.raises(Unavailable):
        await Linter(ask=cannot).look(arrived)


async def test_one_at_a_time_and_few_wait(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may take a gigabyte."""
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    goes_on, at_once, most = asyncio.Event(), 0, 0

    async def slow(_descriptor: int) -> Looked:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await goes_on.wait()
        at_once -= 1
        return looked((1, 0), (1, 0), (0, 0))

    linter = Linter(ask=slow)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(linter.look(arrived))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests):
            await linter.look(arrived)
        goes_on.set()
    assert most == 1
