"""The content of an agent: what it becomes when the server signs something else, and what it never becomes."""

import asyncio
import errno
import hashlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stanch.agent import content_fetching
from stanch.agent.content import AgentContent, ContentUpdates, Tried, try_pack
from stanch.agent.content_base import BASE
from stanch.agent.content_fetching import PackFetcher
from stanch.agent.content_store import ContentStore
from stanch.core.content import MAX_PACKS, ContentKind, PackRef, Updated
from stanch.core.envelope import ContentBody
from stanch.core.errors import ActionFailed, NotFound, TimedOut, Unavailable, VerificationFailed
from tests.fakes.packs import PackGateway
from tests.fakes.waiting import eventually

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ONE = {"a.yar": b"rule one { condition: false }"}
TWO = {"a.yar": b"rule two { condition: false }", "b.yar": b"rule b { condition: false }"}


@dataclass
class Entries:
    """As much of a journal as content needs."""

    kept: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        return self.kept.get(key)


@dataclass
class Endpoint:
    """One endpoint with a folder, a gateway, and a trial that says what a test wants."""

    folder: Path
    gateway: PackGateway = field(default_factory=PackGateway)
    journal: Entries = field(default_factory=Entries)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: list[Tried | Exception] = field(default_factory=list)
    """What the next trials say; otherwise all is well."""
    tried: int = 0

    def content(self) -> AgentContent:
        """The content as a start of the agent finds it."""
        store = ContentStore(self.folder)
        return AgentContent(
            store=store,
            journal=self.journal,
            fetcher=PackFetcher(store, self.gateway, range_bytes=100),
            now=lambda: NOW,
            tell=self.tell,
            trial=self.trial,
        )

    def want(self, *refs: PackRef) -> None:
        """The server has signed this, and it is in the journal."""
        self.journal.kept["content"] = ContentBody(packs=refs).model_dump(mode="json")

    async def tell(self, kind: str, detail: Any) -> None:
        self.told.append((kind, dict(detail)))

    async def trial(self, pack: int) -> Tried:
        self.tried += 1
        assert os.read(pack, 1) == b"{"
        answer = self.answers.pop(0) if self.answers else Tried(rules=3)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path / "content")


async def updated(content: AgentContent) -> list[Updated]:
    return [one async for one in content.update()]


def own(content: AgentContent) -> dict[str, int]:
    """Name to version of what the server wanted here."""
    return {one.name: one.version for one in content.installed() if not one.builtin}


async def test_what_is_wanted_comes_changes_and_goes(endpoint: Endpoint) -> None:
    """New content is fetched, tried and used; another version replaces it; what is not wanted any more is removed."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    assert await updated(content) == [Updated(name="apt", after=1)]
    endpoint.want(endpoint.gateway.publish("apt", TWO, version=2))
    assert await updated(content) == [Updated(name="apt", before=1, after=2)]
    assert await updated(content) == []
    [one] = [one for one in content.installed() if not one.builtin]
    assert (one.version, one.files, one.rules, one.since) == (2, 2, 3, NOW)
    endpoint.want()
    assert await updated(content) == [Updated(name="apt", before=2)]
    assert own(content) == {}
    assert [one.name for one in endpoint.folder.iterdir()] == ["installed.json"]


async def test_materials_are_the_files_of_the_pack(endpoint: Endpoint) -> None:
    """Each file of a pack is material with its own hash and its own bytes."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", TWO, kind=ContentKind.YARA))
    await updated(content)
    found = content.materials(["apt", "apt"])
    assert [(one.name, one.kind) for one in found] == [("apt/a.yar", "yara"), ("apt/b.yar", "yara")]
    for one, data in zip(found, TWO.values(), strict=True):
        async with one.open() as opened:
            assert await opened.read(0, opened.size) == data
        assert one.sha256 == hashlib.sha256(data).hexdigest()


async def test_what_is_not_there_is_named(endpoint: Endpoint) -> None:
    """Asking for content that is not here says what is missing and what there is."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    await updated(content)
    with pytest.raises(NotFound, match=r"got other, more, expected stanch-base, stanch-base-hashes, apt"):
        content.materials(["other", "apt", "more"])


async def test_what_comes_with_the_agent_is_always_there(endpoint: Endpoint) -> None:
    """Our own rules need no server, cannot be replaced by it, and are not removed when it wants nothing."""
    content = endpoint.content()
    assert [one.name for one in content.installed()] == list(BASE)
    assert content.materials(list(BASE))
    endpoint.want(endpoint.gateway.publish("stanch-base", ONE, version=9))
    [one] = await updated(content)
    assert (one.refused, one.after) == (9, None)
    assert "kept for what comes with the agent" in one.why
    endpoint.want()
    assert await updated(content) == []
    assert [one.name for one in content.installed()] == list(BASE)


async def test_what_does_not_load_is_refused(endpoint: Endpoint) -> None:
    """A version of which nothing counts never replaces the one that loads; it is told, once, and not kept."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    await updated(content)
    bad = endpoint.gateway.publish("apt", TWO, version=2)
    endpoint.want(bad)
    endpoint.answers = [Tried(rules=0, problems=1, why="a.yar:1: syntax error")] * 2
    for _ in range(2):
        [one] = await updated(content)
        assert (one.before, one.after, one.refused) == (1, 1, 2)
        assert "a.yar:1: syntax error" in one.why
    assert own(content) == own(endpoint.content()) == {"apt": 1}
    [(kind, detail)] = endpoint.told
    assert (kind, detail["name"], detail["refused"], detail["in_use"]) == ("content-not-loaded", "apt", 2, 1)
    assert not (endpoint.folder / f"{bad.sha256}.pack").exists()


async def test_what_kills_its_reader_is_refused(endpoint: Endpoint) -> None:
    """A pack over which the process that tries it dies is as one that does not load."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    endpoint.answers = [ActionFailed("The content could not be looked through", got="signal 11")]
    [one] = await updated(content)
    assert (one.after, one.refused) == (None, 1)
    assert "signal 11" in one.why
    assert [kind for kind, _ in endpoint.told] == ["content-not-loaded"]


@pytest.mark.parametrize("error", [Unavailable("cannot start"), TimedOut("busy")])
async def test_a_trial_that_says_nothing_is_tried_again(endpoint: Endpoint, error: Exception) -> None:
    """If the machine is too busy to try it, the version is not used now, nobody is told, and the next time counts."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    endpoint.answers = [error]
    assert [one.refused for one in await updated(content)] == [1]
    assert endpoint.told == []
    asked = len(endpoint.gateway.asked)
    assert [one.after async for one in content.update_by_itself()] == [1]
    assert len(endpoint.gateway.asked) == asked


async def test_what_is_partly_wrong_is_used(endpoint: Endpoint) -> None:
    """A version of which some rules count is used, and what does not count is told."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    endpoint.answers = [Tried(rules=2, problems=1, why="a.yar:7 x: unknown")]
    assert await updated(content) == [Updated(name="apt", after=1, why="a.yar:7 x: unknown")]


async def test_one_that_fails_does_not_stop_the_others(endpoint: Endpoint) -> None:
    """Each name is updated for itself."""
    content = endpoint.content()
    gone = endpoint.gateway.publish("b", {"b.yar": b"rule b { condition: false }"})
    del endpoint.gateway.packs[gone.sha256]
    endpoint.want(endpoint.gateway.publish("a", ONE), gone, endpoint.gateway.publish("c", TWO))
    assert [(one.name, one.after, one.refused) for one in await updated(content)] == [
        ("a", 1, None),
        ("b", None, 1),
        ("c", 1, None),
    ]


async def test_going_back_fetches_nothing(endpoint: Endpoint) -> None:
    """When the server goes back to the version before, its pack is still there; the same bytes need no new trial."""
    content = endpoint.content()
    first = endpoint.gateway.publish("apt", ONE)
    endpoint.want(first)
    await updated(content)
    endpoint.want(endpoint.gateway.publish("apt", TWO, version=2))
    await updated(content)
    endpoint.gateway.packs.clear()
    endpoint.want(first.model_copy(update={"version": 3}))
    assert await updated(content) == [Updated(name="apt", before=2, after=3)]
    tried = endpoint.tried
    endpoint.want(first.model_copy(update={"version": 4}))
    assert await updated(content) == [Updated(name="apt", before=3, after=4)]
    assert endpoint.tried == tried
    assert content.materials(["apt"])[0].sha256 == hashlib.sha256(ONE["a.yar"]).hexdigest()


async def test_a_lost_pack_is_fetched_again(endpoint: Endpoint) -> None:
    """A pack that somebody removed from the disk comes back with the next update."""
    content = endpoint.content()
    ref = endpoint.gateway.publish("apt", ONE)
    endpoint.want(ref)
    await updated(content)
    (endpoint.folder / f"{ref.sha256}.pack").unlink()
    assert own(content) == {}
    assert await updated(content) == [Updated(name="apt", after=1)]


async def test_a_scan_ends_with_what_it_began_with(endpoint: Endpoint) -> None:
    """Material that was handed to a scan can be read though the server takes it back meanwhile."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", TWO))
    await updated(content)
    materials = content.materials(["apt"])
    endpoint.want()
    await updated(content)
    assert [one.name for one in endpoint.folder.iterdir()] == ["installed.json"]
    for one, data in zip(materials, TWO.values(), strict=True):
        async with one.open() as opened:
            assert await opened.read(0, one.size) == data


def _open() -> int:
    """Descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_what_a_scan_held_is_let_go(endpoint: Endpoint) -> None:
    """No descriptor stays open when nobody has the material any more."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", TWO))
    await updated(content)
    before = _open()
    materials = content.materials(["apt"])
    assert _open() == before + 1
    del materials
    assert _open() == before


@pytest.mark.parametrize("place", [0, 30, -1])
async def test_a_damaged_pack_is_fetched_again(endpoint: Endpoint, place: int) -> None:
    """A pack that the disk has changed is found by an update that is ordered, replaced, and told; and only then."""
    content = endpoint.content()
    ref = endpoint.gateway.publish("apt", ONE)
    endpoint.want(ref)
    await updated(content)
    path = endpoint.folder / f"{ref.sha256}.pack"
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    [one] = await updated(content)
    assert (one.name, one.after, "damaged" in one.why) == ("apt", 1, True)
    async with content.materials(["apt"])[0].open() as opened:
        assert await opened.read(0, len(ONE["a.yar"])) == ONE["a.yar"]
    assert await updated(content) == []


async def test_a_damaged_list_of_files_is_named(endpoint: Endpoint) -> None:
    """A scan that needs a damaged pack says which it is, and what helps."""
    content = endpoint.content()
    ref = endpoint.gateway.publish("apt", ONE)
    endpoint.want(ref)
    await updated(content)
    (endpoint.folder / f"{ref.sha256}.pack").write_bytes(b"x" * ref.size)
    with pytest.raises(VerificationFailed, match="apt is damaged") as caught:
        content.materials(["apt"])
    assert "update-content" in (caught.value.hint or "")


async def test_refusals_of_many_names_end_nothing(endpoint: Endpoint) -> None:
    """A server that signs hundreds of names that do not load, one after another, does not stop the updates."""
    content = endpoint.content()
    for number in range(MAX_PACKS + 5):
        endpoint.answers = [Tried(rules=0, why="bad")]
        endpoint.want(endpoint.gateway.publish(f"bad-{number}", {"a.yar": b"//%d" % number}))
        [one] = await updated(content)
        assert one.refused == 1
    endpoint.want(endpoint.gateway.publish("good", ONE))
    assert await updated(content) == [Updated(name="good", after=1)]


async def test_a_file_that_cannot_be_opened_now_is_not_refused_for_ever(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that is short of descriptors says nothing of the rules themselves: they are tried again."""
    content = endpoint.content()
    ref = endpoint.gateway.publish("apt", ONE)
    endpoint.want(ref)
    await PackFetcher(ContentStore(endpoint.folder), endpoint.gateway).fetch(ref)
    opening = os.open

    def fails(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if str(path).endswith(".pack"):
            raise OSError(errno.EMFILE, "Too many open files")
        return opening(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", fails)
    [one] = [one async for one in content.update_by_itself()]
    assert one.refused == 1
    monkeypatch.undo()
    assert endpoint.told == []
    assert [one.after async for one in content.update_by_itself()] == [1]


async def test_too_much_is_left_out(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content beyond what an endpoint may hold is refused before it is fetched."""
    content = endpoint.content()
    first, second = endpoint.gateway.publish("a", ONE), endpoint.gateway.publish("b", TWO)
    monkeypatch.setattr(content_fetching, "MAX_TOTAL", first.size)
    endpoint.want(first, second)
    assert [(one.name, one.refused) for one in await updated(content)] == [("a", None), ("b", 1)]


@pytest.mark.parametrize("body", [{"packs": "x"}, {"packs": [{"name": "../x"}]}, {"packs": [{}] * 101}, {}])
async def test_a_body_that_is_not_understood_changes_nothing(endpoint: Endpoint, body: dict[str, Any]) -> None:
    """What a newer server signed and this agent does not understand leaves in use what is in use."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    await updated(content)
    endpoint.journal.kept["content"] = body
    assert await updated(content) == []
    assert own(content) == {"apt": 1}


async def test_updates_take_turns(endpoint: Endpoint) -> None:
    """An order and the agent itself that update at the same time fetch each pack once, and one that is left halfway
    does not stop the next.
    """
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("a", ONE), endpoint.gateway.publish("b", TWO))
    left = content.update()
    assert (await anext(left)).name == "a"
    both = await asyncio.gather(updated(content), updated(content))
    assert sorted(one.name for found in both for one in found) == ["b"]
    assert endpoint.tried == 2
    await left.aclose()


# --- by itself -------------------------------------------------------------------------------------------------------


async def test_it_updates_at_its_start_and_when_something_is_signed(endpoint: Endpoint) -> None:
    """Nobody has to order it: what is signed is installed, spread over time."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    waits: list[float] = []
    updates = ContentUpdates(content, jitter=lambda: waits.append(0) or 0.0, spread=100)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(updates.run())
        await eventually(lambda: own(content) == {"apt": 1})
        second = endpoint.gateway.publish("apt", TWO, version=2)
        endpoint.want(second)
        await updates.learn(ContentBody(packs=(second,)))
        await eventually(lambda: own(content) == {"apt": 2})
        task.cancel()
    assert len(waits) == 2


async def test_what_does_not_load_is_not_tried_again_by_itself(endpoint: Endpoint) -> None:
    """A version that is known not to load is neither fetched nor tried again, also after a restart, until ordered."""
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    endpoint.answers = [Tried(rules=0)]
    assert [one.refused async for one in endpoint.content().update_by_itself()] == [1]
    assert [one async for one in endpoint.content().update_by_itself()] == []
    assert (endpoint.tried, len(endpoint.told)) == (1, 1)
    assert [one.after for one in await updated(endpoint.content())] == [1]


async def test_it_tries_again_what_did_not_work_out(endpoint: Endpoint) -> None:
    """An update that failed for a reason that may pass is tried again later."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    endpoint.answers = [Unavailable("cannot start")]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ContentUpdates(content, jitter=lambda: 0.0).run(retry=0.001))
        await eventually(lambda: own(content) == {"apt": 1})
        task.cancel()


# --- for real --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "kind", "rules", "problems"),
    [
        ({"a.yar": b"rule a { condition: true } rule b { condition: true }"}, ContentKind.YARA, 2, False),
        ({"a.yar": b"rule a { condition: true } rule b { condition: nowhere }"}, ContentKind.YARA, 1, True),
        ({"a.yar": b"rule a {"}, ContentKind.YARA, 0, True),
        ({"a": hashlib.sha256(b"x").hexdigest().encode()}, ContentKind.HASHES, 1, False),
        ({"a": b"nothing"}, ContentKind.HASHES, 0, True),
    ],
)
async def test_the_trial_reads_as_scans_do(
    tmp_path: Path, files: dict[str, bytes], kind: ContentKind, rules: int, *, problems: bool
) -> None:
    """The confined process that tries a pack counts what scans will use of it, and names what they will not."""
    gateway = PackGateway()
    path = tmp_path / "pack"
    path.write_bytes(gateway.packs[gateway.publish("x", files, kind=kind).sha256])
    with path.open("rb") as pack:
        tried = await try_pack(pack.fileno())
    assert (tried.rules, bool(tried.problems), bool(tried.why)) == (rules, problems, problems)


# --- kill -9 ---------------------------------------------------------------------------------------------------------

CHANGING = ("write", "fsync", "rename", "unlink", "mkdir", "ftruncate")


def _dies_at(step: int) -> None:
    """Let this process be killed right before its so-manieth change of the disk."""
    seen = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def before(*args: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **named)

        return before

    for name in CHANGING:
        setattr(os, name, counted(getattr(os, name)))


def _killed(endpoint: Endpoint, step: int) -> bool:
    """Update in a process of its own that dies at a step; did it?"""
    pid = os.fork()
    if pid == 0:
        _dies_at(step)
        asyncio.run(updated(endpoint.content()))
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def test_killed_at_any_step_it_has_the_old_or_the_new(tmp_path: Path) -> None:
    """Wherever an update is killed, each content is whole, in its old or new version, and the next update ends it."""
    step = 0
    while True:
        step += 1
        endpoint = Endpoint(tmp_path / f"{step}")
        endpoint.want(endpoint.gateway.publish("a", ONE), endpoint.gateway.publish("gone", {"g": ONE["a.yar"]}))
        asyncio.run(updated(endpoint.content()))
        endpoint.want(endpoint.gateway.publish("a", TWO, version=2), endpoint.gateway.publish("new", TWO))
        killed = _killed(endpoint, step)
        content = endpoint.content()
        assert own(content).items() <= {("a", 1), ("a", 2), ("gone", 1), ("new", 1)}
        assert "a" in own(content)
        asyncio.run(_readable(content))
        asyncio.run(updated(content))
        assert own(content) == {"a": 2, "new": 1}
        asyncio.run(_readable(content))
        assert {one.suffix for one in endpoint.folder.iterdir()} == {".pack", ".json"}
        if not killed:
            break
    assert step > 15


async def _readable(content: AgentContent) -> None:
    for one in content.materials([one.name for one in content.installed()]):
        async with one.open() as opened:
            assert hashlib.sha256(await opened.read(0, opened.size)).hexdigest() == one.sha256


async def test_what_a_task_scans_with_stays_until_it_ends(endpoint: Endpoint) -> None:
    """Content that is taken back is there for the scan that is resumed with it, and goes after that scan."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE), endpoint.gateway.publish("other", TWO))
    await updated(content)
    content.in_use = lambda: {"apt"}
    endpoint.want()
    assert await updated(content) == [Updated(name="other", before=1)]
    assert content.waits()
    restarted = endpoint.content()
    assert [one.name for one in restarted.materials(["apt"])] == ["apt/a.yar"]
    content.in_use = frozenset
    assert await updated(content) == [Updated(name="apt", before=1)]
    assert not content.waits()


async def test_what_loads_in_the_end_is_told(endpoint: Endpoint) -> None:
    """Once, and only of a version that was told not to load."""
    content = endpoint.content()
    endpoint.want(endpoint.gateway.publish("apt", ONE))
    endpoint.answers = [Tried(rules=0, why="too old an agent")]
    await updated(content)
    assert [one.after for one in await updated(content)] == [1]
    await updated(content)
    assert [kind for kind, _ in endpoint.told] == ["content-not-loaded", "content-loaded"]
    assert endpoint.told[1][1]["loaded"] == 1
