"""The scan from its job to its end: what the agent says is read here, and handed to whom it concerns."""

import json
import mmap
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from stanch.core.ioc.items import Cost, Item, the_rest
from stanch.core.scan_wire import AT_SLOT, AT_SLOTS, MAX_ANSWER, MAX_LINE
from stanch.worker.scan import confining, globs, processes
from stanch.worker.scan.crew import HANGS, Crew, Gate, Slots
from stanch.worker.scan.engines import Clamd, Engines
from stanch.worker.scan.hands import Hand, Hiring, Noting, Report, Reported
from stanch.worker.scan.listing import Statuses
from stanch.worker.scan.loading import Loading, import_for
from stanch.worker.scan.looking import Glance, Linked, Looker
from stanch.worker.scan.mounts import read_mounts
from stanch.worker.scan.remembered import Memory
from stanch.worker.scan.telling import EVERY, Telling, Tells, Wire
from stanch.worker.scan.walking import Choice, Folder, Given, Walker

if TYPE_CHECKING:
    from stanch.core.ioc.judging import Judge, Match

COMBINING: Final = 120.0
"""Seconds for combining what was seen at the end; indicators that are not done by then may have missed a match."""
MAX_MATERIAL: Final = 256 * 2**20
"""Bytes of one file of rules or indicators."""
CANNOT_FIND: Final = (
    "none of the rules and indicators could have found anything here: what they ask for cannot be known on this "
    "machine, or is left out (see what is wrong with them)"
)
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
        with memoryview(self._buffer) as all_:  # not one more copy of what may be a quarter of what there is
            taken = bytes(all_[:size])
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
        scan.add(header["kind"], header["name"], inbox.content(header["size"]))
    scan.load()
    scan.hire()
    threading.Thread(target=scan.listen, args=(inbox,), daemon=True).start()
    scan.run()


class Scan:
    """Everything of one scan."""

    def __init__(self, job: Mapping[str, Any], wire: Wire) -> None:
        self._job = job
        self._hangs = float(job.get("patience", HANGS))
        self._patience = self._hangs + 2 * float(job["per_object"])  # rules may be asked twice
        self._wire = wire
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease that somebody breaks, in the instant in which we hold it
        kinds = frozenset(job.get("kinds", KINDS))
        import_for(kinds)
        from stanch.worker.scan.file_facts import prepare

        self._facts = prepare()
        self._excluded, self._hinted = globs.matcher(job["exclude"]), globs.finder(job["hint"])
        self._forbidden = globs.matcher(job.get("forbidden", []))
        self._mounts = read_mounts()
        self._slots = Slots(_shared(job.get("at")), self._at)
        self._memory = Memory(job["remembered"], job["learned"])
        self._clamd = _clamd(job["clamd"])
        self.loading = Loading(job, self._memory)
        self._telling = Telling(wire, most_findings=job["findings"], most_rules=job["rules"])
        self._gate = Gate()
        self._alive = time.monotonic()
        self._processes: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._listening_done = threading.Event()
        self._hiring = _hiring(job)
        self._hands: Sequence[Hand] = ()
        clamd = job["clamd"] is not None
        self._confined = confining.confine_scan(memory=bool(job["memory"]), clamd=clamd, hands=self._hiring is not None)

    def _at(self, names: Sequence[str]) -> None:
        self._wire.send({"type": "at", "names": list(names)})

    def add(self, kind: str, name: str, data: bytes) -> None:
        """One file of rules or indicators. Reading some may take a minute: whoever waits sees that it goes on."""
        self.loading.add(kind, name, data)
        if time.monotonic() - self._alive > EVERY:
            self._alive = time.monotonic()
            self._telling.advance(paused=False, at=os.fsencode(f"reading {name}"))

    def load(self) -> None:
        """Compile and parse; tell what came of it, and what is needed."""
        told = [{"type": "loaded", "loaded": _bounded(one)} for one in self.loading.finish()]
        for n in range(0, len(told), TOLD_AT_ONCE):
            self._wire.send(*told[n : n + TOLD_AT_ONCE])
        if not (self.loading.can_find() or self._clamd):
            self._telling.missing(CANNOT_FIND)
        judge = self.loading.judge
        wanted = {} if judge is None else {name: sorted(paths) for name, paths in judge.wanted.items()}
        self._engines = self._made_engines(frozenset(wanted.get("FileItem", ())))
        files = bool(self._engines.wanted or self.loading.rules or self.loading.hashes or self._clamd)
        self._glance = Glance(self._engines, self._memory, self._telling)
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

    def hire(self) -> None:
        """The processes that look at files, if there can be some. Before any thread is there."""
        rules = self.loading.rules
        if rules is not None and self._job["memory"]:
            rules.ready()  # they are needed here, too
        if self._hiring is not None:
            self._memory.flush()  # or each of them would write what waits
            prepare = (lambda: None) if rules is None else rules.prepare
            self._hands = self._hiring.fork(self._elsewhere, prepare, self._slots, confining.seal)
            confining.seal()
        self._crew = self._made_crew()

    def _elsewhere(self, report: Report, alive: Callable[[], None]) -> Looker:
        """In another process: the worker hears of it by reports."""
        judge = self._engines.judge
        noting = None if judge is None else Noting(judge, report)
        return self._looker(replace(self._engines, judge=noting, told=None), report, alive, Linked())

    def _looker(self, engines: Engines, tells: Tells, alive: Callable[[], None], linked: Linked) -> Looker:
        skip, max_size = frozenset(map(os.fsencode, self._job["skip"])), self._job["max_size"]
        return Looker(engines, tells, self._memory, max_size=max_size, skip=skip, linked=linked, alive=alive)

    def _reported(self, report: Reported) -> None:
        """What another process has looked at."""
        self._telling.looked_elsewhere(report.numbers, report.items)
        for name, reason, detail, judged in report.skips:
            self._telling.skip(name, reason, detail, judged=judged)
        for finding in report.findings:
            self._telling.finding(finding)
        if self.loading.judge is not None:
            for item in report.seen:
                self._matched(self.loading.judge.see(item))
        if report.error:
            self._telling.end(f"the scanner failed: {report.error}")

    def _made_crew(self) -> Crew:
        job, linked = self._job, Linked()
        choice = Choice(
            excluded=self._excluded,
            hinted=self._hinted,
            network=job["network"],
            one_file_system=job["one_file_system"],
            mounts=self._mounts,
            all_kinds=self._engines.all_kinds,
        )
        glance = self._glanced if self._engines.only_clean else None
        return Crew(
            threads=_threads(job),
            walker=lambda put: Walker(choice, put=put, skip=self._telling.skip, glance=glance),
            looker=lambda alive: self._looker(self._engines, self._telling, alive, linked),
            telling=self._telling,
            gate=self._gate,
            slots=self._slots,
            patience=self._patience,
            walking=self._hangs,
            processes=self._hands,
            take=self._reported,
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
                self._pause(on=True)
                self._gate.pause()
            case "resume":
                self._gate.resume()
                self._pause(on=False)
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

    def _pause(self, *, on: bool) -> None:
        if self._hiring is not None:
            self._hiring.board.pause(on=on)

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
            if item != the_rest(item.document):
                self._telling.judged(item.document)
            self._matched(judge.see(item))

    def _matched(self, matches: "Iterable[Match]") -> None:
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
            self._finish(self.loading.judge)
        self._memory.flush()
        self._telling.flush()
        self._wire.send({"type": "end", "tally": self._tally(), "error": ""})

    def _finish(self, judge: "Judge") -> None:
        """Everything was seen: what indicators say of several things together."""
        if self._telling.unseen or self._job["skip"]:
            judge.see(the_rest("FileItem"))
        begun, told, waited = time.monotonic(), time.monotonic(), self._gate.waited()

        def go_on() -> bool:
            nonlocal told
            self._gate.through()
            now = time.monotonic()
            if now - told > EVERY:
                told = now
                self._telling.advance(paused=False, at=b"what was seen, taken together")
            spent = now - begun - (self._gate.waited() - waited)
            return spent < COMBINING and not self._telling.stop.is_set()

        self._matched(judge.finishing(go_on))
        if (limited := self.loading.limited()) and not self._telling.stop.is_set():
            self._telling.missing(limited)

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
            look = partial(processes.look, process, self.loading.rules, self._telling, self._forbidden)
            if not processes.within(self._patience, look):
                self._crew.hangs(name)
            self._slots.at(AT_SLOTS - 1, b"")

    def _tally(self) -> Mapping[str, Any]:
        engines = {**self.loading.versions(), **_version_of(self._clamd)}
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


def _threads(job: Mapping[str, Any]) -> int:
    """How many look at files; of a gentle scan no more than the processors that it was left."""
    most = len(os.sched_getaffinity(0)) if job["gentle"] else MAX_THREADS
    return max(1, min(int(job["threads"]), most, MAX_THREADS))


def _hiring(job: Mapping[str, Any]) -> Hiring | None:
    """The lines to other processes, unless they cannot do it: there is one line to clamd, and one to the agent."""
    if job["clamd"] is not None or job.get("at") is None:
        return None
    try:
        return Hiring.of(_threads(job))
    except OSError:
        return None


def _shared(file: int | None) -> memoryview | None:
    if file is None:
        return None
    size = min(os.fstat(file).st_size, AT_SLOT * AT_SLOTS)
    return memoryview(mmap.mmap(file, size)) if size == AT_SLOT * AT_SLOTS else None


def _version_of(clamd: Clamd | None) -> Mapping[str, str]:
    return {} if clamd is None else {"clamav": clamd.version or "it does not answer"}


def _clamd(file: int | None) -> Clamd | None:
    if file is None:
        return None
    from stanch.worker.scan.clamd import client

    return client(file)
