"""A broken action file refuses to load, with a message that names the file, instead of failing when it is needed."""

from pathlib import Path

import pytest

from stanch.actions import load
from stanch.core.action import DeclarationError

GOOD = '''"""Wave."""

from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.host import Host
from stanch.core.types import Text


class Wave(Params):
    """How."""

    greeting: Text = ""
    """What to say."""


class Waved(Result):
    """What came of it."""

    seen: bool
    """Whether anybody looked."""


@action("wave", version=1, risk=Risk.READ_ONLY, after_crash=AfterCrash.RERUN, examples=("web-01",))
async def wave(host: Host, params: Wave) -> Waved:
    """Wave at the endpoint."""
    return Waved(seen=bool(params.greeting))
'''

MISTAKES: dict[str, tuple[str, str]] = {
    "duplicate name": ('"wave", version', '"isolate", version'),
    "no docstring": ('    """Wave at the endpoint."""\n', ""),
    "undescribed parameter": ('    """What to say."""\n', ""),
    "undescribed result": ('    """Whether anybody looked."""\n', ""),
    "reserved parameter": ("    greeting: Text", "    reason: Text"),
    "bad name": ('"wave", version', '"Wave-Now", version'),
    "version zero": ("version=1", "version=0"),
    "no example": ('("web-01",)', "()"),
    "changes without a plan": ("Risk.READ_ONLY", "Risk.DISRUPTIVE"),
    "missing argument": ("version=1, ", ""),
    "plain parameters": ("params: Wave)", "params: dict)"),
    "no parameters at all": ("(host: Host, params: Wave)", "()"),
    "plain result": (") -> Waved", ") -> bool"),
    "unknown annotation": ("params: Wave)", "params: Wov)"),
    "unknown type": ("    greeting: Text", "    greeting: Txet"),
    "syntax error": ("async def wave(", "async def wave(("),
    "import of something missing": (
        "from stanch.core.host import",
        "import surely_not_there\nfrom stanch.core.host import",
    ),
    "import of a name that is not there": ("import Host", "import Hosts, Host"),
    "an error while it is imported": ('"""Wave."""\n', '"""Wave."""\n\n1 / 0\n'),
    "an exit while it is imported": ('"""Wave."""\n', '"""Wave."""\n\nraise SystemExit\n'),
    "no action": ("@action", "# @action"),
    "an open model": ("class Wave(Params)", "class Wave(object)"),
}


def write(folder: Path, old: str, new: str) -> Path:
    """The good file with one mistake."""
    assert old in GOOD
    path = folder / "wave_at.py"
    text = GOOD.replace(old, new, 1)
    path.write_text(
        "".join(line for line in text.splitlines(keepends=True) if "# @action" not in line), encoding="utf-8"
    )
    return path


def test_the_good_file_loads(tmp_path: Path) -> None:
    """Without a mistake, the file is one more action."""
    assert "wave" in load(beside=[write(tmp_path, "Wave", "Wave")])


@pytest.mark.parametrize(("old", "new"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_refuses_and_names_the_file(tmp_path: Path, old: str, new: str) -> None:
    """Each mistake stops the start, and the message says in which file it is."""
    with pytest.raises(DeclarationError, match="wave_at"):
        load(beside=[write(tmp_path, old, new)])


@pytest.mark.parametrize("undo", ["nowhere", "Wave"])
def test_an_unknown_undo_refuses(tmp_path: Path, undo: str) -> None:
    """An undo that no file declares stops the start."""
    changing = GOOD.replace("import AfterCrash", "import AfterCrash, Check, Plan, Undo").replace(
        "risk=Risk.READ_ONLY, after_crash=AfterCrash.RERUN",
        "risk=Risk.DISRUPTIVE, after_crash=AfterCrash.REVERT, plan=plan, verify=verify, "
        f'undo=Undo("{undo}", lambda params, result: params)',
    )
    functions = (
        "async def plan(host: Host, params: Wave) -> Plan:\n    return Plan(changes=True)\n\n\n"
        "async def verify(host: Host, params: Wave, result: Waved | None) -> Check:\n"
        "    return Check.of(True, '')\n\n\n"
    )
    path = tmp_path / "wave_at.py"
    path.write_text(changing.replace("@action", functions + "@action"), encoding="utf-8")
    with pytest.raises(DeclarationError, match=f"wave_at.*{undo}"):
        load(beside=[path])


def test_a_file_that_is_not_there_refuses(tmp_path: Path) -> None:
    """A path that leads nowhere, or to no Python, stops the start."""
    with pytest.raises(DeclarationError, match="missing"):
        load(beside=[tmp_path / "missing.py"])
    other = tmp_path / "wave.txt"
    other.write_text(GOOD, encoding="utf-8")
    with pytest.raises(DeclarationError, match="wave"):
        load(beside=[other])


def test_a_file_loads_once(tmp_path: Path) -> None:
    """The same file twice is a duplicate, not two actions."""
    path = write(tmp_path, "Wave", "Wave")
    with pytest.raises(DeclarationError, match="already declared"):
        load(beside=[path, path])
