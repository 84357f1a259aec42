"""The rules and hashes that come with the agent: always there, in the version of the package, and never removed."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

from stanch.agent.content_files import opened_part
from stanch.core.content import ContentKind, Installed, PackFile
from stanch.core.pack import first_line, index_of
from stanch.core.scanning import Material

FOLDER = Path(str(files("stanch"))) / "content"
VERSION = 1
"""Of all of them; grows with each change."""

BASE: Mapping[str, tuple[ContentKind, tuple[str, ...], int]] = {
    "stanch-base": (ContentKind.YARA, ("persistence.yar", "test_file.yar", "web_shells.yar"), 14),
    "stanch-base-hashes": (ContentKind.HASHES, ("test_file.txt",), 6),
}
"""Name to kind, files, and how many rules or hashes are in them."""


def base_installed() -> Sequence[Installed]:
    """What is always there."""
    return tuple(
        Installed(
            name=name, kind=kind, version=VERSION, sha256=_pack_hash(name), files=len(inside), rules=rules, builtin=True
        )
        for name, (kind, inside, rules) in BASE.items()
    )


def base_materials(name: str) -> Sequence[Material]:
    """The files of one of them."""
    kind = BASE[name][0]
    return tuple(
        Material(
            kind=kind,
            name=f"{name}/{one.name}",
            size=one.size,
            sha256=one.sha256,
            open=partial(opened_part, FOLDER / one.name, 0, one.size),
        )
        for one in _listed(name)
    )


@cache
def _listed(name: str) -> tuple[PackFile, ...]:
    return tuple(_described(one) for one in BASE[name][1])


def _described(name: str) -> PackFile:
    data = (FOLDER / name).read_bytes()
    return PackFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


@cache
def _pack_hash(name: str) -> str:
    """Of the pack that these files would make."""
    index = index_of(BASE[name][0], _listed(name))
    digest = hashlib.sha256(first_line(index))
    for one in index.files:
        digest.update((FOLDER / one.name).read_bytes())
    return digest.hexdigest()
