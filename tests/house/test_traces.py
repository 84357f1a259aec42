"""No file tells where it was built: no package index, no path of one machine."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.house.source import ROOT, package, tracked

INDEXES = ("pypi" + ".org", "python" + "hosted.org", "npmjs" + ".org", "npmjs" + ".com", "deb.debian" + ".org")
INDEX_OPTIONS = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links", "--trusted" + "-host")
BUILD_PATHS = ("/work" + "/", "/opt/" + "pypi", "/opt/" + "wheels", "/root/" + ".pyenv")
PLACE = re.compile(r"(?<![\w./-])(?:" + "|".join(map(re.escape, (*BUILD_PATHS, f"{ROOT}/"))) + ")")
"""The checkout that these tests run in, and the places of machines on which it was written."""

LOCKS = ("requirements/run.txt", "requirements/dev.txt")


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Every tracked file that is text."""
    return tuple(_read(tracked()))


def _read(paths: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    for path in paths:
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_file_names_a_package_index() -> None:
    """Where packages come from is the business of the machine that installs them."""
    wrong = [f"{name}: {host}" for name, text in texts() for host in (*INDEXES, *INDEX_OPTIONS) if host in text]
    assert not wrong


def test_no_file_names_a_place_of_one_machine() -> None:
    """A path of the machine that a file was written on means nothing elsewhere."""
    wrong = [f"{name}: {found[0]}" for name, text in texts() for found in PLACE.finditer(text)]
    assert not wrong


# --- what is installed -----------------------------------------------------------------------------------------------


def project() -> dict[str, list[str]]:
    """The names of what pyproject.toml asks for: the package itself, and each group."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {"run": settings["project"]["dependencies"], **settings["dependency-groups"]}
    return {group: [re.split(r"[<>=~!; \[]", one)[0] for one in ones] for group, ones in asked.items()}


def as_locked(names: Iterable[str]) -> set[str]:
    """Names as lock files spell them (PEP 503)."""
    return {re.sub(r"[-_.]+", "-", one).lower() for one in names}


def locked(name: str) -> dict[str, int]:
    """Package to number of hashes, of a lock file."""
    blocks = re.split(r"\n(?=\S)", "\n" + (ROOT / name).read_text(encoding="utf-8"))
    found = ((re.match(r"([a-z0-9-]+)==", block.strip()), block.count("--hash=sha256:")) for block in blocks)
    return {match[1]: hashes for match, hashes in found if match}


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_a_hash_for_everything(name: str) -> None:
    """What is installed is what was looked at."""
    assert len(locked(name)) > 20
    assert not [one for one, hashes in locked(name).items() if not hashes]


def test_locks_hold_what_the_project_asks_for() -> None:
    """A dependency that was added is locked too: `make lock`."""
    asked = project()
    assert as_locked(asked["run"]) <= set(locked(LOCKS[0]))
    assert as_locked(one for group in asked.values() for one in group) <= set(locked(LOCKS[1]))


def test_both_locks_agree() -> None:
    """Tests run with the versions that users run."""
    run, dev = ((ROOT / name).read_text(encoding="utf-8") for name in LOCKS)
    pins = [set(re.findall(r"^[a-z0-9-]+==[^ \\]+", text, re.MULTILINE)) for text in (run, dev)]
    assert pins[0] <= pins[1]


def test_every_dependency_is_justified() -> None:
    """docs/adr/dependencies.md says for each one why it is there."""
    page = (ROOT / "docs" / "adr" / "dependencies.md").read_text(encoding="utf-8")
    assert not [one for group in project().values() for one in group if f"| {one} |" not in page]


IMPORTED_AS = {
    "argon2-cffi": "argon2",
    "backports.zstd": "backports",
    "dnspython": "dns",
    "google-re2": "re2",
    "pyelftools": "elftools",
    "stix2-patterns": "stix2patterns",
    "yara-python": "yara",
}
"""Where a package's name is not its module's."""


LOADED_BY = dict.fromkeys(("httptools", "wsproto"), "uvicorn, which server/listening.py tells its name")
"""What another package imports for us."""


def test_every_dependency_is_used() -> None:
    """What the package installs for its users, it imports somewhere."""
    used = {found.top for one in package() for found in one.imports} | LOADED_BY.keys()
    assert not {IMPORTED_AS.get(one, one) for one in project()["run"]} - used
