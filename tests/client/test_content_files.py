"""Content on its way back: the very same bytes, or nothing."""

import hashlib
from pathlib import Path

import pytest

from stanch.client.content import gather
from stanch.core.errors import Conflict, Denied, Invalid, NotFound, VerificationFailed
from tests.fakes.packed import BAD, GOOD, pack


@pytest.fixture
def bring(client, tmp_path):
    """Import files by name; the version that they make."""

    def imported(**files: bytes):
        folder = tmp_path / "rules"
        for name, data in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".yar").write_bytes(data)
        return client.import_content("apt", gather([folder])).version

    return imported


def left(tmp_path: Path) -> list[str]:
    return sorted(one.name for one in tmp_path.iterdir())


def test_one_file_becomes_a_file(client, bring, tmp_path):
    """Under the name that was asked for."""
    version = bring(a=GOOD)
    assert client.fetch_content(version, tmp_path / "out") == ["a.yar"]
    assert (tmp_path / "out").read_bytes() == GOOD
    assert left(tmp_path) == ["out", "rules"]


def test_several_files_become_a_folder(client, bring, tmp_path):
    """With their names as they were imported."""
    version = bring(a=GOOD, deep__b=BAD)
    client.fetch_content(version, tmp_path / "out")
    assert (tmp_path / "out" / "a.yar").read_bytes() == GOOD
    assert (tmp_path / "out" / "deep" / "b.yar").read_bytes() == BAD
    assert left(tmp_path) == ["out", "rules"]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("/nowhere")])
def test_what_is_there_is_not_replaced(client, bring, tmp_path, make):
    """Neither a file nor a folder nor a link."""
    version = bring(a=GOOD, b=BAD)
    make(tmp_path / "out")
    with pytest.raises(Conflict, match="of this name"):
        client.fetch_content(version, tmp_path / "out")


def test_no_folder_to_write_into(client, bring, tmp_path):
    """Is said in words."""
    version = bring(a=GOOD)
    with pytest.raises(NotFound, match="folder to write into"):
        client.fetch_content(version, tmp_path / "none" / "out")
    with pytest.raises(Denied):
        client.fetch_content(version, tmp_path / "rules" / "a.yar" / "out")


@pytest.mark.parametrize("what", ["other", "longer", "shorter", "rubbish"])
def test_other_bytes_leave_nothing(client, stub, bring, tmp_path, what):
    """What arrives must be what the list of versions says."""
    version = bring(a=GOOD)
    whole = stub.content["apt"][0][1]
    stub.other_pack = {
        "other": whole.replace(b"good", b"evil"),
        "longer": whole + b"x",
        "shorter": whole[:-1],
        "rubbish": b"\n" * len(whole),
    }[what]
    with pytest.raises(VerificationFailed, match="not this version"):
        client.fetch_content(version, tmp_path / "out")
    assert left(tmp_path) == ["rules"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a//b", "./a"])
def test_a_name_never_leads_out_of_the_folder(client, stub, bring, tmp_path, name):
    """A hostile server, or whoever made the pack, writes nowhere else."""
    version = bring(a=GOOD)
    try:
        data = pack({name: GOOD, "z": BAD})
    except Invalid:
        return  # no pack can have such a name
    stub.other_pack = data
    fake = version.model_copy(update={"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)})
    with pytest.raises((Invalid, VerificationFailed)):
        client.fetch_content(fake, tmp_path / "out")
    assert left(tmp_path) == ["rules"]
