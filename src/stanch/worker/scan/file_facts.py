"""What is known of a file without reading all of it, as indicators ask for it: names, times, owner, rights, ELF facts.

Standard library only, and all that must be asked of the system at large is asked in `prepare`: names of owners come
from /etc/passwd and /etc/group themselves, since a confined process can ask no name service.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stanch.core.ioc.items import Value
from stanch.worker.scan.file_elf import PREFIX as ELF
from stanch.worker.scan.file_elf import elf_facts
from stanch.worker.scan.file_statx import Ask, More, asker, more, sparse

MAX_ACCOUNTS: Final = 16 * 2**20
"""Bytes of /etc/passwd and /etc/group that are read."""
_LONGEST_ID: Final = 10
_PASSWD_FIELDS: Final = 7
_GROUP_FIELDS: Final = 4
_CONTENT: Final = frozenset({"Md5sum", "Sha1sum", "Sha256sum", "StringList/string"})
_FORMS: Final = {stat.S_IFDIR: "Directory", stat.S_IFLNK: "SymbolicLink"}


@dataclass(frozen=True, slots=True)
class _File:
    """What is asked about."""

    path: bytes
    fd: int
    status: os.stat_result
    more: More | None

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Tells facts of files; make it with `prepare`. May be used by several threads at once."""

    users: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    ask: Ask

    def facts(
        self, path: bytes, fd: int, status: os.stat_result, wanted: frozenset[str]
    ) -> dict[str, tuple[Value, ...]]:
        """What of the wanted paths is known of an open file; what is missing in the answer cannot be known.

        The descriptor may be one with which nothing can be read (O_PATH), if it is no regular file.
        Hashes and strings of the content are no facts in this sense. Reads little; raises nothing, hangs as little as
        the file system does.
        """
        one = _File(path, fd, status, more(self.ask, fd) if wanted & _OF_MORE else None)
        found = dict[str, tuple[Value, ...]]()
        for path_of_term, tell in _TELLERS.items():
            if path_of_term in wanted:
                values = tell(self, one)
                if values is not None:
                    found[path_of_term] = values
        if any(term.startswith(ELF) for term in wanted):
            found.update(elf_facts(fd, wanted) if stat.S_ISREG(status.st_mode) else {})
        return found


def of_content(wanted: Iterable[str]) -> frozenset[str]:
    """Those of the paths that ask for the content of a regular file.

    A folder, a link, a pipe, a socket, a device file has none, whatever is behind it: so these are known not to be
    there, as an empty list is. No hash fits them, and "it does not have this hash" is true of them; were they unknown,
    one socket would leave open for ever that no file has some hash.
    """
    return frozenset(one for one in wanted if one in _CONTENT or one.startswith(ELF))


def prepare(root: Path = Path("/")) -> FileFacts:
    """Read what must be known before the process is confined; what cannot be read is not known later."""
    return FileFacts(
        users=_names(root / "etc/passwd", _PASSWD_FIELDS), groups=_names(root / "etc/group", _GROUP_FIELDS), ask=asker()
    )


def _names(path: Path, fields: int) -> Mapping[int, str]:
    """Number to name; of two lines with one number the first counts, as for the C library."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - a descriptor
            lines = file.read(MAX_ACCOUNTS).split(b"\n") if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else []
    except OSError:
        return {}
    found = dict[int, str]()
    for line in lines:
        parts = line.split(b":")
        if len(parts) == fields and parts[2].isdigit() and len(parts[2]) <= _LONGEST_ID:
            found.setdefault(int(parts[2]), _text(parts[0])[:200])
    return found


# --- one path each: None for what is not known -----------------------------------------------------------------------

_Tell = Callable[[FileFacts, _File], tuple[Value, ...] | None]


def _folder(_facts: FileFacts, file: _File) -> tuple[Value, ...]:
    folder = _text(file.path.rpartition(b"/")[0])
    return (folder, f"{folder}/") if folder else ("/",)


def _extension(_facts: FileFacts, file: _File) -> tuple[Value, ...]:
    stem, _, extension = file.name.lstrip(b".").rpartition(b".")
    return (_text(extension), "." + _text(extension)) if stem and extension else ()


def _created(_facts: FileFacts, file: _File) -> tuple[Value, ...] | None:
    return None if file.more is None or file.more.created is None else (file.more.created,)


def _attributes(_facts: FileFacts, file: _File) -> tuple[Value, ...] | None:
    mode = file.status.st_mode
    told = {
        _FORMS.get(stat.S_IFMT(mode), ""): True,
        "ReadOnly": not mode & 0o222,
        "Hidden": file.name.startswith(b"."),
        "Executable": stat.S_ISREG(mode) and bool(mode & 0o111),
        "SetUserID": bool(mode & stat.S_ISUID),
        "SetGroupID": bool(mode & stat.S_ISGID),
        "Sticky": bool(mode & stat.S_ISVTX),
        "Sparse": stat.S_ISREG(mode) and sparse(file.status),
    }
    own = [name for name, holds in told.items() if name and holds]
    return (*own, *sorted(file.more.attributes if file.more else ()))


def _named(names: Mapping[int, str], number: int) -> tuple[Value, ...] | None:
    """A number without a name here may have one in a directory service: it is not known."""
    return (names[number],) if number in names else None


_TELLERS: Final[Mapping[str, _Tell]] = {
    "FullPath": lambda _, file: (_text(file.path),),
    "FilePath": _folder,
    "FileName": lambda _, file: (_text(file.name),),
    "FileExtension": _extension,
    "SizeInBytes": lambda _, file: (file.status.st_size,),
    "Created": _created,
    "Modified": lambda _, file: (file.status.st_mtime_ns // 10**9,),
    "Accessed": lambda _, file: (file.status.st_atime_ns // 10**9,),
    "Changed": lambda _, file: (file.status.st_ctime_ns // 10**9,),
    "FileAttributes": _attributes,
    "Username": lambda facts, file: _named(facts.users, file.status.st_uid),
    "SecurityID": lambda _, file: (str(file.status.st_uid),),
    "Group": lambda facts, file: _named(facts.groups, file.status.st_gid),
    "GroupID": lambda _, file: (str(file.status.st_gid),),
    "Permissions": lambda _, file: (int(f"{stat.S_IMODE(file.status.st_mode):o}"),),
    "INode": lambda _, file: (file.status.st_ino,),
}
_OF_MORE: Final = frozenset({"Created", "FileAttributes"})


def _text(raw: bytes) -> str:
    """Odd bytes as surrogates."""
    return raw.decode("utf-8", "surrogateescape")
