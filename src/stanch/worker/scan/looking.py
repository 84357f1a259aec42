"""Look at one file: open it once, read it once, and let all engines have it.

What is no regular file is never opened; indicators that ask for names, owners, times and the like have it even so.

What is cheap decides first: an indicator that asks for a name or a size needs no open file, and a file that is
remembered needs none either if all that is asked is known.
"""

import hashlib
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stanch.core.ioc.items import Item, Value
from stanch.core.scan_wire import AT_SLOT
from stanch.worker.scan import telling
from stanch.worker.scan.engines import Clamd, Engines
from stanch.worker.scan.file_content import SMALL, Reader, Shrank, opened
from stanch.worker.scan.file_facts import of_content
from stanch.worker.scan.file_types import file_type
from stanch.worker.scan.listing import Statuses
from stanch.worker.scan.remembered import Known, Memory, Stamp, is_quiet
from stanch.worker.scan.rules import Hit, NotScanned, RuleSet, TooLong, TooOften
from stanch.worker.scan.telling import Telling, Tells
from stanch.worker.scan.walking import Folder, Given, Place, reason_of

HASH_TERMS: Final[Mapping[str, str]] = {"Md5sum": "md5", "Sha1sum": "sha1", "Sha256sum": "sha256"}
STRINGS_TERM: Final = "StringList/string"
LARGEST: Final = 1024 * 2**20
"""Bytes of a file, if the scan says nothing else."""
MAX_LINKED: Final = 20_000
"""Files with several names whose hashes are kept until the next name is met."""
_HOLD: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""Opens nothing: neither a device nor a pipe hears of it, and a link is held itself."""
_ROUNDS: Final = 4
"""As often an indicator may ask for more of one file: by name, by a look, by hashes, by strings."""
_META: Final = ("description", "desc", "info", "author", "reference", "ref", "date", "score", "id")


@dataclass(frozen=True, slots=True)
class Glance:
    """Tells the walker which files are known to be clean: nobody else need be bothered with them."""

    engines: Engines
    memory: Memory
    telling: Telling

    def __call__(self, folder: Folder, some: Statuses) -> list[bytes]:
        """Those of its files that are not; the others are counted."""
        one_key = self.engines.key_of_all
        is_clean, place, key_for = self.memory.is_clean, folder.place, self.engines.key
        unknown = [
            name
            for name, status in some
            if status is None
            or not stat.S_ISREG(status.st_mode)
            or not is_clean(place, status, key_for(folder.of(name), status) if one_key is None else one_key)
        ]
        self.telling.known(len(some) - len(unknown))
        return unknown


@dataclass(slots=True)
class _File:
    """A file on its way."""

    folder: Place
    path: bytes
    status: os.stat_result
    hashes: dict[str, bytes]
    clean: bytes
    """Under which key nothing was found, as it is remembered."""
    key: bytes
    fd: int = -1
    read: int = 0
    done: bool = False
    """All that was needed of its content was looked at."""
    quiet: bool = False
    strings: tuple[str, ...] | None = None
    found: bool = False
    changed: bool = False
    item: Item | None = None
    judged: bool = False
    """Indicators have had it."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Why it was not looked at, or not all of it, and more about that."""

    def skip(self, reason: str, detail: str = "") -> None:
        """It was not looked at, or not all of it."""
        self.skipped.append((reason, detail))


class Looker:
    """Looks at files, in one thread of several."""

    def __init__(
        self,
        engines: Engines,
        telling_: Tells,
        memory: Memory,
        *,
        max_size: int | None,
        skip: frozenset[bytes],
        linked: "Linked",
        alive: Callable[[], None],
    ) -> None:
        self._engines = engines
        self._telling = telling_
        self._memory = memory
        self._max_size = LARGEST if max_size is None else max_size
        self._skip = skip
        self._linked = linked
        self._alive = alive
        self._reader = Reader(alive)
        self._no_content: Mapping[str, tuple[Value, ...]] = dict.fromkeys(of_content(engines.wanted), ())

    def look(self, folder: Place, name: bytes) -> None:
        """At one file of a folder. Raises nothing that the file can cause."""
        path = folder.of(name)
        if path[: AT_SLOT - 2] in self._skip:  # as they were told, which is cut there
            return
        try:
            if isinstance(folder, Given):
                status = os.fstat(folder.fd)
            else:
                status = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
        except OSError as error:
            self._telling.skip(path, *reason_of(error))
            return
        if stat.S_ISREG(status.st_mode):
            self._look(folder, name, path, status)
        else:
            self._look_without_content(folder, name, path, status)

    def flush(self) -> None:
        """What was learned is to outlive us."""
        self._memory.flush()

    def _look(self, folder: Place, name: bytes, path: bytes, status: os.stat_result) -> None:
        known = self._memory.get(Stamp.of(folder.place, status))
        file = _File(folder, path, status, {}, b"", self._engines.key(path, status))
        if known is not None:
            file.hashes, file.clean = known.hashes, known.clean
        elif status.st_nlink > 1:
            file.hashes, file.clean = self._linked.get(status)
        if isinstance(folder, Given):
            file.fd = folder.fd
        before = dict(file.hashes)
        try:
            self._all(file, name)
        except OSError as error:
            file.skip(*reason_of(error))
            self._indicators_last(file, name)  # its name and size may be enough, and what no file is, it may be
        finally:
            if file.fd >= 0:
                os.close(file.fd)
        self._learn(file, before)
        if file.skipped:  # once, whatever the reasons are: it is one file
            details = "; ".join(detail for _, detail in file.skipped if detail)
            self._telling.skip(path, file.skipped[0][0], details, judged=file.judged)
        remembered = known is not None and file.fd < 0
        self._telling.looked(size=file.read, remembered=remembered, skipped=bool(file.skipped))

    def _look_without_content(self, folder: Place, name: bytes, path: bytes, status: os.stat_result) -> None:
        """At a folder, link, pipe, socket or device: indicators may ask for all but the content, which it has not.

        It is no file that was looked at; a pipe, socket or device is told as skipped even so: nobody opened it.
        """
        file = _File(folder, path, status, {}, b"", b"")
        if isinstance(folder, Given):
            file.fd = folder.fd
        try:
            if self._engines.all_kinds:
                self._indicators_first(file, name)
        except OSError as error:
            file.skip(*reason_of(error))
        finally:
            self._indicators_last(file, name)
            if file.fd >= 0:
                os.close(file.fd)
        met = stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and self._engines.all_kinds)
        if not met:
            file.skip("not-regular")
        if file.skipped:
            self._telling.skip(path, *file.skipped[0], judged=file.judged)

    # --- the engines, cheapest first ---------------------------------------------------------------------------------

    def _all(self, file: _File, name: bytes) -> None:
        kinds, strings = self._indicators_first(file, name)
        if self._engines.hashes is not None:
            kinds |= self._engines.hashes.kinds - file.hashes.keys()
        searched = self._must_be_searched(file)
        if (kinds or strings or searched) and self._may_be_read(file):
            self._open(file, name)
            try:
                self._read(file, kinds, strings=strings, searched=searched)
                self._check(file)
            except Shrank:
                file.changed = True
        self._hash_lists(file, name)
        self._indicators_last(file, name)
        if file.changed:
            file.skipped.insert(0, ("changed", ""))  # which explains whatever else went wrong

    def _must_be_searched(self, file: _File) -> bool:
        return bool(file.key) and file.key != file.clean

    def _may_be_read(self, file: _File) -> bool:
        if file.status.st_size <= self._max_size:
            return True
        file.skip("too-large", f"{file.status.st_size} bytes")
        return False

    def _open(self, file: _File, name: bytes) -> None:
        """The very file that was looked at."""
        if file.fd >= 0:
            return
        if not stat.S_ISREG(file.status.st_mode):
            self._hold(file, name)
            return
        now = time.time()  # noqa: TID251 - compared with the stamps that the kernel sets
        file.fd = opened(file.folder.fd, name)
        status = os.fstat(file.fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError
        if _state(status) != _state(file.status):  # whatever was known is of another state
            file.hashes, file.clean = {}, b""
        file.status = status
        file.quiet = bool(file.folder.place) and is_quiet(file.fd, status, now)
        self._alive()

    def _hold(self, file: _File, name: bytes) -> None:
        """What is no regular file, to be asked about, not to be read."""
        file.fd = os.open(name, _HOLD, dir_fd=file.folder.fd)
        status = os.fstat(file.fd)
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(file.status.st_mode):
            raise FileNotFoundError
        file.status = status
        self._alive()

    def _read(self, file: _File, kinds: frozenset[str], *, strings: bool, searched: bool) -> None:
        collector = _strings() if strings else None
        feed = None if collector is None else collector.feed
        size, rules = file.status.st_size, self._engines.rules
        if searched and rules is not None and rules.can_match(os.pread(file.fd, 4, 0)):
            with self._reader.content(file.fd, size, kinds, file.hashes, feed) as data:
                self._search(rules, file, data)
                file.read = size
        elif kinds or strings:
            self._reader.read(file.fd, size, kinds, file.hashes, feed)
            file.read = size
        if searched and self._engines.clamd is not None:
            self._ask_clamd(self._engines.clamd, file)
        if collector is not None and collector.complete:
            file.strings = collector.end()
        file.done = True

    def _check(self, file: _File) -> None:
        """Is it still in the state in which it was opened?"""
        if _state(os.fstat(file.fd)) != _state(file.status):
            file.changed = True

    # --- YARA and ClamAV ---------------------------------------------------------------------------------------------

    def _search(self, rules: RuleSet, file: _File, data: Any) -> None:
        try:
            self._tell_hits(rules.match(data, self._externals(rules, file, data)), file, data)
        except TooOften as error:
            file.found = True
            self._tell_hits(error.hits, file, data)
            file.skip("other", str(error))
        except TooLong:
            file.found = True  # which is not clean either
            file.skip("timed-out")
        except NotScanned as error:
            file.found = True
            file.skip("other", str(error))
        self._alive()

    def _tell_hits(self, hits: Sequence[Hit], file: _File, data: Any) -> None:
        if hits:
            file.found = True
            self._take_sha256(file, data)
        for hit in hits:
            self._telling.finding(yara_finding(hit, self._object(file)))

    def _externals(self, rules: RuleSet, file: _File, data: Any) -> Mapping[str, str]:
        if not rules.asks:
            return {}
        path = file.path.decode("utf-8", "backslashreplace")
        name = path.rpartition("/")[2]
        stem, dot, extension = name.rpartition(".")
        return {
            "filepath": path,
            "filename": name,
            "extension": dot + extension if stem else "",
            "filetype": file_type(bytes(data[:16])),
            "owner": self._engines.owner(file.status)
            .encode("utf-8", "surrogateescape")
            .decode("utf-8", "backslashreplace"),
        }

    def _ask_clamd(self, clamd: Clamd, file: _File) -> None:
        try:
            name = clamd.scan(file.fd)
        except (OSError, ValueError) as error:
            file.found = True
            file.skip("other", f"ClamAV: {error}")
            return
        if name is not None:
            file.found = True
            self._take_sha256(file)
            self._telling.finding(
                telling.finding(engine="clamav", rule=name, material="ClamAV", objects=[self._object(file)])
            )
        self._alive()

    # --- hash lists and indicators -----------------------------------------------------------------------------------

    def _hash_lists(self, file: _File, name: bytes) -> None:
        lists = self._engines.hashes
        if lists is None or not file.hashes:
            return
        hits = lists.find({kind: digest.hex() for kind, digest in file.hashes.items()})
        if hits:
            self._read_sha256(file, name)
        for hit in hits:
            why = [telling.line(f"its hash is {hit.digest}")]
            about, rule = [self._object(file)], hit.name or hit.digest
            self._telling.finding(
                telling.finding(engine="hashes", rule=rule, material=hit.list, objects=about, why=why)
            )

    def _indicators_first(self, file: _File, name: bytes) -> tuple[frozenset[str], bool]:
        """Judge by what is cheap; the hashes that can still decide, and whether the strings can."""
        judge, facts = self._engines.judge, self._engines.facts
        if judge is None or facts is None or not self._engines.wanted:
            return frozenset(), False
        values = dict(facts(file.path, -1, file.status, self._engines.free))
        values.update(_hash_values(file.hashes) if stat.S_ISREG(file.status.st_mode) else self._no_content)
        needs: frozenset[str] = frozenset()
        for _ in range(_ROUNDS):
            file.item = self._item(file, values, {})
            needs = judge.needs(file.item)
            more = needs - HASH_TERMS.keys() - {STRINGS_TERM}
            if not more:
                break
            self._open(file, name)
            found = facts(file.path, file.fd, file.status, more)
            if not found:
                break
            values.update(found)
        kinds = frozenset(HASH_TERMS[one] for one in needs if one in HASH_TERMS) - file.hashes.keys()
        return kinds, STRINGS_TERM in needs

    def _item(self, file: _File, values: Mapping[str, tuple[Value, ...]], about: Mapping[str, Any]) -> Item:
        return Item(document="FileItem", name=telling.text(file.path), values=values, about=about)

    def _indicators_last(self, file: _File, name: bytes) -> None:
        judge = self._engines.judge
        if judge is None or file.item is None or file.judged:
            return
        file.judged = True
        values = {**file.item.values, **_hash_values(file.hashes)}
        if file.strings is not None:
            values[STRINGS_TERM] = file.strings
        self._telling.judged("FileItem")
        about = self._object(file)
        matches = judge.see(self._item(file, values, about))
        regular = stat.S_ISREG(file.status.st_mode)
        if matches and regular and file.status.st_size <= SMALL:  # a find by a name need not read what is large
            self._read_sha256(file, name)
            if "sha256" in file.hashes:
                about["sha256"] = file.hashes["sha256"].hex()
        if matches and self._engines.told is not None:
            self._engines.told(matches)

    # --- where something was found -----------------------------------------------------------------------------------

    def _take_sha256(self, file: _File, data: Any = None) -> None:
        """Of the bytes that were looked at; of what is mapped only if it stayed as it was. OSError."""
        if "sha256" in file.hashes:
            return
        if isinstance(data, memoryview):
            file.hashes["sha256"] = hashlib.sha256(data).digest()
            return
        taken: dict[str, bytes] = {}
        try:
            self._reader.stream(file.fd, file.status.st_size, ("sha256",), taken)
        except Shrank:
            file.changed = True
        self._check(file)
        if not file.changed:
            file.hashes |= taken

    def _read_sha256(self, file: _File, name: bytes) -> None:
        """The same once the file was read, or need not be; whoever cannot have it goes without."""
        if "sha256" in file.hashes or file.changed or file.status.st_size > self._max_size:
            return
        before, known = _state(file.status), dict(file.hashes)
        try:
            self._open(file, name)
            if _state(file.status) != before:
                file.hashes, file.changed = known, True
                return
            self._take_sha256(file)
        except OSError:
            return

    def _object(self, file: _File) -> dict[str, Any]:
        about: dict[str, Any] = {"document": "FileItem", "name": telling.text(file.path), "size": file.status.st_size}
        about["user"] = telling.text(self._engines.owner(file.status))[:200]
        if "sha256" in file.hashes:
            about["sha256"] = file.hashes["sha256"].hex()
        path = file.folder.path if isinstance(file.folder, Given) else file.path
        about |= telling.path_about(path)
        if isinstance(file.folder, Given) and file.folder.pid:
            about |= {"pid": file.folder.pid, "started": file.folder.started}
        return about

    # --- what is learned ---------------------------------------------------------------------------------------------

    def _learn(self, file: _File, before: Mapping[str, bytes]) -> None:
        """Only of files that were read, and did not change."""
        if not file.done or file.changed:
            return
        searched = file.key if file.key and not file.found else b""
        known = Known(file.hashes, searched or file.clean)
        if file.status.st_nlink > 1:
            self._linked.add(file.status, known)
        if file.quiet and (file.hashes.keys() > before.keys() or searched):
            self._memory.add(Stamp.of(file.folder.place, file.status), known)


class Linked:
    """Hashes and verdicts of files with several names, so that none is read once for each. Bounded; any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, ...], Known] = OrderedDict()

    def get(self, status: os.stat_result) -> tuple[dict[str, bytes], bytes]:
        """What is known of it, in this very state."""
        known = self._known.get(_state(status))
        return ({}, b"") if known is None else (dict(known.hashes), known.clean)

    def add(self, status: os.stat_result, known: Known) -> None:
        """Keep it for a while."""
        self._known[_state(status)] = known
        if len(self._known) > MAX_LINKED:
            try:
                self._known.popitem(last=False)
            except KeyError:
                return


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _hash_values(hashes: Mapping[str, bytes]) -> dict[str, tuple[Value, ...]]:
    return {term: (hashes[kind].hex(),) for term, kind in HASH_TERMS.items() if kind in hashes}


def _strings() -> Any:
    from stanch.worker.scan.file_strings import Strings

    return Strings()


def yara_finding(hit: Hit, about: Mapping[str, Any]) -> dict[str, Any]:
    """As the wire has it."""
    meta = {key: hit.meta[key] for key in _META if hit.meta.get(key)}
    title = next((meta.pop(key) for key in ("description", "desc", "info") if key in meta), "")
    why = [telling.line(f"{key}: {value}") for key, value in meta.items()]
    why += [telling.line(where, got=what) for where, what in hit.strings]
    return telling.finding(
        engine="yara", rule=hit.rule, title=title, material=hit.source, objects=[about], why=why, tags=hit.tags
    )
