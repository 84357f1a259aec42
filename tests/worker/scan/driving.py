"""Drive the real worker of a scan as the agent does: a process, two pipes, messages as `core.scan_wire` has them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stanch.core.scan_wire import AT_SLOT, AT_SLOTS, looked_at

FIND_EVIL = b'rule Evil { strings: $a = "E-V-I-L" condition: $a }'
SHORT = 2.0
MOST_ADVANCES = 900
"""That are heard in vain: a worker tells some five of them in a second."""


@dataclass(slots=True)
class Done:
    """What a worker said."""

    loaded: list[dict[str, Any]] = field(default_factory=list)
    wants: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    skips: list[dict[str, Any]] = field(default_factory=list)
    advances: list[dict[str, Any]] = field(default_factory=list)
    tally: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def found(self) -> set[tuple[str, str]]:
        """Rule and the name of the object, of each find."""
        return {(one["rule"], one["objects"][0]["name"]) for one in self.findings}

    @property
    def skipped(self) -> set[tuple[str, str]]:
        """Name and reason."""
        return {(one["name"], one["reason"]) for one in self.skips}


class Driver:
    """A worker that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", at: int) -> None:
        self.process = process
        self.done = Done()
        self._at = at

    @property
    def at(self) -> list[str]:
        """What it is looking at."""
        return looked_at(os.pread(self._at, AT_SLOT * AT_SLOTS, 0))

    def say(self, **message: Any) -> None:
        """One message."""
        self.raw(json.dumps(message).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def targets(self, *paths: str | Path | bytes, below: bool = True) -> None:
        """Look there."""
        self.say(type="targets", paths=[os.fsdecode(path) for path in paths], below=below)

    def hear(self) -> dict[str, Any] | None:
        """Its next message."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return None
        message: dict[str, Any] = json.loads(line)
        self._take(message)
        return message

    def hear_until(self, what: Callable[[dict[str, Any]], bool]) -> Done:
        """Until a message fits, or it ends. AssertionError if neither comes."""
        most = len(self.done.advances) + MOST_ADVANCES
        while (message := self.hear()) is not None and not what(message):
            assert len(self.done.advances) < most, "it goes on and on"
        return self.done

    def finish(self) -> Done:
        """Say that nothing more comes, and hear it to its end."""
        self.say(type="all")
        return self.hear_until(lambda message: message["type"] == "end")

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "loaded":
                self.done.loaded.append(message["loaded"])
            case "wants":
                self.done.wants = message
            case "events":
                for kind, fields in message["events"]:
                    {"finding": self.done.findings, "skip": self.done.skips, "advance": self.done.advances}[
                        kind
                    ].append(fields)
            case "end":
                self.done.tally, self.done.error = message["tally"] or {}, message["error"]


def job(materials: Sequence[tuple[str, str, bytes]], **more: Any) -> dict[str, Any]:
    """A job with plain settings."""
    plain = {
        "type": "job",
        "engines": ["ioc", "yara", "hashes", "clamav"],
        "documents": {},
        "hint": "",
        "fast": False,
        "tags": [],
        "per_object": 30,
        "findings": 10_000,
        "rules": 0,
        "gentle": False,
        "max_size": None,
        "exclude": [],
        "network": False,
        "one_file_system": False,
        "memory": False,
        "threads": 2,
        "remembered": None,
        "learned": None,
        "clamd": None,
        "skip": [],
        "materials": len(materials),
        "kinds": sorted({kind for kind, _, _ in materials}),
    }
    return {**plain, **more}


BEFORE = "import runpy; {}; runpy.run_module('stanch.worker.scan', run_name='__main__')"


@contextmanager
def worker(
    materials: Sequence[tuple[str, str, bytes]],
    *,
    hand: Sequence[int] = (),
    prefix: Sequence[str] = (),
    before: str = "",
    **more: Any,
) -> Iterator[Driver]:
    """A worker that has loaded these; it is killed at the end.

    `at=None`: threads look, no other processes. `before` is Python that it does first.
    """
    at = os.memfd_create("at")
    os.ftruncate(at, AT_SLOT * AT_SLOTS)
    fds = [at, *hand, *(more[one] for one in ("remembered", "learned", "clamd") if more.get(one) is not None)]
    what = ["-c", BEFORE.format(f"exec({before!r})")] if before else ["-m", "stanch.worker.scan"]
    process = subprocess.Popen(
        [*prefix, sys.executable, "-I", *what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=fds,
        cwd="/",
        env={},
    )
    driver = Driver(process, at)
    try:
        driver.say(**job(materials, **({"at": at} | more)))
        for kind, name, data in materials:
            driver.say(type="material", kind=kind, name=name, size=len(data))
            driver.raw(data)
        driver.hear_until(lambda message: message["type"] in {"wants", "end"})
        yield driver
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        os.close(at)


def scan(*paths: str | Path | bytes, rules: bytes = FIND_EVIL, below: bool = True, **more: Any) -> Done:
    """Scan these places with rules."""
    with worker([("yara", "evil.yar", rules)], **more) as driver:
        driver.targets(*paths, below=below)
        return driver.finish()
