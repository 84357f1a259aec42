"""The packs on the agent's disk: what is in use, what is kept, what goes, and what a damaged disk makes of it."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stanch.agent import content_store
from stanch.agent.content_files import MASK
from stanch.agent.content_store import ContentStore, Entry
from stanch.core.content import ContentKind, PackRef
from stanch.core.errors import Invalid, NotFound, TooLarge, Unavailable, VerificationFailed
from tests.fakes.packs import PackGateway

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def put(
    store: ContentStore, name: str = "apt", version: int = 1, data: bytes = b"rule a { condition: false }"
) -> Entry:
    """A version that is fetched, and used."""
    gateway = PackGateway()
    ref = gateway.publish(name, {"a.yar": data + b"//%d" % version}, version=version)
    fetched(store, ref, gateway)
    entry = Entry(**ref.model_dump(), files=1, rules=1, since=NOW)
    store.use(entry)
    return entry


def fetched(store: ContentStore, ref: PackRef, gateway: PackGateway) -> None:
    part = store.part(ref)
    part.append(gateway.packs[ref.sha256])
    part.check()
    part.finish()
    part.close()


def names(store: ContentStore) -> set[str]:
    return {one.name for one in store.path("x").parent.iterdir()}


def test_nothing_is_there_at_first(store: ContentStore) -> None:
    """Without a folder nothing is installed, and nothing is made by looking."""
    assert store.all() == ()
    assert store.current("apt") is None
    assert not store.path("x").parent.exists()


def test_what_is_used_survives_a_restart(store: ContentStore, tmp_path: Path) -> None:
    """A version in use is in use again for a store that reads the folder anew, and its files are found in it."""
    entry = put(store)
    again = ContentStore(tmp_path / "content")
    assert again.all() == (entry,)
    [place] = again.held(entry).places
    data = again.path(entry.sha256).read_bytes().translate(MASK)[place.start : place.end]
    assert (place.file.name, data) == ("a.yar", b"rule a { condition: false }//1")
    assert again.all()[0].installed.since == NOW


def test_only_root_may_enter(store: ContentStore, tmp_path: Path) -> None:
    """The folder and what is in it are for the agent's own account only, whatever the umask is."""
    before = os.umask(0)
    try:
        put(store)
    finally:
        os.umask(before)
    folder = tmp_path / "content"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()} == {0o600}


def test_the_one_before_is_kept_and_older_ones_go(store: ContentStore) -> None:
    """Going back one version finds its pack; the version before that is removed."""
    first, second, third = (put(store, version=number) for number in (1, 2, 3))
    store.tidy([])
    assert store.current("apt") == third
    assert names(store) == {f"{second.sha256}.pack", f"{third.sha256}.pack", "installed.json"}
    store.use(second)
    assert (store.current("apt"), store.state.packs["apt"].before) == (second, third)
    store.tidy([])
    assert store.has(third.sha256, third.size)
    assert not store.has(first.sha256, first.size)


def test_the_same_again_keeps_what_was_before(store: ContentStore) -> None:
    """Using the version in use once more does not make it its own predecessor."""
    first, second = put(store, version=1), put(store, version=2)
    store.use(second.model_copy(update={"version": 7}))
    assert store.state.packs["apt"].before == first


def test_a_lost_pack_falls_back_to_the_one_before(store: ContentStore) -> None:
    """If the file of the version in use is gone or cut, the one before is used; if both are, nothing is."""
    first, second = put(store, version=1), put(store, version=2)
    os.truncate(store.path(second.sha256), 3)
    assert store.current("apt") == first
    store.path(first.sha256).unlink()
    assert store.current("apt") is None
    assert store.all() == ()


def test_what_is_dropped_is_removed(store: ContentStore) -> None:
    """A name that is dropped is forgotten first, and its packs go with the next tidying."""
    one, other = put(store, "one", data=b"rule one { condition: false }"), put(store, "other")
    store.drop("one")
    store.tidy([])
    assert [entry.name for entry in store.all()] == ["other"]
    assert names(store) == {f"{other.sha256}.pack", "installed.json"}
    assert not store.has(one.sha256, one.size)


def test_two_names_may_share_a_pack(store: ContentStore) -> None:
    """Content that is published twice under two names is one file, which stays until both are gone."""
    one, other = put(store, "one"), put(store, "other")
    assert one.sha256 == other.sha256
    store.drop("one")
    store.tidy([])
    assert store.all() == (other,)
    store.drop("other")
    store.tidy([])
    assert names(store) == {"installed.json"}


def test_leftovers_go_and_what_is_wanted_stays(store: ContentStore, tmp_path: Path) -> None:
    """Half a pack that is still wanted waits for the rest; any other file in the folder is removed."""
    put(store)
    folder = tmp_path / "content"
    for name in (".stanch-0123", f"{'a' * 64}.part", f"{'b' * 64}.part", f"{'c' * 64}.pack"):
        (folder / name).write_bytes(b"x")
    (folder / "link").symlink_to("/etc/passwd")
    store.tidy(["a" * 64])
    assert f"{'a' * 64}.part" in names(store)
    assert not {".stanch-0123", f"{'b' * 64}.part", f"{'c' * 64}.pack", "link"} & names(store)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"packs": {"x": 1}}', b"\xff\xfe", b'{"packs": {"../x": {}}}'])
def test_a_damaged_state_is_nothing_in_use(store: ContentStore, tmp_path: Path, damage: bytes) -> None:
    """A state file that cannot be read is as none at all, so that everything is fetched anew."""
    put(store)
    (tmp_path / "content" / "installed.json").write_bytes(damage)
    again = ContentStore(tmp_path / "content")
    assert again.all() == ()
    put(again)
    assert len(ContentStore(tmp_path / "content").all()) == 1


def test_links_are_not_followed(store: ContentStore, tmp_path: Path) -> None:
    """A link in place of the folder, a pack or half a pack is refused."""
    entry = put(store)
    path = store.path(entry.sha256)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert store.current("apt") is None
    with pytest.raises((NotFound, Invalid)):
        store.held(entry)
    path.with_suffix(".part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        store.part(PackRef(name="apt", kind=ContentKind.YARA, version=1, sha256=entry.sha256, size=1))
    (tmp_path / "content").rename(tmp_path / "moved")
    (tmp_path / "content").symlink_to(tmp_path / "moved")
    with pytest.raises(Unavailable):
        store.drop("apt")


def test_a_refusal_is_remembered_for_that_version_only(store: ContentStore, tmp_path: Path) -> None:
    """What is known not to load is remembered across restarts, and forgotten when another version is used."""
    entry, gateway = put(store), PackGateway()
    bad = gateway.have("apt", b"bad", version=2)
    store.refuse(bad, "why")
    again = ContentStore(tmp_path / "content")
    assert again.why_refused(bad) == "why"
    assert again.current("apt") == entry
    assert again.why_refused(gateway.have("apt", b"other", version=3)) == ""
    put(again, version=4)
    assert again.why_refused(bad) == ""


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Invalid),
        (b"no json\n", Invalid),
        (b"no line end", Invalid),
        (b'{"stanch_pack":1,"kind":"yara","files":[]}\n', Invalid),
        (b'{"stanch_pack":9,"kind":"yara","files":[{"name":"a","size":0,"sha256":"' + b"0" * 64 + b'"}]}\n', Invalid),
        (b'{"stanch_pack":1,"kind":"yara","files":[{"name":"a","size":1,"sha256":"' + b"0" * 64 + b'"}]}\nx', Invalid),
        (b'{"stanch_pack":1,"kind":"hashes","files":[{"name":"a","size":9999999999,"sha256":"', Invalid),
    ],
)
def test_a_signed_pack_may_still_be_none(store: ContentStore, data: bytes, error: type[Exception]) -> None:
    """Bytes that have the signed hash, but are no pack, are refused for what they are."""
    gateway = PackGateway()
    ref = gateway.have("apt", data or b" ")
    part = store.part(ref)
    part.append(gateway.packs[ref.sha256])
    with pytest.raises((error, TooLarge)):
        part.check()
    part.close()


def test_another_hash_or_kind_is_refused(store: ContentStore) -> None:
    """A pack that is changed by a bit is not what was signed; one of another kind than was signed is refused, too."""
    gateway = PackGateway()
    ref = gateway.publish("apt", {"a.yar": b"rule a { condition: false }"})
    part = store.part(ref)
    part.append(gateway.packs[ref.sha256][:-1] + b"]")
    with pytest.raises(VerificationFailed, match="not what the server signed"):
        part.check()
    part.restart()
    part.append(gateway.packs[ref.sha256])
    part.finish()
    part.close()
    assert store.checked(ref).kind is ContentKind.YARA
    with pytest.raises(Invalid, match="another kind"):
        store.checked(ref.model_copy(update={"kind": ContentKind.HASHES}))


def test_a_pack_is_no_find_itself(store: ContentStore, tmp_path: Path) -> None:
    """What rules look for stands in no file of the folder: a scan of this machine finds nothing in it."""
    put(store, data=b'rule a { strings: $a = "the mark of the beast" condition: $a }')
    assert not [one for one in (tmp_path / "content").iterdir() if b"mark of the beast" in one.read_bytes()]


def test_a_pack_is_fed_into_a_pipe(store: ContentStore) -> None:
    """It comes out in the clear; a reader that goes away early ends it, and the pipe is closed in any case."""
    gateway = PackGateway()
    ref = gateway.publish("apt", {"a.yar": b"rule a { condition: false }" + b" " * 300_000})
    fetched(store, ref, gateway)
    reading, writing = os.pipe()
    with ThreadPoolExecutor() as threads, os.fdopen(reading, "rb") as pipe:
        feeding = threads.submit(store.feed, ref.sha256, writing)
        assert pipe.read() == gateway.packs[ref.sha256]
        feeding.result()
    reading, writing = os.pipe()
    os.close(reading)
    store.feed(ref.sha256, writing)
    reading, writing = os.pipe()
    with pytest.raises(NotFound):
        store.feed("0" * 64, writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_pack_in_use_is_not_removed(store: ContentStore) -> None:
    """Removing a refused pack does nothing if something refers to the same bytes."""
    entry = put(store)
    store.remove(entry.sha256)
    assert store.current("apt") == entry


def test_a_small_disk_has_room_too(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of a small file system stays free, not more than it has."""
    real = os.fstatvfs

    def small(descriptor: int) -> os.statvfs_result:
        told = list(real(descriptor))
        told[0:5] = [4096, 4096, 10_000, 9_000, 9_000]
        return os.statvfs_result(told)

    monkeypatch.setattr(os, "fstatvfs", small)
    assert store.free() == 8500 * 4096


def test_more_names_than_may_be_are_refused(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One name too many is an error that can be told, and changes nothing."""
    monkeypatch.setattr(content_store, "MAX_PACKS", 1)
    put(store, "one")
    with pytest.raises(Unavailable, match="too much"):
        put(store, "two")
    put(store, "one", version=2)
    assert [(one.name, one.version) for one in store.all()] == [("one", 2)]
