"""Policies on the command line: looked at, edited, set."""

import shlex
import sys
from pathlib import Path

import pytest

from stanch.cli import policy_text
from stanch.cli.policy import _setting_names
from stanch.core.errors import Conflict, Unavailable
from stanch.core.rest import PolicyView
from stanch.core.settings import GroupSettings
from tests.client.stub import NOW, an_endpoint

ALLOW = """isolation.allow=["10.0.0.0/8", "out tcp any user backup"]"""


def have(stub, **isolation) -> None:
    """The group web has this policy."""
    settings = GroupSettings.model_validate({"isolation": isolation})
    stub.policies["web"] = PolicyView(group="web", version=3, settings=settings, changed=NOW, changed_by="bob")


def saved(stub) -> list[dict]:
    """What was sent to be saved."""
    return stub.asked("PUT /groups/web/policy")


@pytest.fixture
def editor(monkeypatch, tmp_path):
    """An editor: each time it is started it does the next of these to the text, `s` standing for the text."""

    def use(*steps: str) -> Path:
        (tmp_path / "seen").mkdir()
        script = tmp_path / "editor.py"
        script.write_text(
            "import pathlib, sys\n"
            f"seen, path, steps = pathlib.Path({str(tmp_path / 'seen')!r}), pathlib.Path(sys.argv[1]), {steps!r}\n"
            "n, s = len(list(seen.iterdir())), path.read_text()\n"
            "(seen / str(n)).write_text(s)\n"
            "after = eval(steps[n])\n"
            "after is None or path.write_text(after)\n"
        )
        monkeypatch.setenv("EDITOR", shlex.join([sys.executable, str(script)]))
        monkeypatch.delenv("VISUAL", raising=False)
        return tmp_path / "seen"

    return use


def test_a_policy_is_shown_as_the_file_it_may_come_from(run, signed_in, tmp_path):
    """What is shown can be read back with --file."""
    have(signed_in, duration=None, allow=["10.0.0.0/8"])
    ended = run("policy", "show", "web")
    assert ended.out.startswith("# The policy of the group web, version 3, changed ")
    assert 'duration = "none"' in ended.out
    assert "#tell = false" in ended.out
    (tmp_path / "web.toml").write_text(ended.out)
    assert "Nothing changes" in run("policy", "edit", "web", "--file", "web.toml").out
    assert run("policy", "show", "web", "--json").json["settings"]["isolation"]["duration"] is None


def test_a_policy_that_sets_nothing_says_so(run, signed_in):
    """Instead of an empty answer."""
    assert "It sets nothing" in run("policy", "show", "web").out


def test_what_an_endpoint_follows_is_shown_with_the_reason(run, signed_in):
    """Which group decided."""
    have(signed_in, duration="1h")
    signed_in.endpoints = [an_endpoint(1).model_copy(update={"groups": ("web", "all")}), an_endpoint(2)]
    ended = run("policy", "show", "--endpoint", "web-01")
    assert "# decided by web\n[isolation]" in ended.out
    assert "first: web, all" in ended.out
    assert run("policy", "show", "--endpoint", "web-01", "--json").json["decided_by"] == {"isolation": "web"}
    assert "None of them sets anything" in run("policy", "show", "--endpoint", "web-02").out


@pytest.mark.parametrize("line", [(), ("web", "--endpoint", "web-01")])
def test_one_policy_is_shown(run, signed_in, line):
    """A group or an endpoint."""
    assert run("policy", "show", *line).code == 2


def test_settings_are_set_by_options(run, signed_in):
    """Based on what was there, with the difference on the screen."""
    have(signed_in, message="Hello")
    ended = run(
        "policy", "edit", "web", "--set", ALLOW, "--set", "isolation.duration=2h", "--unset", "isolation.message"
    )
    assert ended.code == 0
    assert '+duration = "2h"' in ended.out
    assert '-message = "Hello"' in ended.out
    assert "Saved as version 4" in ended.out
    isolation = {"allow": ["10.0.0.0/8", "out tcp any user backup"], "duration": "2h"}
    assert saved(signed_in) == [{"settings": {"isolation": isolation}, "based_on": 3}]


def test_programs_get_json_alone(run, signed_in):
    """The difference goes to standard error."""
    ended = run("policy", "edit", "web", "--set", "isolation.tell=true", "--json")
    assert ended.json["version"] == 1
    assert "+tell = true" in ended.err
    again = run("policy", "edit", "web", "--set", "isolation.tell=true", "--json")
    assert again.json["version"] == 1
    assert len(saved(signed_in)) == 1


def test_a_dry_run_saves_nothing(run, signed_in):
    """It shows what would change, and what it would then be."""
    ended = run("policy", "edit", "web", "--set", "isolation.tell=true", "--dry-run", "--json")
    assert ended.json["settings"]["isolation"]["tell"] is True
    assert ended.json["version"] == 0
    assert not saved(signed_in)


def test_a_file_is_the_whole_policy(run, signed_in, tmp_path):
    """What it does not set is not set any more."""
    have(signed_in, message="Hello")
    (tmp_path / "web.toml").write_text("[isolation]\ntell = true\n")
    assert run("policy", "edit", "web", "--file", "web.toml").code == 0
    assert saved(signed_in)[0]["settings"] == {"isolation": {"tell": True}}


def test_standard_input_is_a_file(run, signed_in, monkeypatch, tmp_path):
    """As `-`."""
    (tmp_path / "in").write_bytes(b"[isolation]\nduration = 'none'\n")
    with (tmp_path / "in").open() as given:
        monkeypatch.setattr("sys.stdin", given)
        assert run("policy", "edit", "web", "--file", "-").code == 0
    assert saved(signed_in)[0]["settings"] == {"isolation": {"duration": None}}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("--set", "isolation.duration=5x"), 2),
        (("--set", "nowhere.x=5"), 2),
        (("--file", "missing.toml"), 2),
        (("--file", "wrong.toml"), 2),
        (("--file", "wrong.toml", "--set", "isolation.tell=true"), 2),
        ((), 2),
    ],
)
def test_what_is_wrong_is_not_saved(run, signed_in, tmp_path, line, code):
    """Nor is an editor opened without a terminal."""
    (tmp_path / "wrong.toml").write_text("[isolatoin]\n")
    ended = run("policy", "edit", "web", *line)
    assert ended.code == code
    assert ended.err.splitlines()[-2 if "hint" in ended.err else -1].startswith(("error[invalid]", "hint"))
    assert not saved(signed_in)


def test_somebody_elses_change_is_not_overwritten(run, signed_in):
    """The exit code is that of a conflict."""
    signed_in.errors["PUT /groups/web/policy"] = Conflict("Somebody else has changed it")
    assert run("policy", "edit", "web", "--set", "isolation.tell=true").code == 6


# --- the editor ------------------------------------------------------------------------------------------------------


def test_a_policy_is_edited(run, signed_in, terminal, editor):
    """Opened with every setting explained; saved after a yes."""
    have(signed_in, tell=True)
    seen = editor("s.replace('#duration = \"5h\"', 'duration = \"2h\"')")
    terminal("y")
    assert run("policy", "edit", "web").code == 0
    text = (seen / "0").read_text()
    assert "[isolation]\n" in text
    assert "tell = true" in text
    assert "# How long automatic isolation lasts" in text
    assert saved(signed_in) == [{"settings": {"isolation": {"tell": True, "duration": "2h"}}, "based_on": 3}]


def test_an_error_is_shown_in_the_editor(run, signed_in, terminal, editor):
    """With the text as it was left, until it is right."""
    seen = editor("s.replace('#[isolation]', '[isolation]\\ntell = 7')", "s.replace('tell = 7', 'tell = true', 1)")
    terminal("y")
    assert run("policy", "edit", "web").code == 0
    second = (seen / "1").read_text()
    assert second.startswith("#! The policy is wrong\n")
    assert "tell = 7" in second
    assert saved(signed_in)[0]["settings"] == {"isolation": {"tell": True}}


def test_leaving_the_editor_changes_nothing(run, signed_in, terminal, editor):
    """Neither without saving, nor with an unchanged text."""
    editor("None", "s")
    terminal()
    for _ in range(2):
        ended = run("policy", "edit", "web")
        assert (ended.code, ended.out) == (0, "Nothing changes.\n")
    assert not saved(signed_in)


def test_whoever_gives_up_keeps_the_text(run, signed_in, terminal, editor):
    """The error is told, and where the text is."""
    editor("'[isolation]\\nx = 1\\n'", "None")
    terminal()
    ended = run("policy", "edit", "web")
    assert ended.code == 2
    kept = Path(ended.err.splitlines()[0].partition(": ")[2])
    assert "x = 1" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_an_editor_that_does_not_work_loses_no_text(run, signed_in, terminal, editor, monkeypatch):
    """Neither at once, when there is none yet, nor when it fails over a text that was wrong."""
    seen = editor("s.replace('#[isolation]', '[isolation]\\ntell = 7')", "1 / 0")
    terminal()
    ended = run("policy", "edit", "web")
    assert (ended.code, saved(signed_in)) == (Unavailable.exit_code, [])
    kept = next(line for line in ended.err.splitlines() if line.startswith("Your text is kept: "))
    assert "tell = 7" in Path(kept.partition(": ")[2]).read_text()
    assert len(list(seen.iterdir())) == 2
    monkeypatch.setenv("EDITOR", "/no/such/editor")
    ended = run("policy", "edit", "web")
    assert ended.code == Unavailable.exit_code
    assert "$EDITOR" in ended.err
    assert "kept" not in ended.err


def test_a_text_that_is_too_large_is_asked_for_again(run, signed_in, terminal, editor):
    """It is no more lost than a wrong one."""
    terminal()
    editor(f"s + '#' * {policy_text.MAX_BYTES}", "'[isolation]\\ntell = true\\n'")
    assert run("policy", "edit", "web", "--yes").code == 0
    assert saved(signed_in)[0]["settings"]["isolation"]["tell"] is True


def test_a_no_and_a_conflict_keep_the_text(run, signed_in, terminal, editor):
    """What somebody wrote can be used again with --file."""
    editor("'[isolation]\\ntell = true\\n'", "'[isolation]\\ntell = true\\n'")
    terminal("n", "y")
    signed_in.errors["PUT /groups/web/policy"] = Conflict("Somebody else has changed it")
    for code in (10, 6):
        ended = run("policy", "edit", "web")
        assert ended.code == code
        kept = next(line for line in ended.err.splitlines() if "kept" in line).rpartition("--file ")[2]
        assert "tell = true" in Path(kept).read_text()


def test_settings_are_completed():
    """Their names need no server."""
    assert "isolation.duration" in [one.value for one in _setting_names(None, None, "isolation.d")]
    assert not _setting_names(None, None, "x")
