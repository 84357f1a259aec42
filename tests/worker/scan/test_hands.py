"""Processes that look at files for the worker: what they report, and what becomes of them and of it."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.items import CUT, Item, Value
from stanch.worker.scan.hands import DIED, MOST, MOST_BYTES, Board, Hand, Noting, Report, unpacked
from stanch.worker.scan.remembered import RECORD
from stanch.worker.scan.remembered import unpacked as unpacked_record
from stanch.worker.scan.walking import Given
from tests.mounts import image, inside
from tests.worker.scan.driving import FIND_EVIL, Driver, scan, worker
from tests.worker.scan.test_remembered import learning, settled

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for mounts and leases")

SLOW = b'rule Slow { strings: $a = "S-L-O-W" condition: $a and for all i in (1..1000000000000) : ( i > 0 ) }'
"""Keeps whoever looks busy until its time is up."""
IN_A_HAND = """
import os, time
from stanch.worker.scan import looking
worker, look = os.getpid(), looking.Looker.look
def instead(self, folder, name):
    if os.getpid() != worker:
        {}
    look(self, folder, name)
looking.Looker.look = instead
"""
"""Before a worker starts: what processes that are not it do with `name`."""
REFUSED = """
import os
fork, left = os.fork, [None] * {}
def instead_of_fork():
    if not left:
        raise OSError(11, "no more")
    left.pop()
    return fork()
os.fork = instead_of_fork
"""
"""Before a worker starts: so many processes may be there, and no more."""
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff"), max_size=20)
VALUES: st.SearchStrategy[Value] = TEXT | st.integers() | st.floats() | st.booleans() | st.just(CUT)
ITEMS = st.builds(
    lambda name, values, about: Item(document="FileItem", name=name, values=values, about=about),
    TEXT,
    st.dictionaries(TEXT, st.lists(VALUES, max_size=3).map(tuple), max_size=3),
    st.dictionaries(TEXT, TEXT | st.integers(), max_size=3),
)


OF_RULES = b"\xff" * 8
"""In a record in place of a file system."""


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def how(hands: bool) -> dict[str, None]:  # noqa: FBT001 - as a test has it
    """With hands, or with threads."""
    return {} if hands else {"at": None}


# --- what they say ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.binary(max_size=20), TEXT, TEXT, st.booleans()), max_size=5), st.lists(ITEMS, max_size=3))
def test_a_report_arrives_as_it_was_sent(skips: list[tuple[bytes, str, str, bool]], items: list[Item]) -> None:
    """Names of any bytes, values of any kind: numbers that are none (CUT) too."""
    report = Report()
    for name, reason, detail, judged in skips:
        report.skip(name, reason, detail, judged=judged)
    for item in items:
        report.see(item)
        report.judged(item.document)
    report.looked(size=7, remembered=True, skipped=True)
    report.finding({"rule": "Evil"})
    told = unpacked(report.take(3))
    assert [(os.fsencode(one[0]), *one[1:]) for one in told.skips] == skips
    assert repr(list(told.seen)) == repr(items)
    assert (told.done, told.numbers, told.findings) == (3, (1, 0, 1, 7), [{"rule": "Evil"}])
    assert sum(told.items.values()) == len(items)
    empty = unpacked(report.take(0))
    assert (empty.numbers, empty.skips, empty.seen, empty.findings, empty.items) == ((0, 0, 0, 0), [], [], [], {})


def test_a_report_is_sent_before_it_is_too_large() -> None:
    """Many small things, or few large ones."""
    many, large, seen = Report(), Report(), Report()
    for _ in range(MOST - 1):
        many.skip(b"x", "gone")
    assert not many.is_full
    many.skip(b"x", "gone")
    large.finding({"why": "x" * MOST_BYTES})
    seen.see(Item(document="FileItem", name="x", values={"StringList/string": ("x" * (MOST_BYTES // 2),) * 2}))
    assert many.is_full
    assert large.is_full
    assert seen.is_full
    seen.take(0)
    assert not seen.is_full


def test_the_board_says_since_when_each_is_at_what() -> None:
    """Given names, at one of them, at nothing; who makes ready is not late."""
    board = Board(2)
    assert (board.at(0), board.at(1), board.paused()) == (None, None, False)
    board.alive(1)
    assert board.at(1) is None
    board.send(1)
    given_names = board.at(1)
    board.begin(1, 4)
    begun = board.at(1)
    board.alive(1)
    later = board.at(1)
    assert given_names is not None
    assert begun is not None
    assert later is not None
    assert (given_names[1], begun[1], later[1], board.at(0)) == (None, 4, 4, None)
    assert given_names[0] <= begun[0] <= later[0]
    board.ready(within=1000)
    ready = board.at(1)
    assert ready is not None
    assert ready[0] > later[0] + 900
    board.rest(1)
    assert board.at(1) is None


class Trickling(socket.socket):
    """Hands over less than it is asked for, as the kernel does if a process was stopped meanwhile."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Three bytes at most."""
        return super().recv(min(size, 3), flags)


def test_a_report_that_comes_in_pieces_is_whole(tmp_path: Path) -> None:
    """However few bytes the kernel hands over at once; and a file that was given is closed once."""
    ours, theirs = socket.socketpair()
    file = os.open(put(tmp_path / "x"), os.O_RDONLY)
    report = Report()
    report.skip(b"/a", "gone")
    data = report.take(1)

    def answer() -> None:
        _, files, _, _ = socket.recv_fds(theirs, 2**16, 1)
        os.close(files[0])
        theirs.sendall(len(data).to_bytes(4, "little") + data)

    answering = threading.Thread(target=answer)
    answering.start()
    board = Board(1)
    hand = Hand(0, Trickling(fileno=ours.detach()), board, os.getpid())
    told = hand.look(Given(file, b"x", b"", 0, 0), [b""])
    answering.join()
    hand.end()
    theirs.close()
    assert (told.done, len(told.skips), hand.at()) == (1, 1, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_only_what_matters_is_reported() -> None:
    """An item that is of no concern is not sent, and not judged twice."""

    class Judge:
        def needs(self, _: Item) -> frozenset[str]:
            return frozenset({"x"})

        def concerns(self, item: Item) -> bool:
            return item.name == "matters"

        def see(self, item: Item) -> list[str]:
            return [item.name]

    report = Report()
    noting = Noting(Judge(), report)
    items = [Item(document="FileItem", name=name, values={}) for name in ("matters", "not")]
    assert [noting.see(one) for one in items] == [["matters"], ()]
    assert report.seen == items[:1]
    assert noting.needs(items[0]) == {"x"}


# --- what they are ---------------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Its children and theirs, the older first."""
    tasks = Path(f"/proc/{pid}/task")
    own = [int(one) for task in tasks.iterdir() for one in (task / "children").read_text().split()]
    return [each for one in own for each in (one, *children(one))]


def runs(pid: int) -> bool:
    """Does it? Whoever has died and nobody has asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(driver: Driver, busy: int) -> list[int]:
    """Both are there, and so many of them are at a file."""
    driver.hear_until(lambda _: len(driver.at) == busy and len(children(driver.process.pid)) > 1)
    return children(driver.process.pid)


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[Driver, list[int]]]:
    """A worker whose hands are both at a file that keeps them; what it has to do besides waits."""
    for name in ("slow-1", "slow-2"):
        put(tmp_path / name / name, b"S-L-O-W")
    with worker([("yara", "s", SLOW)], per_object=60) as driver:
        driver.targets(tmp_path)
        yield driver, until(driver, 2)


@pytest.mark.parametrize(("which", "status"), [(0, 128 + signal.SIGSEGV), (1, DIED)])
def test_a_hand_that_dies_takes_all_with_it(busy: tuple[Driver, list[int]], which: int, status: int) -> None:
    """At once, with a status that says so; what each was at is there for the agent."""
    driver, hands = busy
    os.kill(hands[which], signal.SIGSEGV)
    driver.hear_until(lambda _: False)
    assert driver.process.wait(30) == status
    assert len(driver.at) == 2
    wait_for_the_end(hands)


def test_all_hands_dead(busy: tuple[Driver, list[int]]) -> None:
    """The same."""
    driver, hands = busy
    for one in hands:
        os.kill(one, signal.SIGKILL)
    driver.hear_until(lambda _: False)
    assert driver.process.wait(30) in {128 + signal.SIGKILL, DIED}


def wait_for_the_end(pids: list[int]) -> None:
    """Of all of them."""
    ended = threading.Event()
    for _ in range(3000):
        if not any(map(runs, pids)):
            return
        ended.wait(0.01)
    raise AssertionError([one for one in pids if runs(one)])


def test_a_worker_that_is_killed_leaves_nobody(busy: tuple[Driver, list[int]]) -> None:
    """The kernel ends its hands with it, and theirs."""
    driver, hands = busy
    assert len(hands) == 2
    driver.process.kill()
    wait_for_the_end(hands)


def test_without_the_agent_nobody_is_left(busy: tuple[Driver, list[int]]) -> None:
    """Its end of the pipe is closed: the worker goes, and so do they."""
    driver, hands = busy
    assert driver.process.stdin is not None
    driver.process.stdin.close()
    driver.hear_until(lambda _: False)
    assert driver.process.wait(30) == 3
    wait_for_the_end(hands)


def test_nobody_has_the_line_of_another_or_the_agents_pipes(busy: tuple[Driver, list[int]]) -> None:
    """A hand has its line, and no other; only the worker speaks with the agent."""
    driver, hands = busy
    pipes = {str(Path(f"/proc/{driver.process.pid}/fd/{n}").readlink()) for n in (0, 1)}
    own = [[str(one.readlink()) for one in Path(f"/proc/{hand}/fd").iterdir()] for hand in hands]
    assert all(pipes.isdisjoint(one) for one in own)
    assert [sum(one.startswith("socket:") for one in some) for some in own] == [1, 1]
    assert len({one for some in own for one in some if one.startswith("socket:")}) == 2


@pytest.mark.parametrize(("gentle", "count"), [(True, 1), (False, 2)])
def test_a_gentle_scan_has_no_more_hands_than_processors(tmp_path: Path, *, gentle: bool, count: int) -> None:
    """Those that it may use; one that is in a hurry has as many as it was told."""
    one = str(min(os.sched_getaffinity(0)))
    with worker([("yara", "e", FIND_EVIL)], gentle=gentle, prefix=("taskset", "-c", one)) as driver:
        put(tmp_path / "evil")
        driver.targets(tmp_path)
        driver.hear_until(lambda _: driver.done.findings != [])
        hands = children(driver.process.pid)
        driver.finish()
    assert len(hands) == count


def test_nobody_is_left_over_at_the_end(tmp_path: Path) -> None:
    """A scan that is done leaves neither processes nor dead ones that nobody asked for."""
    with worker([("yara", "e", FIND_EVIL)]) as driver:
        put(tmp_path / "evil")
        driver.targets(tmp_path)
        driver.hear_until(lambda _: driver.done.findings != [])
        hands = children(driver.process.pid)
        driver.finish()
        assert driver.process.wait(30) == 0
        wait_for_the_end(hands)
        assert len(hands) == 2


# --- what becomes of files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_many_files_are_each_looked_at_once(tmp_path: Path, threads: int) -> None:
    """In many folders, with names of any bytes: all are counted, and those that are evil are found."""
    for n in range(2000):
        put(tmp_path / f"{n % 40}" / f"{n}", b"E-V-I-L" if n % 20 == 0 else b"good")
    odd = [os.fsencode(tmp_path) + b"/" + name for name in (b"\xff\xfe", b"a\nb", b"\\x41", "ä ".encode(), b'"')]
    for path in odd:
        put(Path(os.fsdecode(path)))
    done = scan(tmp_path, threads=threads)
    assert (done.tally["files"], done.tally["findings"], done.skips) == (2005, 105, [])
    assert len(done.findings) == len(done.found) == 105
    assert {one["objects"][0]["path"] for one in done.findings} > {f"{tmp_path}/\\xff\\xfe", f"{tmp_path}/\\x5cx41"}


@pytest.mark.parametrize("hands", [True, False])
def test_a_scan_ends_with_as_many_finds_as_are_allowed(tmp_path: Path, hands: bool) -> None:  # noqa: FBT001 - both ways
    """In the middle of what the others are at."""
    for n in range(1000):
        put(tmp_path / f"{n}")
    with worker([("yara", "e", FIND_EVIL)], findings=150, **how(hands)) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
        assert driver.process.wait(30) == 0
    assert (len(done.findings), done.tally["complete"]) == (150, False)


def test_a_hand_that_hangs_is_given_up_and_nothing_is_lost(tmp_path: Path) -> None:
    """A thread does what is left, and what had not been reported; only the file over which it hangs is told."""
    files = [put(tmp_path / ("hangs" if n == 20 else f"{n}")) for n in range(64)]
    before = IN_A_HAND.format("name == b'hangs' and time.sleep(1000)")
    with worker([("yara", "e", FIND_EVIL)], before=before, patience=0.5, per_object=0.1) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    assert done.skipped == {(str(tmp_path / "hangs"), "hangs")}
    assert sorted(one["objects"][0]["name"] for one in done.findings) == sorted(
        str(one) for one in files if one.name != "hangs"
    )
    assert done.tally["files"] == 63
    assert done.tally["complete"] is False


def test_a_hand_that_is_stopped_is_given_up(tmp_path: Path) -> None:
    """It has begun nothing of what it is sent: others do all of it."""
    put(tmp_path / "first" / "evil")
    with worker([("yara", "e", FIND_EVIL)], patience=0.5, per_object=0.1) as driver:
        driver.targets(tmp_path / "first")
        driver.hear_until(lambda _: driver.done.findings != [])
        for one in children(driver.process.pid):
            os.kill(one, signal.SIGSTOP)
        for n in range(100):
            put(tmp_path / "then" / f"{n}")
        driver.targets(tmp_path / "then")
        done = driver.finish()
    assert (len(done.findings), len(done.found), done.skips) == (101, 101, [])
    assert "does not answer" in done.tally["why_incomplete"]


@pytest.mark.parametrize("hands", [True, False])
def test_whoever_waits_while_it_is_paused_does_not_hang(tmp_path: Path, hands: bool) -> None:  # noqa: FBT001 - both ways
    """However long that is, and wherever in its work it was."""
    for n in range(400):
        put(tmp_path / f"{n}")
    before = "import time\n" + IN_A_HAND.format("pass").replace("    look(", "    time.sleep(0.002)\n    look(")
    with worker([("yara", "e", FIND_EVIL)], **how(hands), before=before, patience=0.2, per_object=0.1) as driver:
        driver.targets(tmp_path)
        driver.hear_until(lambda _: driver.done.findings != [])
        driver.say(type="pause")
        driver.hear_until(lambda _: len([one for one in driver.done.advances if one["paused"]]) > 5)
        assert driver.done.advances[-1]["files"] == driver.done.advances[-3]["files"] < 400
        driver.say(type="resume")
        done = driver.finish()
    assert (done.skips, len(done.findings), done.tally["files"]) == ([], 400, 400)


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_no_process_can_be_had_others_do_its_work(tmp_path: Path, allowed: int) -> None:
    """Threads if there is none; one hand for three lines if there is only one."""
    for n in range(300):
        put(tmp_path / f"{n % 7}" / f"{n}")
    with worker([("yara", "e", FIND_EVIL)], before=REFUSED.format(allowed), threads=3) as driver:
        driver.targets(tmp_path)
        driver.hear_until(lambda _: driver.done.findings != [])
        assert len(children(driver.process.pid)) == allowed
        done = driver.finish()
    assert (len(done.found), len(done.findings), done.skips) == (300, 300, [])


def test_one_hand_with_several_lines_that_hangs(tmp_path: Path) -> None:
    """Whoever waits for it because there was no other process is given up with it, and blames no file."""
    for n in range(96):
        put(tmp_path / ("hangs" if n == 20 else f"{n}"))
    before = IN_A_HAND.format("name == b'hangs' and time.sleep(1000)") + REFUSED.format(1)
    with worker([("yara", "e", FIND_EVIL)], before=before, patience=0.5, per_object=0.1) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    assert done.skipped == {(str(tmp_path / "hangs"), "hangs")}
    assert (len(done.findings), len(done.found)) == (95, 95)


def test_a_hand_that_fails_ends_the_scan_and_says_so(tmp_path: Path) -> None:
    """A defect of ours is not to look like a clean scan."""
    put(tmp_path / "evil")
    with worker([("yara", "e", FIND_EVIL)], before=IN_A_HAND.format("raise KeyError('defect')")) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    assert "KeyError: 'defect'" in done.tally["why_incomplete"]


@pytest.mark.parametrize("hands", [True, False])
def test_what_rules_print_is_no_message(tmp_path: Path, hands: bool) -> None:  # noqa: FBT001 - both ways
    """The engine has a module for that."""
    put(tmp_path / "evil")
    rule = b'import "console" rule Says { condition: console.log("not for the agent") }'
    with worker([("yara", "s", rule)], **how(hands)) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    assert done.found == {("Says", str(tmp_path / "evil"))}


@pytest.mark.root
@root
@pytest.mark.parametrize("killed", [None, 0, 1])
def test_what_each_of_them_learns_is_there_whole(tmp_path: Path, killed: int | None) -> None:
    """All append to one file, record by record; if one is killed over it, the next scan goes on from what is there."""

    @inside
    def work() -> None:
        folder = settled(image(tmp_path / "disk", "ext4"), 2000)
        file = os.open(tmp_path / "learned", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with worker([("yara", "e", FIND_EVIL)], learned=file) as driver:
            driver.targets(folder)
            if killed is None:
                driver.finish()
            else:
                while os.fstat(file).st_size < 200 * RECORD and driver.process.poll() is None:
                    driver.hear()
                with suppress(ProcessLookupError, IndexError):  # it may have done everything by then
                    os.kill(children(driver.process.pid)[killed], signal.SIGKILL)
                with suppress(BrokenPipeError):
                    driver.finish()
        os.close(file)
        records = (tmp_path / "learned").read_bytes()
        told = [unpacked_record(records[n : n + RECORD]) for n in range(0, len(records) // RECORD * RECORD, RECORD)]
        inodes = [one[0].inode for one in told if one is not None and one[0].place != OF_RULES]
        done = learning(folder, tmp_path / "learned")
        assert (done.tally["files"], done.tally["complete"]) == (2000, True)
        assert done.tally["remembered"] >= len(set(inodes)) >= 190
        if killed is None:
            assert sorted(inodes) == sorted(one.stat().st_ino for one in folder.iterdir() if one.is_file())
            assert (len(records), None in told) == (2001 * RECORD, False)

    work()
