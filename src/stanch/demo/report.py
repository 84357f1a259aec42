"""The demo's steps as people and programs see them: one line each, as soon as it is known."""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO

from stanch.core.errors import StanchError

WIDTH = 21
"""Of the longest name of a step."""

SCREEN = 120
"""Columns where nobody says how many there are."""

LEAST_EVIDENCE = 40


class NotSeen(StanchError):
    """A check did not hold: the outside saw something else."""

    code = "not-seen"


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was tried."""

    step: str
    ok: bool
    ms: int
    evidence: str

    def for_programs(self) -> str:
        """One JSON object."""
        return json.dumps({"step": self.step, "ok": self.ok, "ms": self.ms, "evidence": self.evidence})

    def for_people(self, columns: int) -> str:
        """One line; evidence that needs more goes on below itself."""
        head = f"{'✓' if self.ok else '✗'} {self.step:<{WIDTH}} {self.ms:>6} ms  "
        room = max(LEAST_EVIDENCE, columns - len(head))
        lines = textwrap.wrap(self.evidence, room, break_long_words=False, break_on_hyphens=False)
        return head + f"\n{' ' * len(head)}".join(lines)


def expect(held: bool, message: str, *, got: object, expected: object = None) -> None:  # noqa: FBT001 - like assert
    """Raise NotSeen unless it held."""
    if not held:
        raise NotSeen(message, got=got, expected=expected)


@dataclass(slots=True)
class Report:
    """Runs steps and says what came of them."""

    as_json: bool
    out: IO[str] = field(default_factory=lambda: sys.stdout)
    clock: Callable[[], float] = time.monotonic
    steps: list[Step] = field(default_factory=list)

    def run(self, name: str, do: Callable[[], str]) -> bool:
        """Run a step, which returns its evidence, and tell; False if the story cannot go on."""
        began = self.clock()
        try:
            ok, goes_on, evidence = True, True, do()
        except NotSeen as error:
            ok, goes_on, evidence = False, True, str(error)
        except (StanchError, OSError) as error:
            ok, goes_on, evidence = False, False, str(error)
        self.tell(Step(name, ok, round((self.clock() - began) * 1000), evidence))
        return goes_on

    def tell(self, step: Step) -> None:
        """Print a step."""
        self.steps.append(step)
        self.out.write((step.for_programs() if self.as_json else step.for_people(_columns())) + "\n")
        self.out.flush()

    def kept(self, lines: Sequence[str]) -> None:
        """Say how to use what was left running."""
        if self.as_json:
            self.tell(Step("kept", ok=True, ms=0, evidence=" | ".join(lines)))
        else:
            self.remark("\n" + "\n".join(lines))

    def remark(self, text: str) -> None:
        """A line for people; programs are not bothered with it."""
        if not self.as_json:
            self.out.write(text + "\n")
            self.out.flush()

    @property
    def all_held(self) -> bool:
        """Was there a step, and did each hold?"""
        return bool(self.steps) and all(step.ok for step in self.steps)


def _columns() -> int:
    return shutil.get_terminal_size((SCREEN, 24)).columns
