"""A scanner whose worker a test plays."""

import asyncio
import hashlib
import json
import sys
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stanch.agent.host.clamd import Clamd
from stanch.agent.host.scanner import LinuxScanner
from stanch.agent.host.scanner_parts import Parts, Scans
from stanch.core.content import ContentKind
from stanch.core.scanning import (
    Area,
    Engine,
    Files,
    Material,
    Scan,
)
from stanch.core.types import EndpointPath
from tests.fakes.autoruns import FakeAutoruns

WORKER = Path(__file__).with_name("played_worker.py")
LOADED = ["say", {"type": "loaded", "loaded": {"name": "r.yar", "kind": "yara", "count": 1}}]
WANTS = ["say", {"type": "wants", "documents": {}, "files": True}]
END = ["say", {"type": "end", "tally": {"files": 2, "complete": True}, "error": ""}]
BEGIN = [["open", None], LOADED, WANTS]


class Content:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    async def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def material(data: bytes = b"rule a { condition: true }", **more: Any) -> Material:
    @asynccontextmanager
    async def opened():
        yield Content(data)

    sha256 = hashlib.sha256(data).hexdigest()
    return Material(
        **{"kind": ContentKind.YARA, "name": "r.yar", "size": len(data), "sha256": sha256, "open": opened} | more
    )


def finding(rule: str = "evil", path: str = "/tmp/x") -> list[Any]:
    place = {"document": "FileItem", "name": path, "path": path}
    return ["finding", {"engine": "yara", "rule": rule, "objects": [place]}]


def events(*some: Any) -> list[Any]:
    return ["say", {"type": "events", "events": list(some)}]


@dataclass
class Bench:
    """A scanner whose worker is played."""

    folder: Path
    more: dict[str, Any] = field(default_factory=dict)
    scans: Scans = field(default_factory=Scans)

    def scanner(self, *lives: list[Any], task: str = "tsk_1") -> LinuxScanner:
        (self.folder / "play.json").write_text(json.dumps(lives))
        options: dict[str, Any] = {
            "collectors": {},
            "autoruns": FakeAutoruns,
            "command": (sys.executable, "-I", str(WORKER), str(self.folder / "play.json")),
            "clamd": Clamd(root=self.folder / "nowhere"),
            "totals": dict,
            "root": self.folder,
        }
        return LinuxScanner(task=task, scans=self.scans, parts=Parts(**options | self.more))

    @property
    def log(self) -> list[dict[str, Any]]:
        path = self.folder / "play.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def heard(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.log if one.get("type") == kind]

    def jobs(self) -> list[dict[str, Any]]:
        return [one["job"] for one in self.log if "job" in one]


def a_scan(**more: Any) -> Scan:
    options = {
        "materials": (material(),),
        "files": Files(area=Area.CUSTOM, paths=(EndpointPath("/tmp"),)),
        "engines": frozenset({Engine.YARA}),
    }
    return Scan(**options | more)


async def run(scanner: LinuxScanner, scan: Scan | None = None) -> list[Any]:
    async with asyncio.timeout(60), aclosing(scanner.scan(scan or a_scan())) as batches:
        return [one async for batch in batches for one in batch]
