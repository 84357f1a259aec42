"""Units for this interpreter: written, shown, removed, and never over what somebody else wrote."""

import stat
import sys
from pathlib import Path

import pytest

from stanch.cli import service
from stanch.cli.service import files
from stanch.core.errors import Invalid
from stanch.disk.service_files import FILES, HEAD, LINKS, RULES, UNITS
from tests.house.source import ROOT


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


def states(run, image: Path) -> set[str]:
    """What `show` says of the files."""
    return {one["state"] for one in run("agent", "service", "show", "--root", str(image), "--json").json["files"]}


def test_units_are_written_for_this_interpreter_and_removed_again(run, image):
    """Readable to everybody, with our interpreter in the place of the packaged paths; then nothing is left."""
    assert states(run, image) == {"absent"}
    ended = run("agent", "service", "install", "--root", str(image), "--json")
    assert {one["state"] for one in ended.json["files"]} == {"new"}
    agent = image / UNITS / "stanch-agent.service"
    assert stat.S_IMODE(agent.stat().st_mode) == 0o644
    assert f"ExecStart={sys.executable} -I -m stanch.cli.main agent run\n" in agent.read_text()
    boot = (image / UNITS / "stanch-isolation.service").read_text()
    assert f"ExecStart={sys.executable} -I -m stanch.agent.boot\n" in boot
    assert f"ExecStop={sys.executable} -I -m stanch.agent.boot --remember\n" in boot
    assert not [name for name, folder in FILES.items() if "=/usr/bin/stanch" in (image / folder / name).read_text()]
    assert states(run, image) == {"installed"}
    for link in LINKS:
        (image / UNITS / link).parent.mkdir()
        (image / UNITS / link).symlink_to(agent)
    assert run("agent", "service", "remove", "--root", str(image)).code == 0
    assert not [path for path in image.rglob("*") if not path.is_dir()]


def test_every_packaged_file_is_among_them():
    """A unit that is added to the packages is installed here too; the server's is of another program."""
    packaged = {path.name for path in (ROOT / "packaging" / "systemd").iterdir()}
    assert set(FILES) == packaged - {"stanch-server.service"}


def test_a_second_time_changes_nothing(run, image):
    """What is as it should be is told so; what is outdated is written anew."""
    line = ("agent", "service", "install", "--root", str(image), "--json")
    run(*line)
    outdated = image / RULES / "90-stanch-isolation.rules"
    outdated.write_text(f"{HEAD}# of an older version\n")
    assert [one["state"] for one in run(*line).json["files"]] == ["as it was"] * 3 + ["changed"]
    assert "SYSTEMD_WANTS" in outdated.read_text()


@pytest.mark.parametrize("word", ["install", "remove"])
def test_a_dry_run_changes_nothing(run, image, word):
    """It says what would be, and that nothing was."""
    ended = run("agent", "service", word, "--dry-run", "--root", str(image))
    assert ended.code == 0
    assert "Nothing was changed" in ended.out
    assert not image.exists()


@pytest.mark.parametrize("word", ["install", "remove"])
def test_a_file_of_somebody_else_stays(run, image, word):
    """All or nothing: the other files are not touched either."""
    theirs = image / UNITS / "stanch-agent.service"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[Service]\nExecStart=/usr/bin/stanch agent run\n")
    ended = run("agent", "service", word, "--root", str(image))
    assert ended.code != 0
    assert str(theirs) in ended.err
    assert [path for path in image.rglob("*") if path.is_file()] == [theirs]


def test_what_is_left_to_type_is_told(run, monkeypatch, tmp_path):
    """Nothing is started by us; below another root there is nothing to start."""
    written: list[Path] = []
    monkeypatch.setattr(service, "_write", lambda one: written.append(one.path))
    monkeypatch.setattr(service, "_refuse_foreign", lambda _some: None)
    left = run("agent", "service", "install", "--json").json["next"]
    assert left[0] == "systemctl daemon-reload"
    assert left[-1].startswith("systemctl enable --now ")
    assert len(written) == len(FILES)
    assert run("agent", "service", "install", "--root", str(tmp_path), "--json").json["next"] == []


@pytest.mark.parametrize("python", ["/opt/my tools/python", "/opt/%n/python", "/opt/$HOME/python", "python3", ""])
def test_an_interpreter_that_a_unit_cannot_name_is_refused(python):
    """systemd would read spaces, % and $ as something else."""
    with pytest.raises(Invalid, match="interpreter"):
        files(Path("/"), python)
