"""Content on a real database and disk: imported once, published, rolled back, removed, and whole after every crash."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import select

from stanch.core.content import ContentKind
from stanch.core.errors import (
    ActionFailed,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    StanchError,
    TimedOut,
    TooLarge,
    Unavailable,
    VerificationFailed,
)
from stanch.core.policy import Role
from stanch.core.rest import GroupCreate
from stanch.core.rest_content import ContentDetail, ForGroups, Imported, Publish
from stanch.server import content as module
from stanch.server import content_rows
from stanch.server.content import ContentDesk
from stanch.server.content_lint import Linter
from stanch.server.content_packs import Packs
from stanch.server.store.tables import audit
from stanch.worker.ask_lint import Looked
from tests.fakes.packed import BAD, GOOD, chunks, pack
from tests.fakes.server_parts import Parts, principal


class Worker:
    """Answers what it is told to, instead of looking."""

    def __init__(self) -> None:
        self.rules, self.problems = 1, 0
        self.error: Exception | None = None
        self.asked = 0

    async def __call__(self, _descriptor: int) -> Looked:
        """One rule in each of two files."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        answer = {"confined": {}, "files": [(self.rules, self.problems)], "unknown": [], "why_incomplete": ""}
        wrong = [{"file": "a.yar", "line": 2, "text": "nonsense"}] * self.problems
        return Looked.model_validate({**answer, "problems": wrong})


class Listener:
    """Counts how often everybody was woken."""

    def __init__(self) -> None:
        self.woken = 0

    def wake_all(self) -> None:
        """Once more."""
        self.woken += 1


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def desk(parts: Parts, tmp_path: Path, worker: Worker, listener: Listener) -> ContentDesk:
    """An empty store."""
    made = ContentDesk(
        packs=Packs(tmp_path / "content"),
        database=parts.database,
        listeners=listener,
        linter=Linter(ask=worker),
        now=parts.clock,
    )
    await made.recover()
    return made


async def bring(
    desk: ContentDesk, number: int = 1, name: str = "apt", *, kind: ContentKind = ContentKind.YARA, **how
) -> Imported:
    """Import the pack of this number."""
    return await desk.take(principal(), name, chunks(pack({"a.yar": GOOD + b"//%d" % number}, kind)), **how)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "content").iterdir())


async def entries(parts: Parts, what: str) -> list[Mapping]:
    query = select(audit.c.detail).where(audit.c.what == what).order_by(audit.c.n)
    return await parts.database.read(lambda connection: list(connection.execute(query).scalars()))


def current(detail: ContentDetail) -> dict[str, int]:
    return {one.group: one.version for one in detail.published}


# --- importing -------------------------------------------------------------------------------------------------------


async def test_an_import_is_kept_and_audited(desk: ContentDesk, parts: Parts, tmp_path: Path) -> None:
    """Its bytes under their hash, with what was found in them; published to nobody."""
    made = await desk.take(
        principal(Role.INCIDENT_LEAD), "apt", chunks(pack({"a.yar": GOOD})), note="x", detail={"address": "::1"}
    )
    assert made.new
    one = made.version
    assert (one.version, one.kind, one.files, one.rules, one.by, one.note) == (1, ContentKind.YARA, 1, 1, "ada", "x")
    assert (tmp_path / "content" / one.sha256).read_bytes() == pack({"a.yar": GOOD})
    assert files(tmp_path) == [one.sha256]
    assert [one.lint.files[0].name, one.groups] == ["a.yar", ()]
    (entry,) = await entries(parts, "content-import")
    assert (entry["version"], entry["address"], entry["sha256"]) == (1, "::1", one.sha256)


async def test_the_same_bytes_make_no_version(desk: ContentDesk, parts: Parts, tmp_path: Path, worker: Worker) -> None:
    """Nor a look: it is the version that it was. Under another name it is another, on the same bytes."""
    first = await bring(desk)
    await bring(desk, 2)
    again = await bring(desk)
    assert (again.new, again.version.version) == (False, 1)
    assert worker.asked == 2
    assert (await bring(desk, 3)).version.version == 3
    assert (await bring(desk, 1, "other")).version.version == 1
    assert len(files(tmp_path)) == 3
    assert len(await entries(parts, "content-import")) == 4
    assert first.version.sha256 == again.version.sha256


async def test_two_at_once_with_the_same_bytes(desk: ContentDesk, tmp_path: Path) -> None:
    """One of them is the version, the other one is told so."""
    made = await asyncio.gather(*(bring(desk) for _ in range(3)))
    assert sorted(one.new for one in made) == [False, False, True]
    assert {one.version.version for one in made} == {1}
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST, Role.RESPONDER])
async def test_not_everybody_may_change_it(desk: ContentDesk, tmp_path: Path, role: Role) -> None:
    """What endpoints look for is for those who lead an incident."""
    await bring(desk)
    who = principal(role)
    for what in (
        desk.take(who, "x", chunks(b"")),
        desk.check(who, chunks(b"")),
        desk.publish(who, "apt", Publish(version=1)),
        desk.unpublish(who, "apt", ForGroups()),
        desk.roll_back(who, "apt", ForGroups()),
        desk.delete(who, "apt", 1),
    ):
        with pytest.raises(Denied):
            await what
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Invalid),
        (b"rule a { condition: true }", Invalid),
        (pack({"a.yar": GOOD}) + b"x", Invalid),
        (pack({"a.yar": GOOD})[:-1], Invalid),
        (pack({"a.yar": GOOD}).replace(b"good", b"evil"), Invalid),
    ],
)
async def test_what_is_no_pack_leaves_nothing(
    desk: ContentDesk, parts: Parts, tmp_path: Path, data: bytes, error: type[StanchError]
) -> None:
    """No file, no version, no audit entry, and no worker for it."""
    with pytest.raises(error):
        await desk.take(principal(), "apt", chunks(data))
    assert files(tmp_path) == []
    assert await desk.list() == []
    assert await entries(parts, "content-import") == []


async def test_what_is_announced_is_held_to(desk: ContentDesk, tmp_path: Path) -> None:
    """Its size before anything is read, and its hash."""
    with pytest.raises(TooLarge):
        await bring(desk, announced=module.MAX_PACK_BYTES + 1)
    with pytest.raises(VerificationFailed):
        await bring(desk, sha256="0" * 64)
    assert files(tmp_path) == []


async def test_another_kind_is_another_content(desk: ContentDesk, tmp_path: Path) -> None:
    """As long as there are versions of the one."""
    await bring(desk)
    with pytest.raises(Conflict, match="another kind"):
        await bring(desk, kind=ContentKind.HASHES)
    await desk.delete(principal(), "apt", 1)
    assert (await bring(desk, kind=ContentKind.HASHES)).version.version == 2
    assert len(files(tmp_path)) == 1


async def test_strict_refuses_any_problem(desk: ContentDesk, tmp_path: Path, worker: Worker) -> None:
    """And says which; without it the rest counts."""
    worker.problems = 1
    with pytest.raises(Invalid, match="does not count") as caught:
        await bring(desk, strict=True)
    assert "a.yar:2: nonsense" in str(caught.value.got)
    assert files(tmp_path) == []
    assert (await bring(desk)).version.problems == 1


async def test_a_worker_that_dies_leaves_nothing_that_counts(desk: ContentDesk, worker: Worker) -> None:
    """It is kept, with the reason, and cannot be published."""
    worker.error = ActionFailed("It died", got="signal 9")
    made = await bring(desk)
    assert (made.version.rules, made.version.lint.complete) == (0, False)
    assert "signal 9" in made.version.lint.why_incomplete
    with pytest.raises(Conflict, match="counts"):
        await desk.publish(principal(), "apt", Publish(version=1))
    with pytest.raises(Invalid):
        await bring(desk, 2, strict=True)


async def test_what_was_not_looked_at_is_looked_at_again(desk: ContentDesk, parts: Parts, worker: Worker) -> None:
    """The same bytes again, once the worker has time for them: the same version counts, and the audit tells."""
    worker.error = TimedOut("The content could not be looked through in time")
    assert (await bring(desk)).version.rules == 0
    assert not (await bring(desk)).version.lint.complete
    worker.error = None
    again = await bring(desk)
    assert (again.new, again.version.version, again.version.rules) == (False, 1, 1)
    await desk.publish(principal(), "apt", Publish(version=1))
    assert [one["version"] for one in await entries(parts, "content-looked-again")] == [1]
    await bring(desk)
    assert worker.asked == 3


async def test_strict_refuses_what_is_there_already(desk: ContentDesk, worker: Worker) -> None:
    """Bytes with problems are no better because somebody has imported them before."""
    worker.problems = 1
    await bring(desk)
    with pytest.raises(Invalid, match="does not count"):
        await bring(desk, strict=True)
    assert not (await bring(desk)).new


async def test_a_check_keeps_nothing(desk: ContentDesk, tmp_path: Path) -> None:
    """It only looks."""
    lint = await desk.check(principal(), chunks(pack({"a.yar": GOOD})))
    assert [one.rules for one in lint.files] == [1]
    assert (files(tmp_path), await desk.list()) == ([], [])


async def test_not_too_many_at_once(desk: ContentDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may come when one has ended, however it ended."""
    monkeypatch.setattr(module, "MAX_AT_ONCE", 1)
    waiting, goes_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        waiting.set()
        await goes_on.wait()
        yield b"nonsense\n"

    async with asyncio.TaskGroup() as group:
        first = group.create_task(_refused(desk, slow()))
        await waiting.wait()
        with pytest.raises(Unavailable, match="at once"):
            await bring(desk)
        goes_on.set()
    assert first.result()
    assert (await bring(desk)).new


async def _refused(desk: ContentDesk, some: AsyncIterator[bytes]) -> bool:
    try:
        await desk.take(principal(), "x", some)
    except Invalid:
        return True
    return False


@pytest.mark.parametrize(("bound", "message"), [("MAX_VERSIONS", "too many versions"), ("MAX_PACKS", "too much")])
async def test_nobody_fills_the_table(
    desk: ContentDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, message: str
) -> None:
    """Versions of one name and names are bounded, and what is refused leaves no file."""
    monkeypatch.setattr(content_rows, bound, 1)
    await bring(desk)
    with pytest.raises(Conflict, match=message):
        await bring(desk, 2, "apt" if bound == "MAX_VERSIONS" else "other")
    assert len(files(tmp_path)) == 1


# --- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["take", "look", "keep", "write"])
async def test_a_crash_leaves_no_half_version(
    desk: ContentDesk, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Wherever it comes: the next start finds the version or nothing, and no bytes that belong to none."""

    class Crash(BaseException):
        """The process is gone: nothing is tidied up."""

    async def crash(*_: object, **__: object) -> None:
        raise Crash

    owner = {"take": desk.packs, "keep": desk.packs, "look": desk._linter, "write": parts.database}[where]
    monkeypatch.setattr(owner, where, crash)
    monkeypatch.setattr(desk.packs, "drop", lambda _path: asyncio.sleep(0))
    with pytest.raises(Crash):
        await bring(desk)
    monkeypatch.undo()
    (tmp_path / "content" / ".half-0").write_bytes(b"torn")
    await desk.recover()
    assert (files(tmp_path), await desk.list()) == ([], [])
    assert (await bring(desk)).version.version == 1
    await desk.recover()
    assert len(files(tmp_path)) == 1


async def test_a_failed_commit_leaves_no_bytes(
    desk: ContentDesk, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But those that another version needs stay."""
    await bring(desk, 1, "other")

    async def fails(_unit: object) -> None:
        raise OSError

    monkeypatch.setattr(parts.database, "write", fails)
    for number in (1, 2):
        with pytest.raises(OSError):
            await bring(desk, number)
    monkeypatch.undo()
    assert files(tmp_path) == [(await desk.version("other", 1)).sha256]


# --- publishing ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def three(desk: ContentDesk, parts: Parts) -> ContentDesk:
    """Three versions, a group, and some endpoints."""
    await parts.add_endpoints("a", labels=["role=web"])
    await parts.add_endpoints("b")
    await parts.groups.create(principal(), GroupCreate(name="web", labels=("role=web",)))
    for number in range(3):
        await bring(desk, number)
    return desk


async def test_a_version_is_published(three: ContentDesk, parts: Parts, listener: Listener) -> None:
    """For everybody, or for a group; everybody is woken, and each change is in the audit, once."""
    found = await three.publish(principal(), "apt", Publish(version=1))
    assert (current(found), found.endpoints, listener.woken) == ({"all": 1}, 2, 1)
    found = await three.publish(principal(), "apt", Publish(version=2, groups=("web", "web")))
    assert current(found) == {"web": 2, "all": 1}
    assert [one.groups for one in found.every] == [(), ("web",), ("all",)]
    await three.publish(principal(), "apt", Publish(version=2, groups=("web",)))
    told = [(one["group"], one["version"]) for one in await entries(parts, "content-publish")]
    assert told == [("all", 1), ("web", 2)]
    (view,) = await three.list()
    assert (view.newest, view.versions, current(view)) == (3, 3, {"web": 2, "all": 1})


async def test_what_cannot_be_published(three: ContentDesk) -> None:
    """No such content, version or group; and nobody publishes beyond their reach."""
    for wanted, name in (
        (Publish(version=1), "none"),
        (Publish(version=9), "apt"),
        (Publish(version=1, groups=("none",)), "apt"),
    ):
        with pytest.raises(NotFound):
            await three.publish(principal(), name, wanted)
    with pytest.raises(Denied):
        await three.publish(principal(labels=("role=web",)), "apt", Publish(version=1))
    found = await three.publish(principal(labels=("role=web",)), "apt", Publish(version=1, groups=("web",)))
    assert current(found) == {"web": 1}
    with pytest.raises(Denied):
        await three.unpublish(principal(labels=("role=db",)), "apt", ForGroups())


async def test_a_rollback_goes_one_step_back(three: ContentDesk, parts: Parts) -> None:
    """And the next one a step further; what is undone stays in the history."""
    for number in (1, 3, 2):
        await three.publish(principal(), "apt", Publish(version=number))
    assert current(await three.roll_back(principal(name="bob"), "apt", ForGroups())) == {"all": 3}
    found = await three.roll_back(principal(), "apt", ForGroups())
    assert current(found) == {"all": 1}
    assert [(one.version, one.undone_by) for one in found.history] == [(2, "bob"), (3, "ada"), (1, None)]
    with pytest.raises(Conflict, match="nothing to go back"):
        await three.roll_back(principal(), "apt", ForGroups())
    assert current(await three.get("apt")) == {"all": 1}
    told = [(one["before"], one["after"]) for one in await entries(parts, "content-rollback")]
    assert told == [(2, 3), (3, 1)]


async def test_a_rollback_of_a_group(three: ContentDesk) -> None:
    """With several groups one must say which; taking back is a step as well."""
    await three.publish(principal(), "apt", Publish(version=1))
    await three.publish(principal(), "apt", Publish(version=2, groups=("web",)))
    await three.unpublish(principal(), "apt", ForGroups(groups=("web",)))
    with pytest.raises(Invalid, match="several groups"):
        await three.roll_back(principal(), "apt", ForGroups())
    found = await three.roll_back(principal(), "apt", ForGroups(groups=("web",)))
    assert current(found) == {"web": 2, "all": 1}


async def test_it_is_taken_back(three: ContentDesk, listener: Listener) -> None:
    """From all groups for which there is something, and only if there is."""
    with pytest.raises(Conflict):
        await three.unpublish(principal(), "apt", ForGroups())
    await three.publish(principal(), "apt", Publish(version=1, groups=("all", "web")))
    assert current(await three.unpublish(principal(), "apt", ForGroups())) == {}
    assert listener.woken == 2
    with pytest.raises(Conflict):
        await three.unpublish(principal(), "apt", ForGroups(groups=("web",)))


async def test_a_group_takes_what_was_published_with_it(three: ContentDesk, parts: Parts) -> None:
    """A new group of that name begins with nothing."""
    await three.publish(principal(), "apt", Publish(version=1, groups=("web",)))
    await parts.groups.delete(principal(), "web")
    await parts.groups.create(principal(), GroupCreate(name="web", labels=("role=web",)))
    assert current(await three.get("apt")) == {}


# --- removing --------------------------------------------------------------------------------------------------------


async def test_a_version_is_removed(three: ContentDesk, parts: Parts, tmp_path: Path) -> None:
    """Not the current one; and nobody goes back to one that is gone."""
    for number in (1, 2, 3):
        await three.publish(principal(), "apt", Publish(version=number))
    with pytest.raises(Conflict, match="current"):
        await three.delete(principal(), "apt", 3)
    await three.delete(principal(), "apt", 2)
    with pytest.raises(NotFound):
        await three.delete(principal(), "apt", 2)
    assert len(files(tmp_path)) == 2
    assert current(await three.roll_back(principal(), "apt", ForGroups())) == {"all": 1}
    assert [one["version"] for one in await entries(parts, "content-delete")] == [2]
    with pytest.raises(NotFound, match="no such version") as caught:
        await three.version("apt", 2)
    assert caught.value.expected == "one of 3, 1"


async def test_whoever_is_limited_takes_nothing_from_others(three: ContentDesk) -> None:
    """A version to which groups beyond one's labels could go back stays; one of the own group may go."""
    await three.publish(principal(), "apt", Publish(version=1))
    await three.publish(principal(), "apt", Publish(version=2))
    limited = principal(labels=("role=web",))
    with pytest.raises(Denied):
        await three.delete(limited, "apt", 1)
    assert current(await three.roll_back(principal(), "apt", ForGroups())) == {"all": 1}
    for number in (2, 3):
        await three.publish(limited, "apt", Publish(version=number, groups=("web",)))
    await three.delete(limited, "apt", 2)
    assert [one.version for one in (await three.get("apt")).every] == [3, 1]


async def test_bytes_that_another_version_needs_stay(desk: ContentDesk, tmp_path: Path) -> None:
    """Until the last of them is gone; a number is never used twice."""
    await bring(desk)
    await bring(desk, 1, "other")
    await desk.delete(principal(), "apt", 1)
    assert len(files(tmp_path)) == 1
    await desk.delete(principal(), "other", 1)
    assert (files(tmp_path), await desk.list()) == ([], [])
    with pytest.raises(NotFound):
        await desk.get("apt")
    assert (await bring(desk)).version.version == 2


async def test_a_real_worker_looks(parts: Parts, tmp_path: Path, listener: Listener) -> None:
    """From the pack on the disk to what is told of it."""
    desk = ContentDesk(packs=Packs(tmp_path / "content"), database=parts.database, listeners=listener, now=parts.clock)
    await desk.recover()
    made = await desk.take(principal(), "apt", chunks(pack({"bad.yar": BAD, "good.yar": GOOD})))
    assert [(one.name, one.rules, one.problems) for one in made.version.lint.files] == [
        ("bad.yar", 0, 1),
        ("good.yar", 1, 0),
    ]
    assert (made.version.lint.problems[0].file, made.version.lint.problems[0].line) == ("bad.yar", 2)
