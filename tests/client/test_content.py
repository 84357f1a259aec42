"""Rules and indicators on their way to the server: found by what they hold, packed the same every time."""

import os
from pathlib import Path

import pytest

from stanch.client import content as module
from stanch.client.content import gather
from stanch.core.content import ContentKind
from stanch.core.errors import Conflict, Denied, Invalid, NotFound, TooLarge
from stanch.core.rest_content import ForGroups, Publish
from tests.fakes.packed import GOOD, pack

HASHES = b"a" * 32 + b"\n"
IOC = b'<ioc xmlns="http://schemas.mandiant.com/2010/ioc" id="x"/>'


@pytest.fixture
def rules(tmp_path) -> Path:
    """A folder as people keep them: nested, with other things in it."""
    folder = tmp_path / "rules"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.yar").write_bytes(GOOD)
    (folder / "deep" / "a.rule").write_bytes(GOOD)
    (folder / "README.md").write_text("rule of thumb: read me")
    (folder / "notes.txt").write_text("nothing of ours")
    (folder / "link.yar").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.yar")
    return folder


def test_a_folder_is_gathered(rules):
    """What has a usual name and holds rules; links and pipes are not followed, nor waited for."""
    found = gather([rules])
    assert found.index.kind is ContentKind.YARA
    assert [one.name for one in found.index.files] == ["b.yar", "deep/a.rule"]
    assert found.left_out == ["notes.txt"]


def test_several_paths_keep_their_files_apart(rules, tmp_path):
    """By the name of their folder; what is there twice is refused."""
    (tmp_path / "one.yar").write_bytes(GOOD)
    found = gather([rules, tmp_path / "one.yar"])
    assert [one.name for one in found.index.files] == ["one.yar", "rules/b.yar", "rules/deep/a.rule"]
    with pytest.raises(Invalid, match="same name"):
        gather([rules, rules])


@pytest.mark.parametrize(("name", "data"), [("a.ioc", IOC), ("a.txt", HASHES)])
def test_several_kinds_are_refused(rules, name, data):
    """With what was found, and a way out."""
    (rules / name).write_bytes(data)
    with pytest.raises(Invalid, match="several kinds") as caught:
        gather([rules])
    assert "2 yara (such as b.yar)" in caught.value.got
    assert name in caught.value.got
    found = gather([rules], ContentKind.YARA)
    assert len(found.index.files) == 2
    assert name in found.left_out


def test_what_is_named_must_be_what_is_wanted(rules):
    """Nobody names a file to have it left out."""
    with pytest.raises(Invalid, match="nothing that can be imported"):
        gather([rules / "notes.txt"])
    with pytest.raises(Invalid):
        gather([rules / "b.yar"], ContentKind.HASHES)
    with pytest.raises(NotFound):
        gather([rules / "none"])
    with pytest.raises(Invalid, match="no rules or indicators") as caught:
        gather([rules], ContentKind.STIX)
    assert "left out: b.yar" in caught.value.got


def test_too_much(rules, tmp_path, monkeypatch):
    """Files, bytes, and bytes of one indicator."""
    (tmp_path / "large.ioc").write_bytes(IOC + b" " * 3 * 2**20)
    with pytest.raises(TooLarge, match=r"large\.ioc"):
        gather([tmp_path / "large.ioc"])
    for bound, most in (("MAX_PACK_FILES", 1), ("MAX_PACK_BYTES", 40)):
        with monkeypatch.context() as bounded:
            bounded.setattr(module, bound, most)
            with pytest.raises(TooLarge):
                gather([rules])


def test_names_that_are_no_text(tmp_path):
    """Odd bytes and line ends can be sent, and shown."""
    (tmp_path / "x").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "x") + b"/a\xff\n.yar")).write_bytes(GOOD)
    assert [one.name for one in gather([tmp_path / "x"]).index.files] == ["a\\xff\\x0a.yar"]


def test_it_arrives(client, stub, rules):
    """The very bytes, with their length announced; and people are told how far it is."""
    seen = []
    made = client.import_content("apt", gather([rules]), note="x", progress=lambda *how: seen.append(how))
    expected = pack({"b.yar": GOOD, "deep/a.rule": GOOD})
    assert (made.new, made.version.note) == (True, "x")
    assert stub.content["apt"][0][1] == expected
    assert stub.headers[-1]["content-length"] == str(len(expected))
    assert seen[-1] == (len(expected), len(expected))
    assert not client.import_content("apt", gather([rules])).new
    assert stub.asked("POST /content")[-1] == {"name": "apt"}


def test_a_file_that_changes_meanwhile(client, stub, rules):
    """Is refused, whether it is another one or shorter; nothing of it is kept."""
    found = gather([rules])
    for data in (GOOD.replace(b"good", b"evil"), GOOD[:-1]):
        (rules / "b.yar").write_bytes(data)
        with pytest.raises(Conflict, match="changed"):
            client.import_content("apt", found)
    assert stub.content == {}


def test_it_is_published_rolled_back_and_removed(client, stub, rules):
    """By its name and version."""
    client.import_content("apt", gather([rules]))
    assert client.publish_content("apt", Publish(version=1)).published[0].version == 1
    assert stub.asked("POST /content/apt/publish") == [{"version": 1}]
    assert [one.name for one in client.content()] == ["apt"]
    assert client.find_content("apt").every[0].version == 1
    assert client.content_version("apt", 1).files == 2
    stub.published["apt"] = 2
    assert client.roll_back_content("apt", ForGroups()).published[0].version == 1
    assert client.unpublish_content("apt", ForGroups(groups=("all",))).published == ()
    client.delete_content("apt", 1)
    assert stub.content == {"apt": []}
    assert client.check_content(gather([rules])).complete


def test_a_folder_that_cannot_be_looked_into_is_named(rules, monkeypatch):
    """Rules that nobody could read must not be missing without a word."""
    listing = os.scandir

    def denied(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(Denied, match="deep"):
        gather([rules])


def test_folders_without_end_are_refused(tmp_path):
    """What lies too deep is not left out without a word."""
    deep = tmp_path.joinpath(*["x"] * (module.MAX_DEPTH + 1))
    deep.mkdir(parents=True)
    (tmp_path / "a.yar").write_bytes(GOOD)
    (deep / "b.yar").write_bytes(GOOD)
    with pytest.raises(Invalid, match="too deep"):
        gather([tmp_path])
