"""UserItem and GroupItem: the accounts and groups of the machine's own files; nothing is asked of a name service."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

from stanch.agent.host.account_files import MAX_FILE
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.clock import wall_clock
from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_below import Known, collector, item, some
from stanch.agent.host.login_databases import MAX_FILE as MAX_DATABASE
from stanch.agent.host.login_databases import last_logins
from stanch.agent.host.login_records import last_login, lastlog_size
from stanch.core.ioc.items import Item

LASTLOG: Final = "/var/log/lastlog"
LASTLOG2: Final = ("/var/lib/lastlog/lastlog2.db", "/var/log/lastlog2.db")
_NO_SHELLS: Final = frozenset({"nologin", "false"})
_DAY: Final = 86_400
_LONGEST_NUMBER: Final = 10
_OF_SHADOW: Final = frozenset({"disabled", "lockedout", "passwordrequired", "userpasswordage"})


def user_items(parts: Parts) -> Collector:
    """Every account of etc/passwd."""
    return collector(parts, _users)


def group_items(parts: Parts) -> Collector:
    """Every group of etc/group."""
    return collector(parts, _groups)


@dataclass(frozen=True, slots=True)
class Account:
    """A line of etc/passwd."""

    name: str
    password: str
    uid: int
    gid: int
    comment: str
    home: str
    shell: str


@dataclass(frozen=True, slots=True)
class Group:
    """A line of etc/group."""

    name: str
    gid: int
    members: Sequence[str]


@dataclass(frozen=True, slots=True)
class Password:
    """A line of etc/shadow, without the password itself."""

    is_open: bool
    """Is it empty?"""
    fits_none: bool
    """Is it a mark that no password gives?"""
    changed: int | None
    """Days since 1970; None if it is not known, or must be changed at the next login."""
    expires: int | None
    """Days since 1970; None for never. `chage -E 0` is how people shut an account."""


def parse_accounts(text: str) -> Iterator[Account]:
    """The lines of etc/passwd that are whole."""
    for line in _lines(text):
        fields = line.split(":")
        if len(fields) == 7 and fields[0]:  # noqa: PLR2004 - passwd(5)
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None:
                yield Account(fields[0], fields[1], uid, gid, *fields[4:])


def parse_groups(text: str) -> Iterator[Group]:
    """The lines of etc/group that are whole."""
    for line in _lines(text):
        fields = line.split(":")
        gid = _number(fields[2]) if len(fields) == 4 and fields[0] else None  # noqa: PLR2004 - group(5)
        if gid is not None:
            yield Group(fields[0], gid, [one.strip() for one in fields[3].split(",") if one.strip()])


def parse_passwords(text: str) -> Mapping[str, Password]:
    """Account to its line of etc/shadow, those that are whole; of two lines the first counts."""
    found: dict[str, Password] = {}
    for line in _lines(text):
        fields = line.split(":")
        if len(fields) == 9 and fields[0]:  # noqa: PLR2004 - shadow(5)
            found.setdefault(fields[0], _password(fields[1], fields[2], fields[7]))
    return found


def _lines(text: str) -> Iterator[str]:
    """One after the other: all at once would hold the others up."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        yield text[begin:end]
        begin = end + 1


def _password(password: str, changed: str = "", expires: str = "") -> Password:
    return Password(not password, password.startswith(("!", "*")), _number(changed) or None, _number(expires))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER else None


@dataclass
class _Look:
    """The files, each read when it is first needed."""

    tree: Tree
    now: Callable[[], datetime] = wall_clock

    @cached_property
    def passwd(self) -> str:
        return self.tree.text("/etc/passwd", most=MAX_FILE)

    @cached_property
    def group(self) -> str | None:
        """Empty if it is not there; None if it cannot be read."""
        raw = self.tree.read("/etc/group", most=MAX_FILE)
        if raw is None:
            return "" if self.tree.status("/etc/group") is None else None
        return raw.decode("utf-8", "surrogateescape")

    @property
    def accounts(self) -> Iterator[Account]:
        """Made anew each time: a hundred thousand objects that stay would make every collection of garbage slow."""
        return parse_accounts(self.passwd)

    @property
    def groups(self) -> Iterator[Group]:
        """Likewise."""
        return parse_groups(self.group or "")

    @cached_property
    def passwords(self) -> Mapping[str, Password]:
        return parse_passwords(self.tree.text("/etc/shadow", most=MAX_FILE))

    @cached_property
    def memberships(self) -> Mapping[str, Sequence[str]]:
        """Account to the groups that list it."""
        found: dict[str, list[str]] = {}
        for group in self.groups:
            for member in group.members:
                found.setdefault(member, []).append(group.name)
        return found

    @cached_property
    def names(self) -> Mapping[int, str]:
        """Group to name; of two with one number the first counts."""
        found: dict[int, str] = {}
        for one in self.groups:
            found.setdefault(one.gid, one.name)
        return found

    @cached_property
    def owners(self) -> Mapping[int, Sequence[str]]:
        """Group to those whose own it is."""
        found: dict[int, list[str]] = {}
        for one in self.accounts:
            found.setdefault(one.gid, []).append(one.name)
        return found

    def password(self, account: Account) -> Password | None:
        """None if it cannot be known: it is said to be in etc/shadow, and is not there."""
        return self.passwords.get(account.name) if account.password == "x" else _password(account.password)  # noqa: S105 - a mark

    # --- the last login ---

    @cached_property
    def newer(self) -> Mapping[str, int] | None:
        """By lastlog2; None if there is none."""
        found: dict[str, int] | None = None
        for path in LASTLOG2:
            if self.tree.is_file(path):
                found = {**(found or {}), **last_logins(self.tree.read(path, most=MAX_DATABASE) or b"")}
        return found

    @cached_property
    def older(self) -> Mapping[int, int] | None:
        """Of the accounts that there are, by lastlog, which is a table with a row for each number."""
        size, found = lastlog_size(), dict[int, int]()
        with self.tree.opened(LASTLOG) as file:
            if file is None:
                return None
            for uid in {one.uid for one in self.accounts}:
                try:
                    found[uid] = last_login(os.pread(file.fileno(), size, uid * size))
                except OSError:
                    return None
        return found

    def last_login(self, account: Account) -> tuple[int, ...] | None:
        """The later of both; None if neither is kept here."""
        if self.newer is None and self.older is None:
            return None
        when = max((self.newer or {}).get(account.name, 0), (self.older or {}).get(account.uid, 0))
        return (when,) if when else ()


def _users(tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
    look = _Look(tree)
    for one in look.accounts:
        values: Known = {
            "Username": (one.name,),
            "fullname": some(one.comment.partition(",")[0]),
            "description": some(one.comment),
            "userid": (one.uid,),
            "SecurityID": (str(one.uid),),
            "homedirectory": some(one.home),
            "shell": some(one.shell),
            "grouplist/groupname": _groups_of(look, one) if "grouplist/groupname" in wanted else None,
            "LastLogin": look.last_login(one) if "LastLogin" in wanted else None,
            **(_of_password(look, one) if wanted & _OF_SHADOW else {}),
        }
        yield item("UserItem", one.name, values, wanted, about={"user": one.name})


def _groups_of(look: _Look, account: Account) -> Sequence[str] | None:
    if look.group is None:
        return None
    own = look.names.get(account.gid)
    return [*some(own or ""), *look.memberships.get(account.name, ())]


def _of_password(look: _Look, account: Account) -> Known:
    password, now = look.password(account), int(look.now().timestamp())
    barred = account.shell.rpartition("/")[2] in _NO_SHELLS
    if password is None:
        return {"disabled": (True,) if barred else None}
    expired = password.expires is not None and password.expires <= now // _DAY
    age = () if password.changed is None else (max(0, now - password.changed * _DAY),)
    return {
        "disabled": (barred or expired,),
        "lockedout": (password.fits_none,),
        "passwordrequired": (not password.is_open,),
        "userpasswordage": age,
    }


def _groups(tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
    look = _Look(tree)
    for one in look.groups:
        members = [*one.members, *look.owners.get(one.gid, ())] if "userlist/username" in wanted else None
        values: Known = {"GroupName": (one.name,), "gid": (one.gid,), "userlist/username": members}
        yield item("GroupItem", one.name, values, wanted)
