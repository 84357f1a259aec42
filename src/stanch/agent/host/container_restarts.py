"""Would systemd start a container anew? By the files of the unit that keeps it, without asking systemd."""

from pathlib import Path

from stanch.agent.host.configured import files_in, lines_of

_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/transient",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
"""The first that has a unit wins."""


def restart_of(root: Path, unit: str) -> str:
    """The value of the unit's `Restart=`; empty if there is no such unit, or if it says nothing."""
    if "/" in unit or not unit.endswith(".service"):
        return ""
    names = [unit]
    if "@" in unit:
        names.append(f"{unit.partition('@')[0]}@.service")
    found = next((file for name in names for one in _FOLDERS if (file := root / one / name).is_file()), None)
    values = [] if found is None else _values(found)
    for name in reversed(names):
        for drop_in in _drop_ins(root, name):
            values += _values(drop_in)
    return values[-1] if values else ""


def _drop_ins(root: Path, name: str) -> list[Path]:
    """By name, whichever folder they are in; of two with one name the first folder's wins."""
    found: dict[str, Path] = {}
    for one in _FOLDERS:
        for file in files_in(root / one / f"{name}.d", ".conf"):
            found.setdefault(file.name, file)
    return [found[one] for one in sorted(found)]


def _values(file: Path) -> list[str]:
    lines = (line.partition("=") for line in lines_of(file))
    return [value.strip()[:40] for key, _, value in lines if key.strip() == "Restart"]
