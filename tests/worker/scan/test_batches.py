"""Files that wait to be looked at: nothing is lost, nothing is there twice, and the end comes when all is done."""

import threading
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from stanch.worker.scan.batches import Batches
from stanch.worker.scan.walking import Batch, Given

PLACE = Given(-1, b"", b"", 0, 0)


def batch(*names: int) -> Batch:
    """Files by number."""
    return PLACE, [b"%d" % one for one in names]


class OneThread(RuleBasedStateMachine):
    """Whatever is put, taken, finished and given back, by one who never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = Batches(4)
        self.next = 0
        self.waiting = 0
        """Batches."""
        self.taken: list[Batch] = []
        self.left = Counter[bytes]()
        """Files that nobody has looked at."""
        self.closed = False

    @precondition(lambda self: not self.closed)
    @rule(count=st.integers(1, 5))
    def put(self, count: int) -> None:
        """As many as there is room for."""
        one = batch(*range(self.next, self.next + count))
        self.next += count
        room = self.waiting < 4
        assert self.batches.put(one, within=0) is room
        if room:
            self.waiting += 1
            self.left.update(one[1])

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        """The next one."""
        one = self.batches.take()
        assert one is not None
        self.waiting -= 1
        self.taken.append(one)

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(0, 100), done=st.integers(0, 5))
    def finished(self, which: int, done: int) -> None:
        """All of it, or a part."""
        place, names = self.taken.pop(which % len(self.taken))
        looked, rest = names[:done], names[done:]
        for name in looked:
            assert self.left[name] == 1
            self.left[name] -= 1
        self.batches.finished((place, rest) if rest else None)
        self.waiting += bool(rest)

    @rule()
    def close(self) -> None:
        """No new ones."""
        self.batches.close()
        self.closed = True

    @precondition(lambda self: self.closed and not self.waiting and not self.taken)
    @rule()
    def end(self) -> None:
        """Exactly now, and everything was looked at once."""
        assert self.batches.take() is None
        assert not +self.left


TestOneThread = OneThread.TestCase
TestOneThread.settings = settings(max_examples=50, stateful_step_count=40)


@given(
    sizes=st.lists(st.integers(1, 40), max_size=30),
    turns=st.lists(st.integers(0, 7), min_size=1),
    threads=st.integers(1, 4),
)
def test_many_threads_look_at_each_file_once(sizes: list[int], turns: list[int], threads: int) -> None:
    """Who takes a batch looks at some of it and gives the rest back; all of them end, and each file had its turn."""
    batches, looked, lock = Batches(3), Counter[bytes](), threading.Lock()

    def work(own: list[int]) -> None:
        while (one := batches.take()) is not None:
            place, names = one
            own.append(own[0])
            done = turns[len(own) % len(turns)] or len(names)
            with lock:
                looked.update(names[:done])
            batches.finished((place, names[done:]) if names[done:] else None)

    hands = [threading.Thread(target=work, args=([n],), daemon=True) for n in range(threads)]
    for one in hands:
        one.start()
    total = 0
    for size in sizes:
        assert batches.put(batch(*range(total, total + size)), within=30)
        total += size
    batches.close()
    for one in hands:
        one.join(30)
    assert not any(one.is_alive() for one in hands)
    assert looked == Counter(b"%d" % n for n in range(total))


def test_nobody_is_sent_away_while_somebody_may_give_back() -> None:
    """Who has taken the last batch may hang over it: whoever waits does the rest."""
    batches = Batches(2)
    batches.put(batch(1, 2), within=0)
    batches.close()
    assert batches.take() == batch(1, 2)
    got: list[Batch | None] = []
    waiting = threading.Thread(target=lambda: got.extend((batches.take(), batches.take())), daemon=True)
    waiting.start()
    batches.finished(batch(2))
    while not got and waiting.is_alive():
        waiting.join(0.01)
        if batches._taken:
            batches.finished()
    waiting.join(30)
    assert got == [batch(2), None]


def test_the_last_batch_is_divided_with_whoever_waits() -> None:
    """None of two is to work on alone at the end."""
    batches = Batches(2)
    parts: list[Batch | None] = []
    waiting = [threading.Thread(target=lambda: parts.append(batches.take()), daemon=True) for _ in range(2)]
    for one in waiting:
        one.start()
    while batches._idle < 2:
        waiting[0].join(0.001)
    batches.put(batch(1, 2, 3), within=0)
    for one in waiting:
        one.join(30)
    assert sorted(names for _, names in filter(None, parts)) == [[b"1", b"2"], [b"3"]]
