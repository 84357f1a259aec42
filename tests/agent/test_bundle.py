"""The support bundle: all that a developer needs, and no secret anywhere in it."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stanch.agent import bundle, bundle_machine
from stanch.agent.bundle import Bundle, refuse, usual_name, write
from stanch.agent.host.run import Finished
from stanch.agent.journal_reading import read_journal
from stanch.agent.selftest import SelfTest
from stanch.agent.selftest_probe import Bench
from stanch.core.errors import Conflict, NotFound
from tests.fakes.endpoint_state import CODE, ENROLLED_PASSWORD, PARAMETER, PASSWORD, Used

Files = Mapping[str, bytes]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The self-test has tests of its own."""

    async def nothing(_bench: Bench) -> SelfTest:
        return SelfTest(version="1", failed=0, checks=())

    monkeypatch.setattr(bundle, "selftest", nothing)
    monkeypatch.setattr(bundle_machine, "find", lambda name: f"/usr/bin/{name}")


@pytest.fixture
def used(tmp_path: Path) -> Used:
    return Used(tmp_path).enrol().limit("[actions]\nforbid = ['get_file']\n").work().quarantine()


async def collected(used: Used, *, log: bytes = b"", status: Any = lambda: None, **more: Any) -> Files:
    async def ran(argv: Sequence[str], *, within: timedelta, output_limit: int = 0) -> Finished:
        return Finished(0, log if argv[0] == "journalctl" else b"", b"")

    archive, manifest = await Bundle(bench=Bench(settings=used.settings), status=status, run=ran, **more).collect()
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as packed:
        files = {one.name.removeprefix("stanch-support/"): packed.extractfile(one).read() for one in packed}
        assert {one.mode for one in packed.getmembers()} == {0o600}
    assert json.loads(files["manifest.json"]) == manifest.model_dump(mode="json")
    return files


def secrets(used: Used) -> list[str]:
    """Everything that is secret in this state."""
    pem = next(used.settings.state.glob("credentials-*.pem")).read_text()
    key = pem.partition("PRIVATE KEY-----\n")[2].partition("\n-----END")[0].splitlines()
    vault_key = [one for one in used.settings.vault_key.read_text().splitlines() if one and not one.startswith("#")]
    return [*key, *vault_key, PASSWORD, ENROLLED_PASSWORD, CODE.key, CODE.salt]


async def test_no_secret_is_in_it(used):
    """Nor in what a running agent or its log let slip; nor what tasks were about."""
    slips = "\n".join([*secrets(used), f"http://bob:{ENROLLED_PASSWORD}@192.0.2.3"])
    files = await collected(used, log=slips.encode(), status=lambda: {"link": slips}, with_names=True)
    everything = b"\n".join(files.values()).decode()
    for one in [*secrets(used), json.dumps(PASSWORD)[1:-1], PARAMETER, "PRIVATE KEY"]:
        assert one not in everything
    journal = read_journal(used.settings.journal)
    assert CODE.key in str(journal.effects["account-alice"].effect.private), "the test's own secret is not there"


async def test_what_a_developer_needs_is_in_it(used):
    """Each part, with the README; names of what is in the vault only on demand."""
    files = await collected(used, log=b"the log\n", status=lambda: {"version": "1"})
    assert json.loads(files["effects.json"])["effects"][0]["name"] == "account-alice"
    assert {one["action"] for one in json.loads(files["tasks.json"])} == {"get_file", "quarantine"}
    assert json.loads(files["vault.json"])["items"] == 1
    assert json.loads(files["agent.json"])["status"] == {"version": "1"}
    assert json.loads(files["spool.json"])[0]["entries"] == 2
    assert b"forbid = ['get_file']" in files["local-policy.toml"]
    assert files["agent.log"] == b"the log\n"
    assert b"pydantic" in files["packages.txt"]
    assert b"Not in it" in files["README.txt"]
    assert b"dropper" not in b"".join(files.values())
    named = await collected(used, with_names=True)
    assert b"dropper" in named["vault.json"]


async def test_the_manifest_has_the_hash_of_each_file(used):
    """So that whoever gets it sees that it is whole."""
    files = await collected(used)
    told = {one["name"]: one["sha256"] for one in json.loads(files["manifest.json"])["files"]}
    assert told == {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "manifest.json"}


async def test_what_cannot_be_read_is_told_and_stops_nothing(tmp_path):
    """A machine that was never enrolled, and one whose journal and policy are broken."""
    files = await collected(Used(tmp_path))
    missing = json.loads(files["manifest.json"])["missing"]
    assert {"effects.json", "tasks.json", "local-policy.toml", "disk.json"} <= set(missing)
    assert "versions.json" in files
    used = Used(tmp_path).enrol()
    used.settings.journal.write_bytes(b"rubbish" * 1000)
    used.settings.config.write_text('[link\nproxy = "http://a:hunter2@b"')
    files = await collected(used)
    assert "cannot be read" in json.loads(files["manifest.json"])["missing"]["effects.json"]
    assert b"hunter2" not in b"".join(files.values())


async def test_an_error_of_our_own_is_told_too(used):
    """What is broken is why somebody wants a bundle."""

    def slip() -> None:
        raise ZeroDivisionError(PASSWORD)

    files = await collected(used, status=slip)
    assert json.loads(files["manifest.json"])["missing"]["agent.json"] == "(left out)"


async def test_a_flood_in_one_part_is_cut(used, monkeypatch):
    """The end of it is what is of use."""
    monkeypatch.setattr(bundle, "MAX_PART", 1000)
    files = await collected(used, log=b"x" * 5000 + b"the end")
    assert len(files["agent.log"]) == 1000
    assert files["agent.log"].endswith(b"the end")


def test_it_is_its_owners_alone_and_replaces_nothing(tmp_path):
    """Mode 0600 on the disk; what is there already stays."""
    path = usual_name(tmp_path)
    write(path, b"archive")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"archive", 0o600)
    for there in (path, tmp_path):
        with pytest.raises(Conflict):
            write(there, b"other")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict):
        refuse(tmp_path / "link")
    with pytest.raises(NotFound):
        refuse(tmp_path / "nowhere" / "file")
