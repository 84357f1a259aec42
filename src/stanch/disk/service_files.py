"""The files by which systemd and udev know of the agent: as they should be for one interpreter, and as they are.

Written by `stanch agent service`, removed by it and by `stanch agent uninstall`, looked at by `stanch agent selftest`.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNITS: Final = Path("etc/systemd/system")
RULES: Final = Path("etc/udev/rules.d")
FILES: Final = {
    "stanch-isolation.service": UNITS,
    "stanch-isolation-device@.service": UNITS,
    "stanch-agent.service": UNITS,
    "90-stanch-isolation.rules": RULES,
}
"""Name to folder, in the order in which they are shown."""

PACKAGED: Final = {UNITS: Path("usr/lib/systemd/system"), RULES: Path("usr/lib/udev/rules.d")}
"""Where a package puts them."""

LINKS: Final = ("sysinit.target.wants/stanch-isolation.service", "multi-user.target.wants/stanch-agent.service")
"""What `systemctl enable` adds; it cannot take them away any more when the units are gone."""

HEAD: Final = "# Written by `stanch agent service install`. Changes of your own: systemctl edit.\n"
MAX_BYTES: Final = 65_536

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+-]*")
_PROGRAMS: Final = {"/usr/bin/stanch-boot": "stanch.agent.boot", "/usr/bin/stanch": "stanch.cli.main"}


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it should be and as it is."""

    path: Path
    text: str

    @property
    def present(self) -> str | None:
        """What is there now; None if nothing is."""
        try:
            with self.path.open("rb") as file:
                return file.read(MAX_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return None

    @property
    def state(self) -> str:
        """absent, installed, outdated, or foreign: written by somebody else."""
        present = self.present
        if present is None:
            return "absent"
        if not present.startswith(HEAD):
            return "foreign"
        return "installed" if present == self.text else "outdated"


def files(root: Path, python: str) -> tuple[File, ...]:
    """All files below a root folder, for this interpreter.

    ValueError if a unit cannot name it, FileNotFoundError if this installation has no units.
    """
    if not _PLAIN_PATH.fullmatch(python):
        raise ValueError(f"got {python!r}, expected a plain path")
    return tuple(File(root / folder / name, HEAD + _for(python, _template(name))) for name, folder in FILES.items())


def links(root: Path) -> tuple[Path, ...]:
    """What `systemctl enable` has added, or would."""
    return tuple(root / UNITS / link for link in LINKS)


def packaged(root: Path) -> tuple[Path, ...]:
    """Those that a package has put there."""
    found: list[Path] = []
    for name, folder in FILES.items():
        with suppress(OSError):
            if (root / PACKAGED[folder] / name).is_file():
                found.append(root / PACKAGED[folder] / name)
    return tuple(found)


def _for(python: str, template: str) -> str:
    """The template with our programs replaced by this interpreter's; -I: root's daemons import from nowhere else."""
    return re.sub(
        r"(?m)^(Exec[A-Z][a-z]+=)(/usr/bin/stanch(?:-boot)?)\b(?!-)",
        lambda found: f"{found[1]}{python} -I -m {_PROGRAMS[found[2]]}",
        template,
    )


def _template(name: str) -> str:
    """A unit as it is packaged: beside this package, or in the checkout that it runs from."""
    package = Path(__file__).parents[1]
    for folder in (package / "systemd", package.parents[1] / "packaging" / "systemd"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise FileNotFoundError(f"no {name}")
