"""The act of the files: the attack's file goes into quarantine and comes back, is deleted and comes back again.

What "back" means is measured past the agent: content, owner, mode, times, attributes, and both of its names.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanch.core.rest import OrderView
from stanch.core.task import State
from stanch.demo.lab import HOSTNAME
from stanch.demo.report import expect
from stanch.demo.scene import Chapter, Scene
from stanch.demo.stage import AGENT_PLACES, STOLEN

SECOND_NAME = "/home/alice/.cache/invoice.bin"
"""A hard link, as an attacker leaves one."""

ATTRIBUTE = "user.xdg.origin.url"
ORIGIN = b"https://mail.example/invoice"
MODE = 0o4750
"""With the setuid bit: what a careless restore loses first."""

NEEDLE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Look:
    """A file as the kernel of the endpoint has it, under both of its names."""

    sha256: str
    mode: int
    owner: tuple[int, int]
    modified: int
    attributes: tuple[tuple[str, bytes], ...]
    names: int
    same: bool
    """Do both names lead to one file?"""


class Files:
    """Quarantine, restore, delete, undo."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._stage, self._responder = scene, scene.stage, scene.responder
        self._before: Look | None = None
        self._needle = b""
        self._item: dict[str, Any] = {}

    def chapters(self) -> Iterator[Chapter]:
        """In order."""
        yield "quarantine", self.quarantine
        yield "quarantine-list", self.quarantine_list
        yield "restore", self.restore
        yield "delete-and-undo", self.delete_and_undo

    def quarantine(self) -> str:
        """The file is gone under both of its names, and its bytes are nowhere on the endpoint in the clear."""
        first, second = self._path(STOLEN), self._path(SECOND_NAME)
        second.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, second)
        first.chmod(MODE)
        os.setxattr(first, ATTRIBUTE, ORIGIN)
        self._before = self._look()
        with first.open("rb") as file:
            self._needle = file.read(NEEDLE_BYTES)
        task = self._responder.order("quarantine", HOSTNAME, "--path", STOLEN)
        (self._item,) = (task.result or {}).get("items", ())
        self._expect_gone()
        kept = [one for one in self._vault().rglob("*") if one.is_file()]
        clear = [one.name for one in kept if self._needle in one.read_bytes()]
        expect(not clear, "The vault holds the bytes in the clear", got=clear)
        size = sum(one.stat().st_size for one in kept)
        return f"{self._item['id']}: both names gone; {size} bytes in the vault, none of the file's own among them"

    def quarantine_list(self) -> str:
        """The list tells what is in the vault, from where, and by whom."""
        task = self._responder.order("quarantine-list", HOSTNAME)
        items = (task.result or {}).get("items", ())
        (found,) = [one for one in items if one["id"] == self._item["id"]]
        told = (found["path"], found["sha256"], found["by"])
        before = self._known()
        expected = (STOLEN, before.sha256, self._scene.plot.who)
        expect(told == expected, "The list tells something else", got=told, expected=expected)
        return f"{len(items)} item: {found['path']}, SHA-256 {found['sha256'][:16]}…, by {found['by']}"

    def restore(self) -> str:
        """The file is back as it was, with both names."""
        self._responder.order("restore", HOSTNAME, "--items", self._item["id"])
        return self._expect_back()

    def delete_and_undo(self) -> str:
        """A deleted file comes back with one command."""
        deleted = self._responder.order("delete-file", HOSTNAME, "--path", STOLEN)
        self._expect_gone()
        answer = self._responder.stanch("order", "undo", deleted.order, "--wait")
        (undone,) = OrderView.model_validate_json(json.dumps(answer)).tasks
        expect(undone.state is State.DONE, "The undo did not end well", got=undone.error or undone.state)
        return f"deleted, gone under both names, undone by {undone.action}: {self._expect_back()}"

    # --- past the agent ----------------------------------------------------------------------------------------------

    def _expect_gone(self) -> None:
        left = [one for one in (STOLEN, SECOND_NAME) if os.path.lexists(self._path(one))]
        expect(not left, "The file can still be read on the endpoint", got=left)

    def _expect_back(self) -> str:
        before, now = self._known(), self._look()
        expect(now == before, "The file is not as it was", got=now, expected=before)
        return (
            f"SHA-256 {now.sha256[:16]}…, mode {now.mode:04o}, owner, times, attribute and {now.names} names as before"
        )

    def _known(self) -> Look:
        if self._before is None:
            raise AssertionError("the first chapter looks at the file")
        return self._before

    def _look(self) -> Look:
        path, second = self._path(STOLEN), self._path(SECOND_NAME)
        status = path.stat()
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Look(
            sha256=sha256,
            mode=stat.S_IMODE(status.st_mode),
            owner=(status.st_uid, status.st_gid),
            modified=status.st_mtime_ns,
            attributes=tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))),
            names=status.st_nlink,
            same=path.samefile(second),
        )

    def _path(self, path: str) -> Path:
        return self._stage.lab.endpoint.path(path)

    def _vault(self) -> Path:
        return self._path(f"{AGENT_PLACES['STANCH_AGENT_STATE']}/vault")
