"""Are all actions found by walking the folder, and is a broken file named?"""

import pytest

from stanch import actions
from stanch.core.action import DeclarationError

OWN = {"get_file", "isolate", "kill_process", "list_processes", "release"}

EXAMPLE = '''
"""Say a word."""

from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.host import Host
from stanch.core.types import Text


class Say(Params):
    """What."""

    word: Text
    """The word."""


class Said(Result):
    """What was said."""

    word: Text
    """The word."""


@action("say", version=1, risk=Risk.READ_ONLY, after_crash=AfterCrash.RERUN, examples=("web-01 --word hi",))
async def say(host: Host, params: Say) -> Said:
    """Say a word."""
    return Said(word=params.word)
'''


def test_finds_every_action():
    """Each under its name, with the module that declares it."""
    registry = actions.load()
    assert set(registry) >= OWN
    assert registry["release"].source == "stanch.actions.isolate"


def test_an_action_that_a_module_only_imports_is_not_its_own():
    """Otherwise an undo that imports its counterpart would declare it twice."""
    from stanch.actions import isolate

    assert {one.name for one in actions.declared_in(isolate)} == {"isolate", "release"}


def test_loads_a_file_from_elsewhere(tmp_path):
    """By path, beside the own ones."""
    path = tmp_path / "say.py"
    path.write_text(EXAMPLE, encoding="utf-8")
    assert set(actions.load(beside=[path])) >= OWN | {"say"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "declares no action"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        (EXAMPLE.replace('"say", v', '"isolate", v'), "already declared"),
        (EXAMPLE.replace("word: Text\n", "reason: Text\n"), "no reserved parameter"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, why):
    """It refuses to load instead of failing later."""
    path = tmp_path / "broken.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DeclarationError, match=why) as refused:
        actions.load(beside=[path])
    assert "broken" in str(refused.value)


def test_a_path_that_is_no_python_is_named(tmp_path):
    """The message says which."""
    with pytest.raises(DeclarationError, match=r"notes\.txt is no Python file"):
        actions.load(beside=[tmp_path / "notes.txt"])
