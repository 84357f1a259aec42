"""The session with ClamAV's daemon, against one that a test plays on the other end of a socket pair."""

import os
import socket
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.worker.scan.clamd import (
    LARGEST,
    MAX_LATE,
    MAX_REPLY,
    MOST,
    Answer,
    Clamd,
    Client,
    Verdict,
    client,
    largest,
)
from stanch.worker.scan.confining import confine_scan

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS" + b"-TEST-FILE!$H+H*"


class Daemon:
    """Speaks as clamd does; `answer` says what it answers to the content of a file."""

    def __init__(self, end: socket.socket, answer: Callable[[bytes], str]) -> None:
        self.end = end
        self.answer = answer
        self.commands: list[str] = []
        self.contents: list[bytes] = []
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    def run(self) -> None:
        number = 0
        while (command := self._command()) is not None:
            self.commands.append(command)
            if command == "zIDSESSION":
                continue
            number += 1
            for reply in self._replies(command, number):
                self.end.sendall(reply)
        self.end.close()

    def _replies(self, command: str, number: int) -> Iterator[bytes]:
        if command == "zFILDES":
            descriptor = self._descriptor()
            content = os.pread(descriptor, 2**20, 0)
            os.close(descriptor)
            self.contents.append(content)
            text = self.answer(content)
            yield _framed(number, text)
        elif command == "zVERSION":
            yield _framed(number, "ClamAV 1.4.2/27500/Tue Nov 24 10:00:00 2026")
        else:
            yield _framed(number, "PONG")

    def _command(self) -> str | None:
        while b"\0" not in self._buffer:
            if not self._more():
                return None
        line, _, rest = bytes(self._buffer).partition(b"\0")
        self._buffer[:] = rest
        return line.decode()

    def _descriptor(self) -> int:
        while not self._descriptors:
            assert self._more()
        del self._buffer[:1]
        return self._descriptors.pop(0)

    def _more(self) -> bool:
        data, ancillary, _flags, _address = self.end.recvmsg(4096, socket.CMSG_SPACE(4))
        for _level, _kind, rights in ancillary:
            self._descriptors += array("i", rights)
        self._buffer += data
        return bool(data)


def _framed(number: int, text: str) -> bytes:
    return f"{number}: {text}\0".encode()


def looks_for_eicar(content: bytes) -> str:
    return "fd[7]: Eicar-Test-Signature FOUND" if content.startswith(EICAR) else "fd[7]: OK"


@contextmanager
def session(answer: Callable[[bytes], str] = looks_for_eicar) -> Iterator[tuple[Clamd, Daemon]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    daemon, clamd = Daemon(theirs, answer), Clamd(ours.detach())
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield clamd, daemon
    finally:
        clamd.close()
        thread.join()


@contextmanager
def scripted(*replies: bytes) -> Iterator[Clamd]:
    """A daemon that has said everything already, whatever it is asked."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.sendall(b"".join(replies))
    theirs.shutdown(socket.SHUT_WR)
    clamd = Clamd(ours.detach())
    yield clamd
    clamd.close()
    theirs.close()


@contextmanager
def silent() -> Iterator[tuple[Clamd, socket.socket]]:
    """A daemon that says only what the test says for it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    clamd = Clamd(ours.detach())
    yield clamd, theirs
    clamd.close()
    theirs.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(EICAR)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_files_are_judged_in_one_session(file: int, tmp_path: Path) -> None:
    """A session is opened once, tells the version, and judges the content of each descriptor that it is handed."""
    (tmp_path / "clean").write_bytes(b"nothing")
    with session() as (clamd, daemon), (tmp_path / "clean").open("rb") as clean:
        assert clamd.begin().startswith("ClamAV 1.4.2/27500")
        assert clamd.scan(file) == Answer(Verdict.FOUND, "Eicar-Test-Signature")
        assert clamd.scan(clean.fileno()) == Answer(Verdict.CLEAN)
        assert clamd.gone == ""
    assert daemon.commands == ["zIDSESSION", "zVERSION", "zFILDES", "zFILDES"]
    assert daemon.contents == [EICAR, b"nothing"]


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("fd[12]: OK", Answer(Verdict.CLEAN)),
        ("OK", Answer(Verdict.CLEAN)),
        ("fd[12]: Win.Test.EICAR_HDB-1 FOUND", Answer(Verdict.FOUND, "Win.Test.EICAR_HDB-1")),
        (f"fd[12]: Eicar({'a' * 32}:68) FOUND", Answer(Verdict.FOUND, "Eicar")),
        ("fd[3]: \x1b[2J FOUND", Answer(Verdict.FOUND, "\N{REPLACEMENT CHARACTER}[2J")),
        ("fd[12]: Can't allocate memory ERROR", Answer(Verdict.ERROR, "Can't allocate memory")),
        (
            "fd[9]: Heuristics.Limits.Exceeded.MaxFileSize FOUND",
            Answer(Verdict.ERROR, "not looked into: Heuristics.Limits.Exceeded.MaxFileSize"),
        ),
        ("", Answer(Verdict.ERROR, "an empty answer")),
    ],
)
def test_answers_are_understood(said: str, understood: Answer, file: int) -> None:
    """Found, clean or an error; a limit that was reached is no find, and control characters are not passed on."""
    with scripted(f"1: {said}\0".encode()) as clamd:
        assert clamd.scan(file) == understood


@pytest.mark.parametrize(
    "reply",
    [
        b"UNKNOWN COMMAND\0",
        b"COMMAND READ TIMED OUT\0",
        b"7: fd[3]: OK\0",
        b"0: fd[3]: OK\0",
        b"fd[3]: OK\0",
        b"99999999999999999999: OK\0",
        b"\xff\xfe\0",
        b"1: " + b"x" * (3 * MAX_REPLY),
        b"1: fd[3]: OK",
        b"",
    ],
)
def test_nonsense_ends_the_session(reply: bytes, file: int) -> None:
    """A reply that fits no request, has no end or is too long makes the daemon be asked no more, with the reason."""
    with scripted(reply) as clamd:
        assert clamd.scan(file).verdict is Verdict.ERROR
        assert clamd.gone
        assert clamd.scan(file) == Answer(Verdict.ERROR, clamd.gone)


@given(st.binary(max_size=300))
def test_any_bytes_are_answered(reply: bytes) -> None:
    """Whatever the daemon says, there is one bounded, printable answer."""
    with scripted(reply) as clamd, Path(os.devnull).open("rb") as nothing:
        answer = clamd.scan(nothing.fileno())
        assert len(answer.text) <= 300
        assert answer.text.isprintable()


def test_a_late_answer_is_dropped(file: int) -> None:
    """A file that takes too long has no verdict, and its late answer is not taken for that of another file."""
    with silent() as (clamd, daemon):
        assert clamd.scan(file, within=0.01).verdict is Verdict.ERROR
        daemon.sendall(b"1: fd[3]: Late.Malware FOUND\0" + b"2: fd[3]: OK\0")
        assert clamd.scan(file) == Answer(Verdict.CLEAN)
        assert clamd.scan(file, within=0.01).verdict is Verdict.ERROR
        daemon.sendall(b"4: fd[3]: OK\0" + b"3: fd[3]: Late.Malware FOUND\0")
        assert clamd.scan(file) == Answer(Verdict.CLEAN)
        daemon.sendall(b"5: fd[3]: OK\0")
        assert clamd.scan(file) == Answer(Verdict.CLEAN)
        assert clamd.gone == ""


def test_one_that_answers_nothing_is_given_up(file: int) -> None:
    """After some requests without any answer, no more files are sent to wait for it."""
    with silent() as (clamd, _daemon):
        for _ in range(MAX_LATE):
            assert "no answer within" in clamd.scan(file, within=0.1).text
        assert clamd.scan(file, within=0.1).text == f"{MAX_LATE} requests are unanswered"
        assert clamd.gone


def test_one_that_takes_no_request_is_given_up(file: int) -> None:
    """A daemon that does not read ends the session: half a command may be on its way."""
    with silent() as (clamd, daemon):
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        clamd._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        clamd._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                clamd._socket.send(b"x" * 1024)
        assert clamd.scan(file, within=0.01) == Answer(Verdict.ERROR, "the daemon takes no request")


def test_one_that_is_gone_is_told(file: int) -> None:
    """A daemon that has ended is an error for each file, and begin gives no version."""
    with silent() as (clamd, daemon):
        daemon.close()
        assert clamd.begin() == ""
        assert clamd.scan(file).verdict is Verdict.ERROR
        assert "broke" in clamd.gone or "closed" in clamd.gone


def test_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is kept open by a ping once nothing was said for a while, and not before."""
    now = 1000.0
    monkeypatch.setattr("stanch.worker.scan.clamd.time.monotonic", lambda: now)
    with session() as (clamd, daemon):
        clamd.begin()
        clamd.keep()
        assert "zPING" not in daemon.commands
        now += 11
        clamd.keep()
        assert daemon.commands[-1] == "zPING"


def test_threads_take_turns(file: int) -> None:
    """Two threads share the session, and each gets the answers to its own files."""
    with session() as (clamd, _daemon):
        answers: list[Answer] = []
        threads = [
            threading.Thread(target=lambda: answers.extend(clamd.scan(file) for _ in range(50))) for _ in range(2)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert answers == [Answer(Verdict.FOUND, "Eicar-Test-Signature")] * 100


def test_a_scan_gets_a_name_nothing_or_an_error(file: int, tmp_path: Path) -> None:
    """For a scan, a find is its name, a clean file is None, and anything else an OSError that says why."""
    (tmp_path / "clean").write_bytes(b"nothing")
    with session() as (clamd, _daemon), (tmp_path / "clean").open("rb") as clean:
        asked = Client(clamd)
        assert asked.version.startswith("ClamAV 1.4.2")
        assert len(asked.key) == 16
        assert asked.scan(file) == "Eicar-Test-Signature"
        assert asked.scan(clean.fileno()) is None
        clamd.close()
        with pytest.raises(OSError, match="the scan is over"):
            asked.scan(file)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ("LogTime yes\n", LARGEST),
        ("MaxFileSize 25M\n", 25 * 2**20),
        ("  MaxFileSize\t30000k \r\n", 30_000 * 2**10),
        ("MaxFileSize 1234\nMaxFileSizeOf 9\n", 1234),
        ("#MaxFileSize 1\n", LARGEST),
        ("MaxFileSize 0\n", MOST),
        ("MaxFileSize 400G\n", MOST),
        ("MaxFileSize many\n", LARGEST),
    ],
)
def test_what_the_daemon_does_not_look_into_is_read_from_its_configuration(
    tmp_path: Path, config: str, size: int
) -> None:
    """The bound of the first configuration that is there counts, or what the daemon has without one."""
    (tmp_path / "clamd.conf").write_text(config)
    os.mkfifo(tmp_path / "pipe")
    assert largest([str(tmp_path / "none"), str(tmp_path / "clamd.conf"), str(tmp_path / "pipe")]) == size


def test_a_file_that_the_daemon_would_not_look_into_is_not_clean(tmp_path: Path) -> None:
    """The daemon says OK of what is larger than its bound, unseen: so it is not asked, and there is no verdict."""
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1001)
    with session() as (clamd, daemon), (tmp_path / "large").open("rb") as opened:
        with pytest.raises(OSError, match="larger than its MaxFileSize of 1000 bytes"):
            Client(clamd, largest=1000).scan(opened.fileno())
        assert Client(clamd, largest=1001).scan(opened.fileno()) is None
    assert daemon.contents == [b"\0" * 1001]


def test_the_key_names_the_daemon_and_its_data() -> None:
    """What was clean for one version of the daemon, its data and its bound has a name that no other of them has."""
    keys = []
    for version, bound in ((b"1/1", 9), (b"1/1", 9), (b"1/2", 9), (b"1/1", 8)):
        with scripted(b"1: ClamAV " + version + b"\0") as clamd:
            keys.append(Client(clamd, largest=bound).key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_one_that_does_not_answer_is_no_clean_bill(file: int) -> None:
    """Without an answer at the beginning every file is an error, under a name that nothing is remembered by."""
    ends = [socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2)]
    clients = []
    for ours, theirs in ends:
        theirs.close()
        clients.append(client(ours.detach()))
    assert [one.version for one in clients] == ["", ""]
    assert clients[0].key != clients[1].key
    for one in clients:
        with pytest.raises(OSError, match=r"broke|closed"):
            one.scan(file)


def _confined(descriptor: int, file: int) -> int:
    """What a confined process gets for this file, as its exit status: 0 for the find."""
    asked = client(descriptor)
    confine_scan(memory=False, clamd=True)
    try:
        return 0 if [asked.scan(file) for _ in range(3)] == ["Eicar-Test-Signature"] * 3 else 1
    except OSError:
        return 2


def test_a_confined_process_can_ask(file: int) -> None:
    """Everything that the session needs once it is open is allowed to a worker that has confined itself."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        theirs.close()
        os._exit(_confined(ours.detach(), file))
    ours.close()
    daemon = Daemon(theirs, looks_for_eicar)
    daemon.run()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert daemon.contents == [EICAR] * 3
