"""What every benchmark shares: bars that are held or missed, the machine, and the JSON object of the last line.

A benchmark measures its own floor or peer in the same run and sets its bars against that, so that a figure means the
same on a laptop and on a server. Progress goes to stderr; standard output ends with one JSON object.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Figure = float | int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A promise about a figure."""

    what: str
    value: float
    bar: float
    better: Literal["<=", ">="] = "<="
    tried: str = ""
    """When it is missed: what was tried, and what would help."""

    @property
    def held(self) -> bool:
        """Does the value keep the promise?"""
        return self.value <= self.bar if self.better == "<=" else self.value >= self.bar

    def as_json(self) -> dict[str, object]:
        """The bar as the last line shows it."""
        tried = {"tried": self.tried} if self.tried and not self.held else {}
        return {
            "what": self.what,
            "value": rounded(self.value),
            "bar": f"{self.better} {rounded(self.bar)}",
            "held": self.held,
            **tried,
        }


def progress(text: str) -> None:
    """Say on stderr how far the benchmark is."""
    print(f"  {text}", file=sys.stderr, flush=True)


def report(name: str, figures: Mapping[str, Figure], bars: Sequence[Bar]) -> None:
    """Print the result as one line of JSON: call it last."""
    shown = {key: rounded(value) for key, value in figures.items()}
    result = {"name": name, "machine": machine(), "figures": shown, "bars": [bar.as_json() for bar in bars]}
    print(json.dumps(result), flush=True)


def machine() -> dict[str, str | int | float]:
    """The machine that the figures were taken on."""
    return {
        "cores": os.cpu_count() or 1,
        "cpu": _cpu_model(),
        "ram_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def rounded(value: Figure) -> Figure:
    """A number with three significant digits; text as it is."""
    if isinstance(value, str | int) or value == 0:
        return value
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) and abs(short) >= 100 else short


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def seconds(do: Callable[[], object], times: int) -> float:
    """The median time of one call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        do()
        taken.append(time.perf_counter() - started)
    return median(taken)
