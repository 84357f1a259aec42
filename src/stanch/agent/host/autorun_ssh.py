"""Reads what lets somebody in by SSH, or starts when somebody comes in: keys, rc files, commands of the server."""

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from stanch.agent.host.autorun_found import Item, of_file, of_line
from stanch.agent.host.autorun_tree import Tree
from stanch.core.autoruns import Place

KEY_FILES = (".ssh/authorized_keys", ".ssh/authorized_keys2")
"""Below a home, unless the server is told otherwise."""

RC_OF_HOME = ".ssh/rc"
RC = "/etc/ssh/sshrc"
SERVER = "/etc/ssh/sshd_config"
MAX_INCLUDES = 100
MAX_PATTERNS = 20

_TYPE = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.-]{1,100}")
_COMMAND = re.compile(r"\bcommand=\"((?:[^\"\\]|\\.){0,4000})\"", re.IGNORECASE)
_STARTING = frozenset(
    {"forcecommand", "authorizedkeyscommand", "authorizedprincipalscommand", "subsystem", "xauthlocation"}
)
_INTERNAL = ("internal-sftp", "none")
_MAX_KEY = 16_384


@dataclass(frozen=True, slots=True)
class Key:
    """A line of authorized_keys."""

    options: str
    type: str
    fingerprint: str
    """As ssh-keygen shows it; empty for a key that is none."""
    comment: str

    @property
    def command(self) -> str:
        """The command that it is bound to; empty for none."""
        found = _COMMAND.search(self.options)
        return found[1].replace('\\"', '"') if found else ""


def parse_key(text: str) -> Key | None:
    """A line of authorized_keys; None for a comment, or what is no key."""
    rest = text.strip()
    if not rest or rest.startswith("#"):
        return None
    options = ""
    if not _TYPE.match(rest):
        options, rest = _split_options(rest)
    kind, key, comment = [*rest.split(None, 2), "", "", ""][:3]
    if not key or not _TYPE.fullmatch(kind):
        return None
    return Key(options, kind, fingerprint(key), comment.strip())


def _split_options(text: str) -> tuple[str, str]:
    """Options end with the first space that is in no quotes."""
    quoted = escaped = False
    for n, one in enumerate(text):
        if escaped:
            escaped = False
        elif one == "\\" and quoted:
            escaped = True
        elif one == '"':
            quoted = not quoted
        elif one in " \t" and not quoted:
            return text[:n], text[n:].strip()
    return text, ""


def fingerprint(key: str) -> str:
    """`SHA256:...` of a key in base64; empty if it is none."""
    try:
        raw = base64.b64decode(key[:_MAX_KEY].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=") if raw else ""


@dataclass(frozen=True, slots=True)
class SshReader:
    """Keys, and what starts with a session."""

    places: Collection[Place] = (Place.SSH_KEY, Place.OTHER)

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:
        """The server's settings say where keys are."""
        settings = list(_server(tree))
        if Place.SSH_KEY in places:
            yield from _keys(tree, [value for key, value, _item in settings if key == "authorizedkeysfile"])
            yield from _rc_files(tree)
        if Place.OTHER in places:
            yield from (item for key, _value, item in settings if key in _STARTING)


def _keys(tree: Tree, said: Collection[str]) -> Iterator[Item]:
    patterns = dict.fromkeys([*KEY_FILES, *(one for value in said for one in value.split())][:MAX_PATTERNS])
    seen = set[str]()
    for account in tree.accounts():
        for pattern in patterns:
            path = pattern.replace("%%", "%").replace("%h", account.home or "/").replace("%u", account.name)
            path = path if path.startswith("/") else f"{account.home}/{path}" if account.home else ""
            if path and path != "/none" and path not in seen and len(seen) < 100_000:  # noqa: PLR2004 - a bound
                seen.add(path)
                yield from _key_file(tree, path, account.name)


def _key_file(tree: Tree, path: str, user: str) -> Iterator[Item]:
    for line in tree.lines(path) if tree.status(path) else ():
        key = parse_key(line.text)
        if key is None:
            continue
        shown = " ".join(one for one in (key.options, key.type, key.fingerprint, key.comment) if one)
        yield of_line(
            Place.SSH_KEY,
            path,
            line,
            name=key.comment or key.fingerprint or key.type,
            command=shown,
            starts=key.command or "-",
            user=user,
            notes=() if key.fingerprint else ("its key cannot be read",),
        )


def _rc_files(tree: Tree) -> Iterator[Item]:
    files = [(RC, "")] + [(f"{one.home}/{RC_OF_HOME}", one.name) for one in tree.homes()]
    for path, user in files:
        if tree.is_file(path):
            lines = [one.text.strip() for one in tree.lines(path) if not one.is_blank]
            yield of_file(
                Place.SSH_KEY, path, name=f"ssh {path.rpartition('/')[2]}", command="; ".join(lines), user=user
            )


def _server(tree: Tree) -> Iterator[tuple[str, str, Item]]:
    """Key, value and what it starts, of each line of the server's settings; files that are included, too."""
    waiting, seen = [SERVER], set[str]()
    while waiting and len(seen) < MAX_INCLUDES:
        path = waiting.pop()
        if path in seen or not tree.status(path):
            continue
        seen.add(path)
        for line in tree.lines(path):
            key, _, value = line.text.strip().replace("=", " ", 1).replace("\t", " ", 1).partition(" ")
            key, value = key.lower(), value.strip().strip('"')
            if line.is_blank or not value:
                continue
            if key == "include":
                waiting += _included(tree, value)
            elif key in _STARTING and value.rpartition(" ")[2] in _INTERNAL:
                continue
            else:
                starts = value.partition(" ")[2] if key == "subsystem" else value
                yield key, value, of_line(Place.OTHER, path, line, name=f"sshd: {key}", starts=starts)


def _included(tree: Tree, value: str) -> Iterator[str]:
    for pattern in value.split()[:MAX_PATTERNS]:
        path = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
        folder, _, name = path.rpartition("/")
        if len(name) <= 255:  # noqa: PLR2004 - no longer name exists
            yield from (f"{folder}/{one}" for one in tree.names(folder) if fnmatchcase(one, name))
