"""LoginHistoryItem and ShellHistoryItem: who was let in or kept out, and what they typed, as the files say it."""

import re
from collections.abc import Iterator, Sequence
from io import FileIO
from ipaddress import ip_address
from typing import Final

from stanch.agent.host.autorun_tree import BLOCK, Tree
from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_below import Known, collector, item, some
from stanch.agent.host.login_databases import MAX_FILE as MAX_DATABASE
from stanch.agent.host.login_databases import sessions
from stanch.agent.host.login_records import Record, Type, ends, record_size, records
from stanch.agent.host.shell_histories import HISTORIES, LONGEST, Parse
from stanch.core.ioc.items import CUT, Item

MAX_RECORDS: Final = 8 * 2**20
"""Bytes of a file of logins that are read, from its end: about 20,000 records."""
MAX_HISTORY: Final = 4 * 2**20
"""Bytes of a history that are read, from its end."""
MAX_FILES: Final = 40
"""Files of logins that are read."""
MAX_HOMES: Final = 5000
MAX_COMMANDS: Final = 50_000
"""Commands of one home, the newest of each history: no user's lines keep those of others from being told."""

_SIGN: Final = 10_000
"""Commands between two signs of life."""
_UTMP: Final = ("/run/utmp", "/var/run/utmp")
_LOGS: Final = "/var/log"
_LOG: Final = re.compile(r"([wb])tmp(?:[.-]\d{1,8})?", re.ASCII)
DATABASES: Final = ("/var/lib/wtmpdb/wtmp.db", "/var/log/wtmp.db")


def login_items(parts: Parts) -> Collector:
    """Every record of wtmp, btmp and utmp, of those put aside by logrotate (not compressed), and of wtmpdb."""
    return collector(parts, _logins)


def shell_items(parts: Parts) -> Collector:
    """Every command in the histories of all homes."""
    return collector(parts, _commands)


# --- logins ----------------------------------------------------------------------------------------------------------


def _logins(tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
    for path in _files(tree):
        raw, _whole = _tail(tree, path, MAX_RECORDS, record_size())
        found = list(records(raw))
        failed = path.startswith(f"{_LOGS}/b")
        ended: Sequence[int | None] = [None] * len(found) if failed else ends(found)
        for record, end in zip(found, ended, strict=True):
            yield _login(path, record, end, wanted, failed=failed)
    for path in DATABASES:
        if tree.is_file(path):
            for record, end in sessions(tree.read(path, most=MAX_DATABASE) or b""):
                yield _login(path, record, end, wanted, failed=False)


def _files(tree: Tree) -> Sequence[str]:
    """Utmp under one of its names, and what is in /var/log."""
    now = next((one for one in _UTMP if tree.is_file(one)), "")
    logs = [path for path in tree.paths(_LOGS) if _LOG.fullmatch(path.rpartition("/")[2])]
    return [*some(now), *logs][:MAX_FILES]


def _tail(tree: Tree, path: str, most: int, size: int = 1) -> tuple[bytes, bool]:
    """The end of a file, from the beginning of a record of this size; and is that all of it?"""
    with tree.opened(path) as file:
        if file is None:
            return b"", True
        try:
            length = file.seek(0, 2)
            begin = max(0, length - most)
            begin += -begin % size
            file.seek(begin)
            return b"".join(_blocks(file, most)), begin == 0
        except OSError as error:
            tree.miss(path, error.strerror or str(error))
            return b"", True


def _blocks(file: FileIO, left: int) -> Iterator[bytes]:
    while left > 0 and (block := file.read(min(left, BLOCK))):
        left -= len(block)
        yield block


def _login(path: str, record: Record, end: int | None, wanted: frozenset[str], *, failed: bool) -> Item:
    over = _end(record, end, failed=failed)
    is_v4 = bool(record.address) and ip_address(record.address).version == 4  # noqa: PLR2004 - of the protocol
    values: Known = {
        "Path": (path,),
        "RecordType": (record.type_name,),
        "Username": some(record.user),
        "StartTime": (record.time,),
        "EndTime": over,
        "SessionLength": None if over is None else [max(0, one - record.time) for one in over],
        "Hostname": some(record.host),
        "IPv4Address": some(record.address) if is_v4 else (),
        "IPv6Address": () if is_v4 else some(record.address),
        "IsRemoteLogin": (record.is_remote,),
        "IsFailedLogin": (failed,),
        "PID": (record.pid,) if record.pid else (),
        "Terminal": some(record.line),
    }
    name = f"{record.user or record.type_name} {record.line} {record.host}".strip()
    return item("LoginHistoryItem", f"{path}: {name}", values, wanted, about={"path": path, "user": record.user})


def _end(record: Record, end: int | None, *, failed: bool) -> tuple[int, ...] | None:
    """Of a session without an end it is not known: it may go on, or the record may be in another file."""
    if end is not None:
        return (end,)
    return None if record.type == Type.USER_PROCESS and not failed else ()


# --- commands --------------------------------------------------------------------------------------------------------


def _commands(tree: Tree, wanted: frozenset[str]) -> Iterator[Item | None]:
    for account in tree.homes()[:MAX_HOMES]:
        yield None
        left = MAX_COMMANDS
        for file, (shell, parse) in HISTORIES.items():
            path = f"{account.home}/{file}"
            if tree.status(path) is not None:
                for one in _of_history(tree, path, wanted, left, user=account.name, shell=shell, parse=parse):
                    left -= one is not None
                    yield one


def _of_history(
    tree: Tree, path: str, wanted: frozenset[str], most: int, *, user: str, shell: str, parse: Parse
) -> Iterator[Item | None]:
    raw, whole = _tail(tree, path, MAX_HISTORY)
    if not whole:
        tree.miss(path, f"only its last {MAX_HISTORY} bytes were read")
        raw = raw.partition(b"\n")[2]
    count = 0
    for count, _one in enumerate(parse(raw), 1):  # to keep them all would make garbage collection slow
        if not count % _SIGN:
            yield None
    if count > most:
        tree.miss(path, "only its newest commands were looked at: there are too many in this home")
    for order, one in enumerate(parse(raw)):
        if order < count - most:
            if not order % _SIGN:
                yield None
            continue
        values: Known = {
            "Command": (one.text,) if len(one.text) < LONGEST else (one.text, CUT),
            "UserName": (user,),
            "Shell": (shell,),
            "Timestamp": () if one.time is None else (one.time,),
            "FileOrder": (order,) if whole else None,
        }
        about = {"path": path, "user": user}
        yield item("ShellHistoryItem", f"{path}: {one.text}", values, wanted, about=about)
