"""List the benchmarks, run them, and write what they measured into benchmarks/README.md.

python -m benchmarks                      list them
python -m benchmarks --all --write        run all, rewrite the README (make bench)
python -m benchmarks isolation --write    run one, rewrite its section
"""

import argparse
import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
TIME_LIMIT = 900
"""Seconds for one benchmark; each should take under 120."""

Outcome = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """List or run; 1 if a benchmark broke. A missed bar is a finding, not a failure of the run."""
    chosen = _parser().parse_args(arguments)
    known = benchmarks()
    names = list(known) if chosen.all else chosen.names
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)} (there are: {', '.join(known)})", file=sys.stderr)
        return 2
    if not names:
        _list(known)
        return 0
    outcomes = {name: run(name) for name in names}
    done = {name: outcome for name, outcome in outcomes.items() if outcome is not None}
    if chosen.write:
        README.write_text(rewrite(README.read_text(encoding="utf-8"), done), encoding="utf-8")
    _summary(outcomes)
    return 0 if len(done) == len(outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run Stanch's benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; none lists them")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--write", action="store_true", help="write the figures into benchmarks/README.md")
    return parser


def benchmarks() -> dict[str, str]:
    """Every benchmark (a file here with a `main`) and its first line, without importing any."""
    trees = {path.stem: ast.parse(path.read_bytes()) for path in sorted(FOLDER.glob("[a-z]*.py"))}
    return {name: _summary_line(tree) for name, tree in trees.items() if _has_main(tree)}


def _has_main(tree: ast.Module) -> bool:
    return any(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name == "main" for one in tree.body)


def _summary_line(tree: ast.Module) -> str:
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _list(known: Mapping[str, str]) -> None:
    width = max(map(len, known), default=0)
    for name, summary in known.items():
        print(f"{name:{width}}  {summary}")


def run(name: str) -> Outcome | None:
    """Run one in a process of its own; None if it broke."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    try:
        ended = subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, timeout=TIME_LIMIT, check=True)
        outcome: Outcome = json.loads(ended.stdout.decode().strip().rpartition("\n")[2])
    except (subprocess.SubprocessError, ValueError) as error:
        print(f"{name} broke: {error}", file=sys.stderr)
        return None
    return outcome


def _summary(outcomes: Mapping[str, Outcome | None]) -> None:
    for name, outcome in outcomes.items():
        bars = outcome["bars"] if outcome else [{"what": "broke", "value": "-", "bar": "-", "held": False}]
        for bar in bars:
            word = "held  " if bar["held"] else "MISSED"
            print(f"{word}  {name}: {bar['what']}: {bar['value']} (bar {bar['bar']})")


# --- the README ------------------------------------------------------------------------------------------------------


def rewrite(text: str, outcomes: Mapping[str, Outcome]) -> str:
    """The README with a fresh section for every outcome; the other sections stay."""
    for name, outcome in outcomes.items():
        section = f"{_begin(name)}\n{_section(outcome)}\n{_end(name)}"
        old = re.compile(re.escape(_begin(name)) + ".*?" + re.escape(_end(name)), re.DOTALL)
        found = old.search(text)
        text = text[: found.start()] + section + text[found.end() :] if found else f"{text.rstrip()}\n\n{section}\n"
    return text


def _begin(name: str) -> str:
    return f"<!-- begin {name} -->"


def _end(name: str) -> str:
    return f"<!-- end {name} -->"


def _section(outcome: Outcome) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in outcome["machine"].items())
    bars = _table(("what", "value", "bar", "held"), (_bar_row(bar) for bar in outcome["bars"]))
    figures = _table(("figure", "value"), ((f"`{key}`", str(value)) for key, value in outcome["figures"].items()))
    return f"## {outcome['name']}\n\n{machine}.\n\n{bars}\n\n{figures}"


def _bar_row(bar: Mapping[str, Any]) -> tuple[str, ...]:
    held = "yes" if bar["held"] else f"**missed** {bar.get('tried', '')}".strip()
    return bar["what"], str(bar["value"]), bar["bar"], held


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
