"""The scan from its job to its end: what the agent says is read here, and handed to whom it concerns."""

import json
import mmap
import os
import queue
import signal
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from stanch.core.ioc.items import Cost, Item
from stanch.core.scan_wire import AT_SLOT, AT_SLOTS, MAX_ANSWER, MAX_LINE
from stanch.worker.scan import confining, globs, processes
from stanch.worker.scan.crew import HANGS, Crew, Gate, Slots
from stanch.worker.scan.engines import Clamd, Engines
from stanch.worker.scan.loading import Loading, import_for
from stanch.worker.scan.looking import Glance, Linked, Looker
from stanch.worker.scan.mounts import read_mounts
from stanch.worker.scan.remembered import Memory
from stanch.worker.scan.telling import Telling, Wire
from stanch.worker.scan.walking import Choice, Folder, Given, Statuses, Walker

MAX_MATERIAL: Final = 256 * 2**20
"""Bytes of one file of rules or indicators."""
MAX_THREADS: Final = 16
BLOCK: Final = 2**20
TOLD_AT_ONCE: Final = 50
"""Messages of what became of files of rules, in one piece."""
KINDS: Final = frozenset({"yara", "openioc", "stix", "hashes"})


class Inbox:
    """What the agent says: lines, and bytes between them."""

    def __init__(self, file: int = 0) -> None:
        self._file = file
        self._buffer = bytearray()

    def message(self) -> Mapping[str, Any] | None:
        """The next line; None when there are no more. ValueError for nonsense."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_LINE or not self._more():
                if self._buffer:
                    raise ValueError("a line that is too long, or torn")
                return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        message: Mapping[str, Any] = json.loads(line)
        return message

    def content(self, size: int) -> bytes:
        """So many bytes."""
        if not 0 <= size <= MAX_MATERIAL:
            raise ValueError(f"{size} bytes of one file, expected at most {MAX_MATERIAL}")
        while len(self._buffer) < size:
            if not self._more():
                raise ValueError("the bytes of a file are missing")
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _more(self) -> bool:
        piece = os.read(self._file, BLOCK)
        self._buffer += piece
        return bool(piece)


def converse(inbox: Inbox, wire: Wire) -> None:
    """One scan."""
    job = inbox.message()
    if job is None or job.get("type") != "job":
        raise ValueError("no job")
    scan = Scan(job, wire)
    for _ in range(job["materials"]):
        header = inbox.message()
        if header is None or header.get("type") != "material" or header.get("kind") not in KINDS:
            raise ValueError("no material")
        scan.loading.add(header["kind"], header["name"], inbox.content(header["size"]))
    scan.load()
    threading.Thread(target=scan.listen, args=(inbox,), daemon=True).start()
    scan.run()


class Scan:
    """Everything of one scan."""

    def __init__(self, job: Mapping[str, Any], wire: Wire) -> None:
        self._job = job
        self._patience = float(job.get("patience", HANGS)) + 2 * float(job["per_object"])  # rules may be asked twice
        self._wire = wire
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease that somebody breaks, in the instant in which we hold it
        kinds = frozenset(job.get("kinds", KINDS))
        import_for(kinds)
        from stanch.worker.scan.file_facts import prepare

        self._facts = prepare()
        self._excluded, self._hinted = globs.matcher(job["exclude"]), globs.finder(job["hint"])
        self._mounts = read_mounts()
        self._slots = Slots(_shared(job.get("at")), self._at)
        self._memory = Memory(job["remembered"], job["learned"])
        self._clamd = _clamd(job["clamd"])
        self.loading = Loading(job, self._memory)
        self._telling = Telling(wire, most_findings=job["findings"], most_rules=job["rules"])
        self._gate = Gate()
        self._processes: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._listening_done = threading.Event()
        self._confined = confining.confine_scan(memory=bool(job["memory"]), clamd=job["clamd"] is not None)

    def _at(self, names: Sequence[str]) -> None:
        self._wire.send({"type": "at", "names": list(names)})

    def load(self) -> None:
        """Compile and parse; tell what came of it, and what is needed."""
        told = [{"type": "loaded", "loaded": _bounded(one)} for one in self.loading.finish()]
        for n in range(0, len(told), TOLD_AT_ONCE):
            self._wire.send(*told[n : n + TOLD_AT_ONCE])
        judge = self.loading.judge
        wanted = {} if judge is None else {name: sorted(paths) for name, paths in judge.wanted.items()}
        self._engines = self._made_engines(frozenset(wanted.get("FileItem", ())))
        files = bool(self._engines.wanted or self.loading.rules or self.loading.hashes or self._clamd)
        self._glance = Glance(self._engines, self._memory, self._telling)
        self._crew = self._made_crew()
        self._wire.send({"type": "wants", "documents": wanted, "files": files})

    def _made_engines(self, wanted: frozenset[str]) -> Engines:
        return Engines(
            rules=self.loading.rules,
            judge=self.loading.judge,
            wanted=wanted,
            free=_free(wanted) if wanted else frozenset(),
            facts=self._facts.facts,
            owners=self._facts.users,
            hashes=self.loading.hashes,
            clamd=self._clamd,
            told=self._matched,
        )

    def _made_crew(self) -> Crew:
        job = self._job
        choice = Choice(
            excluded=self._excluded,
            hinted=self._hinted,
            network=job["network"],
            one_file_system=job["one_file_system"],
            mounts=self._mounts,
        )
        glance = self._glanced if self._engines.only_clean else None
        skip, linked = frozenset(map(os.fsencode, job["skip"])), Linked()
        return Crew(
            threads=max(1, min(job["threads"], MAX_THREADS)),
            walker=lambda put: Walker(choice, put=put, skip=self._telling.skip, glance=glance),
            looker=lambda alive: Looker(
                self._engines,
                self._telling,
                self._memory,
                max_size=job["max_size"],
                skip=skip,
                linked=linked,
                alive=alive,
            ),
            telling=self._telling,
            gate=self._gate,
            slots=self._slots,
            patience=self._patience,
        )

    def _glanced(self, folder: Folder, some: Statuses) -> list[bytes]:
        self._gate.through()
        return self._glance(folder, some)

    # --- what the agent says -----------------------------------------------------------------------------------------

    def listen(self, inbox: Inbox) -> None:
        """Until it says nothing more. In a thread of its own."""
        try:
            while (message := inbox.message()) is not None:
                self._take(message)
        except Exception as error:  # noqa: BLE001 - nonsense from our own agent ends the scan, and is told
            self._telling.end(f"the scanner did not understand the agent: {type(error).__name__}: {error}"[:500])
        else:
            if not self._listening_done.is_set():
                os._exit(3)  # the agent is gone, and with it the reason for all of this
        self._all()

    def _take(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "pause":
                self._gate.pause()
            case "resume":
                self._gate.resume()
            case "targets":
                self._crew.walker.add([os.fsencode(path) for path in message["paths"]], below=message["below"])
            case "processes":
                for one in message["processes"]:
                    self._processes.put(one)
            case "opened":
                self._crew.walker.give([_given(one) for one in message["files"]])
            case "items":
                self._judge(message["items"])
            case "all":
                self._all()
            case _:
                raise ValueError("no such message")

    def _all(self) -> None:
        self._listening_done.set()
        self._processes.put(None)
        self._crew.walker.all_told()

    def _judge(self, items: Sequence[Mapping[str, Any]]) -> None:
        judge = self.loading.judge
        if judge is None:
            return
        for one in items:
            values = {path: tuple(values) for path, values in one["values"].items()}
            item = Item(document=one["document"], name=one["name"], values=values, about=one.get("about", {}))
            self._telling.judged(item.document)
            self._matched(judge.see(item))

    def _matched(self, matches: Sequence[Any]) -> None:
        for one in self.loading.findings(matches):
            self._telling.finding(one)

    # --- to the end --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Look at everything, and tell the numbers."""
        searching = threading.Thread(target=self._crew.guarded, args=(self._search_processes,), daemon=True)
        searching.start()
        self._crew.start()
        self._crew.wait()
        while searching.is_alive() and not self._telling.stop.is_set():
            searching.join(0.2)
            self._telling.advance(paused=self._gate.shut, at=b"")
        if self.loading.judge is not None and not self._telling.stop.is_set():
            self._matched(self.loading.judge.finish())
            if limited := self.loading.limited():
                self._telling.missing(limited)
        self._memory.flush()
        self._telling.flush()
        self._wire.send({"type": "end", "tally": self._tally(), "error": ""})

    def _search_processes(self) -> None:
        for process in iter(self._processes.get, None):
            self._gate.through()
            if self._telling.stop.is_set() or self.loading.rules is None:
                return
            name = f"{process['name']} ({process['pid']})"
            path = str(process.get("path") or "")
            if self._hinted is not None and not self._hinted(os.fsencode(path)):
                continue
            if name in self._job["skip"]:
                continue
            self._slots.at(AT_SLOTS - 1, os.fsencode(name))
            look = partial(processes.look, process, self.loading.rules, self._telling)
            if not processes.within(self._patience, look):
                self._crew.hangs(name)
            self._slots.at(AT_SLOTS - 1, b"")

    def _tally(self) -> Mapping[str, Any]:
        engines = self.loading.versions()
        return self._telling.tally(
            paused_seconds=round(self._gate.waited(), 3), confined=self._confined, engines=engines
        )


def _given(file: Mapping[str, Any]) -> Given:
    path = os.fsencode(file["path"])
    return Given(file["fd"], os.fsencode(file["name"]), path, file["pid"], file["started"])


def _bounded(loaded: Mapping[str, Any]) -> Mapping[str, Any]:
    """With as many of its problems as fit into a message."""
    while len(json.dumps(loaded)) > MAX_ANSWER - 4096:
        loaded = {key: value[: len(value) // 2] if isinstance(value, list) else value for key, value in loaded.items()}
    return loaded


def _free(wanted: frozenset[str]) -> frozenset[str]:
    """What is known of a file as soon as it is met."""
    from stanch.core.ioc.terms.files import FILES

    return frozenset(one for one in wanted if FILES["FileItem"][one].cost is Cost.FREE)


def _shared(file: int | None) -> memoryview | None:
    if file is None:
        return None
    size = min(os.fstat(file).st_size, AT_SLOT * AT_SLOTS)
    return memoryview(mmap.mmap(file, size)) if size == AT_SLOT * AT_SLOTS else None


def _clamd(file: int | None) -> Clamd | None:
    if file is None:
        return None
    from stanch.worker.scan.clamd import client

    return client(file)
