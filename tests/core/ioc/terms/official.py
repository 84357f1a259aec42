"""The official list of terms, and what is asked of every part of the catalogue beside it."""

import re
from collections.abc import Mapping
from pathlib import Path

from stanch.core.ioc.items import Kind, Supported

Catalogue = Mapping[str, Mapping[str, Supported]]

_TERM = re.compile(r'text="(\w+)/([^"]+)".*?data-type="xs:(\w+)".*?platform="([^"]*)"')
_KINDS = {
    Kind.DATE: {"dateTime"},
    Kind.BOOL: {"boolean"},
    Kind.INT: {"int", "uint64"},
    Kind.DURATION: {"string"},
    Kind.HASH: {"string"},
    Kind.IP: {"string"},
    Kind.STRING: {"string"},
}


def official(shared_data: Path) -> dict[str, tuple[str, str]]:
    """Term to its type and platforms."""
    text = (shared_data / "openioc/openioc-1.1/iocterms/current.iocterms").read_text(errors="replace")
    return {f"{found[1]}/{found[2]}": (found[3], found[4]) for found in _TERM.finditer(text)}


def check(catalogue: Catalogue, shared_data: Path, *, ours: str = "-", without_sense: frozenset[str]) -> None:
    """Every term is spelt as there and of that kind, `ours` apart; none that is there for Linux is forgotten."""
    listed = official(shared_data)
    assert len(listed) > 1000
    known = {f"{document}/{path}": one for document, terms in catalogue.items() for path, one in terms.items()}
    for name, supported in known.items():
        if not name.partition("/")[2].startswith(ours):
            assert listed[name][0] in _KINDS[supported.kind], name
        assert supported.what
    for_linux = {name for name, (_type, where) in listed.items() if "linux" in where}
    wanted = {name for name in for_linux if name.partition("/")[0] in catalogue}
    assert wanted - known.keys() == without_sense
