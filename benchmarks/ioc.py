"""Indicators: what 50,000 of them cost for each file, against 10.

The same files, in memory, are hashed and judged as a scan does it: ask what is needed, learn it, see. Rounds of 10 and
of 50,000 indicators alternate, and medians are compared: once with the hashing in it, which is what a scan pays,
and once for the judging alone. In three forms: one indicator that is an OR of all hashes, as feeds come; one for
each hash (both MD5); and STIX patterns, as they are read from a bundle (SHA-256).

Also: how long 50,000 take to load (from the tree, and from a STIX bundle), and what memory the judge takes besides the
indicators.
"""

import argparse
import gc
import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks import harness
from stanch.core.ioc.expression import Condition, Group, Indicator, Operator, Term
from stanch.core.ioc.items import Item
from stanch.core.ioc.judging import Judge
from stanch.core.ioc.stix import read_stix

FEW = 10
MANY = 50_000
BUNDLE = 20_000
FILES = 2_000
FILE_BYTES = 16_384
ROUNDS = 15
BAR = 1.1

Hashes = Callable[[bytes], Iterator[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Form:
    """One way in which indicators of hashes come."""

    name: str
    make: Callable[[int], Sequence[Indicator]]
    path: str
    algorithm: str


def digest(number: int, algorithm: str) -> str:
    """A hash that no file here has."""
    return hashlib.new(algorithm, f"indicator {number}".encode(), usedforsecurity=False).hexdigest()


def _term(number: int) -> Term:
    content = digest(number, "md5")
    return Term(
        id=f"t{number}", document="FileItem", path="Md5sum", condition=Condition.IS, content=content, type="md5"
    )


def _indicator(name: str, terms: Sequence[Term]) -> Indicator:
    root = Group(id=f"g{name}", operator=Operator.OR, parts=tuple(terms))
    return Indicator(id=name, title=f"Indicator {name}", format="OpenIOC 1.1", root=root)


def one_wide(count: int) -> Sequence[Indicator]:
    """One indicator with all hashes."""
    return [_indicator("wide", [_term(number) for number in range(count)])]


def one_each(count: int) -> Sequence[Indicator]:
    """An indicator for each hash."""
    return [_indicator(f"i{number}", [_term(number)]) for number in range(count)]


def bundle(numbers: range) -> bytes:
    """A STIX bundle with a pattern for each hash."""
    times = {
        "created": "2024-01-01T00:00:00Z",
        "modified": "2024-01-01T00:00:00Z",
        "valid_from": "2024-01-01T00:00:00Z",
    }
    objects = [
        {
            "type": "indicator",
            "spec_version": "2.1",
            "id": f"indicator--00000000-0000-4000-8000-{number:012d}",
            "pattern_type": "stix",
            "pattern": f"[file:hashes.'SHA-256' = '{digest(number, 'sha256')}']",
            **times,
        }
        for number in numbers
    ]
    return json.dumps(
        {"type": "bundle", "id": "bundle--00000000-0000-4000-8000-000000000000", "objects": objects}
    ).encode()


def stix(count: int) -> Sequence[Indicator]:
    """STIX patterns, as they are read; several bundles, since the bytes of one have a bound."""
    ends = range(0, count, BUNDLE)
    return [one for start in ends for one in read_stix(bundle(range(start, min(count, start + BUNDLE)))).indicators]


FORMS = (
    Form("wide", one_wide, "Md5sum", "md5"),
    Form("each", one_each, "Md5sum", "md5"),
    Form("stix", stix, "Sha256sum", "sha256"),
)


def judge_all(judge: Judge, form: Form, files: Sequence[bytes], known: Sequence[str] | None) -> None:
    """All files, step by step, as a scan does it; `known` are their hashes, if hashing is not measured."""
    for number, data in enumerate(files):
        name = f"lib{number}.so"
        values = {"FullPath": (f"/usr/lib/{name}",), "FileName": (name,), "SizeInBytes": (len(data),)}
        item = Item(document="FileItem", name=name, values=values)
        if form.path in judge.needs(item):
            content = known[number] if known else hashlib.new(form.algorithm, data, usedforsecurity=False).hexdigest()
            item = Item(document="FileItem", name=name, values={**values, form.path: (content,)})
        judge.needs(item)
        judge.see(item)


def against(form: Form, files: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Microseconds for one file: few and many, with hashing and without, medians of rounds that alternate."""
    judges = {"few": Judge(form.make(FEW)), "many": Judge(form.make(MANY))}
    known = [hashlib.new(form.algorithm, data, usedforsecurity=False).hexdigest() for data in files]
    taken: dict[str, list[float]] = {}
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        order = list(judges) if number % 2 else list(judges)[::-1]
        for with_hashing in (True, False):
            for name in order:
                started = time.perf_counter()
                judge_all(judges[name], form, files, None if with_hashing else known)
                label = f"{name}_{'hashed' if with_hashing else 'judged'}"
                taken.setdefault(label, []).append((time.perf_counter() - started) / len(files) * 1e6)
    gc.unfreeze()
    return {label: harness.median(values) for label, values in taken.items()}


def load(form: Form) -> tuple[float, float]:
    """Seconds to make a judge of many, and MB that it takes besides the indicators."""
    indicators = form.make(MANY)
    started = time.perf_counter()
    judge = Judge(indicators)
    seconds = time.perf_counter() - started
    del judge
    gc.collect()
    tracemalloc.start()
    judge = Judge(indicators)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del judge
    return seconds, held / 1e6


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    files = [hashlib.sha256(str(number).encode()).digest() * (FILE_BYTES // 32) for number in range(chosen.files)]
    figures: dict[str, harness.Figure] = {"indicators": MANY, "files": chosen.files, "file_bytes": FILE_BYTES}
    bars = []
    for form in FORMS:
        harness.progress(form.name)
        found = against(form, files, chosen.rounds)
        seconds, megabytes = load(form)
        figures |= {f"{form.name}_{label}_us": value for label, value in found.items()}
        figures |= {f"{form.name}_load_s": seconds, f"{form.name}_memory_mb": megabytes}
        for label, words in (("hashed", "hashed and judged"), ("judged", "judged alone")):
            ratio = found[f"many_{label}"] / found[f"few_{label}"]
            bars.append(
                harness.Bar(what=f"{form.name}: {MANY} indicators against {FEW}, {words}", value=ratio, bar=BAR)
            )
    figures["stix_read_s"] = harness.seconds(lambda: stix(MANY), 1)
    harness.report("ioc", figures, bars)


if __name__ == "__main__":
    main()
