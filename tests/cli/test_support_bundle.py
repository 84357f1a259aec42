"""`stanch agent support-bundle`: where it is, what is in it, and an agent that answers or does not."""

import tarfile
from pathlib import Path

import pytest

from stanch.agent import bundle
from stanch.agent.selftest import SelfTest
from stanch.cli import support_bundle
from stanch.core.errors import Denied
from tests.fakes.endpoint_state import PASSWORD, Used


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The self-test has tests of its own."""

    async def nothing(_bench: object) -> SelfTest:
        return SelfTest(version="1", failed=0, checks=())

    monkeypatch.setattr(bundle, "selftest", nothing)


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, ...]:
    settings = Used(tmp_path).enrol().limit().work().settings
    return "--state", str(settings.state), "--config", str(settings.config), "--socket", str(settings.socket)


def test_it_is_written_and_told(run, places, tmp_path):
    """Under a new name in this folder, for its owner alone."""
    ended = run("agent", "support-bundle", *places)
    (made,) = tmp_path.glob("stanch-support-*.tar.gz")
    assert (ended.code, made.stat().st_mode & 0o777) == (0, 0o600)
    assert str(made) in ended.out
    assert "effects.json" in ended.out
    assert PASSWORD not in ended.out


def test_programs_are_told_the_manifest(run, places, tmp_path):
    """With the hash of each file."""
    told = run("agent", "support-bundle", *places, "--output", "here.tar.gz", "--json").json
    assert told["path"] == str(tmp_path / "here.tar.gz")
    with tarfile.open(told["path"]) as archive:
        names = {Path(one).name for one in archive.getnames()}
    assert {one["name"] for one in told["manifest"]["files"]} | {"manifest.json"} == names


def test_nothing_is_replaced(run, places, tmp_path):
    """Said before anything is collected."""
    (tmp_path / "here.tar.gz").write_text("theirs")
    ended = run("agent", "support-bundle", *places, "--output", "here.tar.gz")
    assert (ended.code, (tmp_path / "here.tar.gz").read_text()) == (6, "theirs")
    assert run("agent", "support-bundle", *places, "--output", "nowhere/here.tar.gz").code != 0


def test_an_agent_that_refuses_is_part_of_the_story(monkeypatch):
    """Its error is told in the place of its answer; one that is not there is no error."""
    monkeypatch.setattr(support_bundle, "ask", lambda *_words, **_more: None)
    assert support_bundle._status(Path("/nowhere")) is None

    def refuse(*_words: object, **_more: object) -> None:
        raise Denied("Only root may speak with the agent")

    monkeypatch.setattr(support_bundle, "ask", refuse)
    assert "Only root" in (support_bundle._status(Path("/nowhere")) or {})["error"]
