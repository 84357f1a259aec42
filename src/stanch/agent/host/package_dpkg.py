"""What dpkg knows: the lists, checksums and configuration files of its packages, and its diversions.

The names of all packages are read in one pass, file after file: 120,000 of 700 packages in some hundredths of a second.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from stanch.agent.host.package_database import Brought, package_name, read_up_to

MAX_PACKAGES = 50_000
MAX_LIST = 16 * 1_048_576
"""Bytes of one package's list; the largest there are have four million."""
MAX_STATUS = 32 * 1_048_576
MAX_DIVERSIONS = 4 * 1_048_576

_LIST = b".list"
_CONFIGURATION = re.compile(rb"^Conffiles:[ \t]*\n((?: [^\n]*\n?)+)", re.MULTILINE)
_CONFIGURED = re.compile(rb"^ (/[^\n]*?) ([0-9a-f]{32})(?: [a-z-]+)*$", re.MULTILINE)
_CHECKSUM = re.compile(rb"^([0-9a-f]{32})  ([^\n]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Diversions:
    """Files of one package that stand aside for those of another: name to where it went, and for whom."""

    moved: Mapping[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def place(self, package: bytes, name: bytes) -> bytes:
        """Where the file is that this package brought under this name."""
        there, other = self.moved.get(name, (name, package))
        return name if other == package else there

    def names(self, places: Collection[bytes]) -> set[bytes]:
        """Every name under which a package may have brought what is at one of these places."""
        wanted = set(places)
        return wanted | {name for name, (there, _) in self.moved.items() if there in wanted}


def parse_diversions(raw: bytes) -> Diversions:
    """Read dpkg's file: three lines for each, the name, where it went, the package that it went for (`:` for nobody's).

    A rest that is no three lines is left out.
    """
    lines = raw.split(b"\n")
    threes = zip(lines[0::3], lines[1::3], lines[2::3], strict=False)
    return Diversions({name: (there, other) for name, there, other in threes if name and there and other})


def parse_checksums(raw: bytes) -> Iterator[tuple[bytes, str]]:
    """Read PACKAGE.md5sums: names, from the root, and their MD5; other lines are passed over."""
    return ((b"/" + found[2].lstrip(b"/"), found[1].decode("ascii")) for found in _CHECKSUM.finditer(raw))


def parse_configuration(raw: bytes) -> Iterator[tuple[bytes, str]]:
    """Read the configuration files in dpkg's status, and the MD5 of each as it was brought."""
    for block in _CONFIGURATION.finditer(raw):
        for found in _CONFIGURED.finditer(block[1]):
            yield found[1], found[2].decode("ascii")


class Dpkg:
    """The database of Debian and its like, below a root folder."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "var/lib/dpkg"

    def owners(self, names: Collection[bytes]) -> Mapping[bytes, str]:
        """The package of each file that has one, without its architecture."""
        return {place: package_name(_plain(owners[0][0])) for place, owners in self._owned(names).items()}

    def brought(self, names: Collection[bytes]) -> Mapping[bytes, Brought]:
        """The MD5 of each file as its package brought it."""
        owned = self._owned(names)
        found = dict(self._checksums(owned))
        if len(found) < len(owned):
            configured = dict(parse_configuration(read_up_to(self._folder / "status", MAX_STATUS)))
            for place, owners in owned.items():
                known = next((configured[name] for _, name in owners if name in configured), None)
                if place not in found and known is not None:
                    found[place] = known
        return {place: Brought("md5", digest) for place, digest in found.items()}

    def _owned(self, places: Collection[bytes]) -> dict[bytes, list[tuple[bytes, bytes]]]:
        """Of each file that has any: the packages (as their files are called), and how each calls it."""
        diversions = parse_diversions(read_up_to(self._folder / "diversions", MAX_DIVERSIONS))
        names, wanted = diversions.names(places), frozenset(places)
        found: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for package, hits in self._listed(names) if names else ():
            for name in hits:
                place = diversions.place(_plain(package), name)
                if place in wanted:
                    found.setdefault(place, []).append((package, name))
        return {place: sorted(owners) for place, owners in found.items()}

    def _listed(self, names: set[bytes]) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        """The packages that have any of these names, with those that they have."""
        for folder, name in self._lists():
            hits = names.intersection(read_up_to(name, MAX_LIST, folder=folder).split(b"\n"))
            if hits:
                yield name.removesuffix(_LIST), sorted(hits)

    def _lists(self) -> Iterator[tuple[int, bytes]]:
        with suppress(OSError):
            folder = os.open(self._folder / "info", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                names = (os.fsencode(name) for name in os.listdir(folder))  # noqa: PTH208 - a descriptor
                for name in islice((name for name in names if name.endswith(_LIST)), MAX_PACKAGES):
                    yield folder, name
            finally:
                os.close(folder)

    def _checksums(self, owned: Mapping[bytes, list[tuple[bytes, bytes]]]) -> Iterator[tuple[bytes, str]]:
        """Place and MD5, of the packages that have a file of checksums; each is read once."""
        by_package: dict[bytes, dict[bytes, bytes]] = {}
        for place, owners in owned.items():
            for package, name in owners[:1]:
                by_package.setdefault(package, {})[name] = place
        for package, wanted in by_package.items():
            raw = read_up_to(bytes(self._folder / "info") + b"/" + package + b".md5sums", MAX_LIST)
            yield from ((wanted[name], digest) for name, digest in parse_checksums(raw) if name in wanted)


def _plain(package: bytes) -> bytes:
    """Without the architecture that stands behind it where several are installed."""
    return package.partition(b":")[0]
