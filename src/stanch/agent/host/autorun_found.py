"""What a reader of autoruns finds, before it is described; and what every reader can do.

A reader knows one family of places. It says where something stands and what it starts; hashes, owners and packages are
added to all of them in the same way (`autorun_describing`).
"""

import os
import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from stanch.agent.host.autorun_tree import Line, Tree
from stanch.core.autoruns import Place, autorun_id

MAX_COMMAND = 4000
"""Characters of a command that are kept."""
PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where a program without a folder is looked for."""

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_WRAPPERS = frozenset(
    {
        *("sudo", "env", "nohup", "nice", "ionice", "setsid", "exec", "timeout", "chronic", "command", "flock"),
        *("sh", "bash", "dash", "ash", "zsh", "ksh", "python", "python3", "perl", "ruby", "node", "php", "stdbuf"),
    }
)
"""What starts another program that is named after it: that one is meant, if it has a path."""

_KEYWORDS = frozenset({"if", "then", "else", "elif", "while", "until", "do", "!", "time"})
_NO_PROGRAMS = frozenset(
    {
        *("[", "[[", "test", "fi", "done", "for", "case", "esac", "cd", "true", "false", ":", "set", "export", "umask"),
        *("ulimit", "echo", "printf", "exit", "return", "shift", "unset", "trap", "wait", "read", "local"),
    }
)
"""Words that begin a command of the shell that starts no program."""

_ENDS = re.compile(r"[;&|(){}`<>\n]")

_SUSPICIOUS = (
    (re.compile(r"\bbase64\b[^|;&]{0,80}\s(-d|-D|--decode)\b"), "decodes base64"),
    (
        re.compile(r"\b(curl|wget|fetch)\b[^|]{0,500}\|\s{0,20}(sudo\s{1,20})?(/\S{1,100}/)?(ba|da|z|k)?sh\b"),
        "pipes a download to a shell",
    ),
    (re.compile(r"/dev/(tcp|udp)/"), "opens a connection from the shell"),
    (re.compile(r"\b(nc|ncat|netcat)\b[^|;&]{0,200}\s-[a-z]{0,10}[ec]\b"), "gives a program to the network"),
    (re.compile(r"\b(python[23]?|perl|ruby|php)\s{1,20}-(c|e|r)\b"), "runs code that stands in the line"),
)


def suspicions(command: str) -> Iterator[str]:
    """What of a command line deserves a look: a short list of what attackers like, no judgement."""
    text = command[:MAX_COMMAND]
    yield from (f"it {what}" for pattern, what in _SUSPICIOUS if pattern.search(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that starts by itself, as a reader found it. Paths and texts may hold surrogates."""

    place: Place
    name: str
    path: str
    id: str
    line: int = 0
    command: str = ""
    program: str = ""
    """The path of the program, if the reader knows it."""
    starts: str = ""
    """The command line in which the program is named, if it is not `command`."""
    user: str = ""
    enabled: bool = True
    running: bool = False
    disabled_by: str = ""
    notes: tuple[str, ...] = ()
    is_link: bool = False
    """Is it the link at `path` that counts, not what it leads to?"""


class Reader(Protocol):
    """Reads one family of places."""

    @property
    def places(self) -> Collection[Place]:
        """What it can find."""
        ...

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:
        """All that is there of these places; what cannot be read is in `tree.unread`."""
        ...


def of_line(
    place: Place,
    path: str,
    line: Line,
    *,
    name: str,
    command: str | None = None,
    program: str = "",
    starts: str = "",
    user: str = "",
    enabled: bool = True,
    notes: tuple[str, ...] = (),
    text: str | None = None,
) -> Item:
    """What a line starts; `text` is what its id is made of, if that is not the line."""
    return Item(
        place=place,
        name=name[:MAX_COMMAND],
        path=path,
        id=autorun_id(place, path, line.text if text is None else text),
        line=line.number,
        command=(line.text.strip() if command is None else command)[:MAX_COMMAND],
        program=program,
        starts=starts[:MAX_COMMAND],
        user=user,
        enabled=enabled and not line.disabled_by,
        disabled_by=line.disabled_by,
        notes=notes,
    )


def of_file(
    place: Place,
    path: str,
    *,
    name: str = "",
    command: str = "",
    program: str = "",
    starts: str = "",
    user: str = "",
    enabled: bool = True,
    notes: tuple[str, ...] = (),
) -> Item:
    """A file that counts as a whole."""
    return Item(
        place=place,
        name=name or path.rpartition("/")[2],
        path=path,
        id=autorun_id(place, path, ""),
        command=command[:MAX_COMMAND],
        program=program,
        starts=starts[:MAX_COMMAND],
        user=user,
        enabled=enabled,
        notes=notes,
    )


@dataclass(slots=True)
class Programs:
    """Finds the program that a command line means, below a root."""

    tree: Tree
    _known: dict[str, str] = field(default_factory=dict)

    def of(self, command: str) -> str:
        """The first program that it starts, if it is named by its path or is in the usual folders; empty otherwise.

        What only tests something is passed over; of `sh FILE` or `nice PROGRAM`, the second is meant.
        """
        wrapper = ""
        for words in _parts(command):
            for word in words:
                base = word.rpartition("/")[2]
                if not base or word.startswith("-"):
                    continue
                found = os.path.normpath(word) if word.startswith("/") else self.found(word)
                if base in _WRAPPERS:
                    wrapper = wrapper or found
                elif found:
                    return found
                elif not wrapper:
                    return ""  # a program that is nowhere: what follows are its arguments
        return wrapper

    def found(self, name: str) -> str:
        """The program of this name in the usual folders; empty for none."""
        if "/" in name or len(name) > 255:  # noqa: PLR2004 - no longer name exists
            return ""
        if name not in self._known:
            if len(self._known) > 10_000:  # noqa: PLR2004 - a bound
                self._known.clear()
            folders = (f"{folder}/{name}" for folder in PATH)
            self._known[name] = next((path for path in folders if self.tree.is_file(path)), "")
        return self._known[name]


def _parts(command: str) -> Iterator[list[str]]:
    """The simple commands of a line, as words; assignments before them, and what starts nothing, are left out."""
    for part in _ENDS.split(command[:MAX_COMMAND])[:100]:
        try:
            words = shlex.split(part)
        except ValueError:  # a quote without its end
            words = part.replace('"', " ").replace("'", " ").split()
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        # sh -c '...': what stands in quotes counts.
        plain = [word for one in words[:100] for word in one.split()[:100]]
        while plain and (_ASSIGNMENT.match(plain[0]) or plain[0] in _KEYWORDS):
            plain.pop(0)
        if plain and plain[0] not in _NO_PROGRAMS:
            yield plain
