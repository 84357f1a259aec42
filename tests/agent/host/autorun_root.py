"""A root folder in which tests plant what starts by itself, and what the readers find there."""

import os
from dataclasses import dataclass
from pathlib import Path

from stanch.agent.host.autorun_found import Item, Reader
from stanch.agent.host.autorun_tree import Tree
from stanch.core.autoruns import Place, Unread

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
alice:x:1000:1000::/home/alice:/bin/bash
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
"""


@dataclass(frozen=True)
class Root:
    """A machine's files below a folder."""

    folder: Path

    def write(self, path: str, text: str | bytes = "", *, mode: int = 0o644) -> Path:
        """A file, with the folders above it."""
        file = self.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)
        file.chmod(mode)
        return file

    def program(self, path: str, text: str = "#!/bin/sh\n") -> Path:
        """A program."""
        return self.write(path, text, mode=0o755)

    def link(self, path: str, target: str) -> Path:
        """A link."""
        link = self.at(path)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        return link

    def fifo(self, path: str) -> None:
        """A pipe that nobody writes to: whoever opened it would wait for ever."""
        file = self.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(file)

    def at(self, path: str) -> Path:
        """Where it is on this machine."""
        return self.folder / path.lstrip("/")

    def items(self, reader: Reader, *places: Place) -> list[Item]:
        """What a reader finds."""
        return self.read(reader, *places)[0]

    def read(self, reader: Reader, *places: Place) -> tuple[list[Item], list[Unread]]:
        """The same, and what could not be read."""
        tree = Tree(self.folder)
        try:
            return list(reader.read(tree, places or tuple(reader.places))), tree.unread
        finally:
            tree.close()


def new_root(folder: Path) -> Root:
    """A machine with two people."""
    root = Root(folder)
    root.write("/etc/passwd", PASSWD)
    for home in ("/root", "/home/alice"):
        root.at(home).mkdir(parents=True)
    return root
