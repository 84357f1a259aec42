"""Torture the isolation: `python -m tests.torture.isolation --sequences N [--seed S]`.

Each sequence is a world of its own with a real server, supervisor and agent, to which random things happen; an observer
outside says what got out. The last line is `N sequences, L leaks, S strandings`; the exit status is 0 only if it says
no leak and no stranding, and every sequence came to its end. Needs root; leaves nothing behind, however it ends.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, TextIO

from tests.torture.ledger import Ledger
from tests.torture.moves import Move, usable
from tests.torture.processes import die_with
from tests.torture.sequence import FAILED, Story
from tests.torture.world import Template, World

FEWEST, MOST = 8, 20
SEQUENCE_SECONDS = 600
"""A sequence that takes longer has hung."""

PLAIN = 0.4
"""How many endpoints have a kernel that cannot own tables, so that all depends on quick repair."""

REMOVE_SECONDS = 10.0
LOG_LINES = 40
JOBS = 2 * (os.cpu_count() or 1)
"""A sequence mostly waits."""


def play(seed: int, moves: Sequence[Move], template: Template, folder: Path, window: float) -> dict[str, Any]:
    """One sequence, from a new world to the observer's judgement."""
    rng = Random(seed)
    begin = time.monotonic()
    with World(folder, template, plain=rng.random() < PLAIN) as world:
        story = Story(world, rng, Ledger(window_seconds=window))
        story.must_be_reachable("the enrolment")
        for number in range(rng.randint(FEWEST, MOST)):
            story.keep_deadlines()
            story.poke_devices()
            chosen_from(moves, story, first=number == 0).make(story)
        story.finish()
        return {"seed": seed, "plain": world.plain, "seconds": round(time.monotonic() - begin, 2), **judged(story)}


def chosen_from(moves: Sequence[Move], story: Story, *, first: bool) -> Move:
    """What happens next: most sequences begin with an isolation, and soon come back to one."""
    possible = [one for one in moves if one.possible(story)]
    idle = story.isolation is None
    weights = [one.weight * ((40 if first else 4) if one.name == "isolate" and idle else 1) for one in possible]
    return story.rng.choices(possible, weights)[0]


def judged(story: Story) -> dict[str, Any]:
    """What the observer says, and what helps to understand it."""
    ledger = story.ledger
    verdict = story.world.observer.ask(ask="judge", spans=ledger.spans, windows=ledger.windows)
    if verdict["lost"]:
        raise RuntimeError(f"the observer has missed {verdict['lost']} frames: what it says is worth nothing")
    bad = verdict["count"] or ledger.strandings
    return {
        "moves": [f"{at:7.3f} {text}" for at, text in ledger.moves],
        "leaks": verdict["count"],
        "strandings": len(ledger.strandings),
        "frames": [f"{one['at'] - ledger.began:7.3f} {one['device']} {one['frame']}" for one in verdict["leaks"]],
        "judged": verdict["judged"],
        "in_windows": verdict["in_windows"],
        "widest": {why: round(seconds, 3) for why, seconds in verdict["widest"].items()},
        "failed": sum(FAILED in text for _, text in ledger.moves),
        "ruleset": story.world.nft("list", "ruleset").stdout if bad else "",
        "agent_log": story.world.agent_log.read_text(errors="replace").splitlines()[-LOG_LINES:] if bad else [],
    }


# --- many sequences --------------------------------------------------------------------------------------------------


class Run:
    """Plays sequences, some of them at the same time, each in a child of its own."""

    def __init__(self, chosen: argparse.Namespace, folder: Path, moves: Sequence[Move]) -> None:
        self._chosen, self._folder, self._moves = chosen, folder, moves
        self._template = Template.made(_made(folder / "template"))
        self._running: dict[int, int] = {}

    def results(self, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Each as soon as it is there."""
        waiting = list(seeds)
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self._chosen.jobs:
                    seed = waiting.pop(0)
                    self._running[self._start(seed)] = seed
                pid, status = os.wait()
                if pid in self._running:
                    yield self._read(self._running.pop(pid), status)
        finally:
            for pid in self._running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _start(self, seed: int) -> int:
        sys.stdout.flush()
        parent, folder = os.getpid(), _made(self._folder / str(seed))
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            die_with(parent)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.alarm(SEQUENCE_SECONDS)
            result = play(seed, self._moves, self._template, folder, self._chosen.window / 1000)
            (folder / "result.json").write_text(json.dumps(result))
            status = 0
        except BaseException:  # noqa: BLE001 - told by the parent; nothing may return into its code
            (folder / "error").write_text(traceback.format_exc())
        finally:
            os._exit(status)

    def _read(self, seed: int, status: int) -> dict[str, Any]:
        folder = self._folder / str(seed)
        try:
            return json.loads((folder / "result.json").read_text())
        except FileNotFoundError:
            error = folder / "error"
            said = error.read_text() if error.exists() else f"it ended with status {status}"
            return {"seed": seed, "broken": said, "moves": [], "leaks": 0, "strandings": 0, "seconds": 0.0}
        finally:
            if not self._chosen.keep:
                shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


# --- what is printed -------------------------------------------------------------------------------------------------


def say(text: str, *, to: TextIO | None = None) -> None:
    """A line, at once."""
    print(text, file=to or sys.stdout, flush=True)


def line_of(result: Mapping[str, Any], number: int, total: int) -> str:
    """A sequence in one line."""
    if "broken" in result:
        return f"[{number}/{total}] seed {result['seed']}: BROKEN: {result['broken'].strip().splitlines()[-1]}"
    bad = result["leaks"] or result["strandings"]
    moves = sum(not one[8:].startswith((" ", "(")) for one in result["moves"]) - 1
    widest = ", ".join(f"{why} {seconds * 1000:.0f} ms" for why, seconds in result["widest"].items())
    said = [
        f"{moves} moves",
        *(["plain tables"] if result["plain"] else []),
        f"{result['seconds']:.1f} s",
        f"{result['judged']} frames judged",
        *([f"{result['in_windows']} in windows ({widest})"] if result["in_windows"] else []),
        *([f"{result['failed']} orders failed"] if result["failed"] else []),
    ]
    verdict = f"{result['leaks']} leaks, {result['strandings']} strandings" if bad else "ok"
    return f"[{number}/{total}] seed {result['seed']}: {', '.join(said)}: {verdict}"


def details_of(result: Mapping[str, Any]) -> Iterator[str]:
    """All that helps to understand a leak or a stranding."""
    if "broken" in result:
        yield result["broken"]
        return
    yield from (f"    {one}" for one in result["moves"])
    for name in ("frames", "agent_log"):
        if result[name]:
            yield f"  {name.replace('_', ' ')}:"
            yield from (f"    {one[:400]}" for one in result[name])
    if result["ruleset"]:
        yield f"  ruleset:\n{result['ruleset']}"


def seeds_of(chosen: argparse.Namespace) -> list[int]:
    """The seeds of the sequences."""
    if chosen.sequence_seed is not None:
        return [chosen.sequence_seed]
    rng = Random(chosen.seed)
    return [rng.randrange(2**32) for _ in range(chosen.sequences)]


def tell(chosen: argparse.Namespace, result: Mapping[str, Any], number: int, total: int) -> None:
    """Print one sequence."""
    if chosen.json:
        say(json.dumps(result))
        return
    say(line_of(result, number, total))
    if chosen.verbose or "broken" in result or result["leaks"] or result["strandings"]:
        say("\n".join(details_of(result)))


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="stanch-torture-"))
    try:
        yield path
    finally:
        if keep:
            say(f"kept: {path}", to=sys.stderr)
        else:
            _remove(path)


def _remove(path: Path) -> None:
    """All of it, though processes that are about to end may still write into it."""
    end = time.monotonic() + REMOVE_SECONDS
    while path.exists() and time.monotonic() < end:
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.05)  # sleep: between two tries


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.torture.isolation", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--sequences", type=int, default=40, help="how many (40)")
    made.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of the whole run (random)")
    made.add_argument("--sequence-seed", type=int, help="play exactly the sequence with this seed")
    made.add_argument("--jobs", type=int, default=JOBS, help=f"sequences at the same time ({JOBS})")
    made.add_argument("--window", type=float, default=250.0, help="ms that a repair may take here (250)")
    made.add_argument("--only", action="append", help="make only this move (and isolate); several times")
    made.add_argument("--json", action="store_true", help="one JSON object for each sequence")
    made.add_argument("--verbose", action="store_true", help="print the moves of every sequence")
    going = made.add_mutually_exclusive_group()
    going.add_argument("--keep-going", action="store_true", default=True, help="go on after a leak (so it is)")
    going.add_argument("--stop", action="store_false", dest="keep_going", help="stop after a leak or a stranding")
    made.add_argument("--keep", action="store_true", help="leave the logs of each sequence in the temporary folder")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Torture; 0 if there was no leak and no stranding."""
    chosen = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    moves, left_out = usable()
    if chosen.only:
        moves = [one for one in moves if one.name in {*chosen.only, "isolate"}]
    to = sys.stderr if chosen.json else sys.stdout
    say(f"seed {chosen.seed}; moves: {', '.join(one.name for one in moves)}", to=to)
    for one in left_out:
        say(f"left out: {one}", to=to)
    seeds, results = seeds_of(chosen), []
    with _folder(keep=chosen.keep) as folder:
        for result in Run(chosen, folder, moves).results(seeds):
            results.append(result)
            tell(chosen, result, len(results), len(seeds))
            if not chosen.keep_going and (result["leaks"] or result["strandings"]):
                break
    return _conclude(results)


def _conclude(results: Sequence[Mapping[str, Any]]) -> int:
    leaks, strandings = (sum(one[kind] for one in results) for kind in ("leaks", "strandings"))
    broken = sum("broken" in one for one in results)
    if broken:
        say(f"{broken} sequences did not come to their end")
    say(f"{len(results) - broken} sequences, {leaks} leaks, {strandings} strandings")
    return 1 if leaks or strandings or broken else 0


if __name__ == "__main__":
    sys.exit(main())
