"""What a scan was asked to look at: its worker finds nothing elsewhere, or it is no honest one.

What is found may go into the vault, and who runs it may be ended. A worker that a hostile file has taken over can read
every file; it must not get one taken away that nobody wanted to be looked at.
"""

import os
from collections.abc import Iterable, Sequence

from stanch.agent.host.scanner_areas import Place
from stanch.agent.host.scanner_worker import nonsense
from stanch.agent.path_rules import components
from stanch.core.scan_wire import OpenedFile
from stanch.core.scanning import Engine, Finding, Object, Scan
from stanch.core.types import EndpointPath

FILES, PROCESSES = "FileItem", "ProcessItem"


class Asked:
    """What one scan has asked for, up to now."""

    def __init__(self, scan: Scan, *, opened: Iterable[OpenedFile], forbidden: Sequence[EndpointPath]) -> None:
        self._engines = scan.engines
        self._memory = scan.memory or bool(scan.pids or scan.names)
        self._forbidden = {_name(components(one.raw)) for one in forbidden}
        self._folders: set[bytes] = set()
        self._files: set[bytes] = set()
        self._opened = {(os.fsencode(one["path"]), one["pid"], one["started"]) for one in opened}

    def add(self, places: Iterable[Place]) -> None:
        """The worker is told to look there."""
        for one in places:
            (self._folders if one.below else self._files).add(_name(components(os.fsencode(one.path))))

    def check(self, finding: Finding) -> None:
        """ActionFailed if it was found by what was not asked, or where nobody has asked for."""
        if finding.engine not in self._engines:
            raise nonsense(f"a finding of {finding.engine}, which was not asked")
        for one in finding.objects:
            if one.document == FILES and not self._holds_file(one):
                raise nonsense(f"a finding in {one.path}, where it was not to look")
            if one.document == PROCESSES and not (self._memory or finding.engine is Engine.IOC):
                raise nonsense(f"a finding in {one.name}, whose memory it was not to look into")

    def _holds_file(self, one: Object) -> bool:
        if one.path is None:  # nothing can be done about it
            return not one.pid
        if (one.path.raw, one.pid or 0, one.started or 0) in self._opened:
            return True
        parts = components(one.path.raw)
        above = {_name(parts[:n]) for n in range(len(parts) + 1)}  # itself too; places may be many, a path is short
        if one.pid or above & self._forbidden:
            return False
        return _name(parts) in self._files or bool(above & self._folders)


def _name(parts: Sequence[bytes]) -> bytes:
    return b"/".join(parts)
