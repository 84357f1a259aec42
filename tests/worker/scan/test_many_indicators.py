"""Fifty thousand indicators of each format, one of which a planted file fits: all are read, and it alone is found."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.core.ioc.openioc_files import file_11
from tests.worker.scan.driving import worker

MANY = 50_000
CONTENT = b"planted"
WANTED = 31_337
"""Which of them it is."""
IN_ONE_FILE = {"hashes": MANY, "openioc": 8_000, "stix": 25_000}
"""As many as a file of this format may be large: 3 MiB of OpenIOC, 16 MiB of STIX."""


def md5_of(n: int) -> str:
    """Of the planted file, or of none."""
    data = CONTENT if n == WANTED else f"nothing {n}".encode()
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def a_list(numbers: Sequence[int]) -> bytes:
    """A line for each."""
    return "".join(f"{md5_of(n)} n{n}\n" for n in numbers).encode()


def an_openioc(numbers: Sequence[int]) -> bytes:
    """One of many, as producers of hash indicators write them."""
    terms = "".join(
        f'<IndicatorItem id="{n}" condition="is"><Context document="FileItem" search="FileItem/Md5sum" type="mir"/>'
        f'<Content type="md5">{md5_of(n)}</Content></IndicatorItem>'
        for n in numbers
    )
    return file_11(f'<Indicator id="g" operator="OR">{terms}</Indicator>', key=f"from {numbers[0]}")


def a_bundle(numbers: Sequence[int]) -> bytes:
    """An indicator for each."""
    day = "2024-01-01T00:00:00Z"
    about = {"type": "indicator", "spec_version": "2.1", "created": day, "modified": day, "valid_from": day}
    some = [
        {
            **about,
            "id": f"indicator--{n:08}-0000-4000-8000-000000000000",
            "pattern_type": "stix",
            "pattern": f"[file:hashes.MD5 = '{md5_of(n)}']",
        }
        for n in numbers
    ]
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": some}).encode()


MAKE: dict[str, Callable[[Sequence[int]], bytes]] = {"hashes": a_list, "openioc": an_openioc, "stix": a_bundle}
RULE = {"hashes": f"n{WANTED}", "openioc": "from 24000", "stix": f"indicator--{WANTED:08}-0000-4000-8000-000000000000"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(MAKE))
def test_one_of_fifty_thousand_is_found(tmp_path: Path, kind: str) -> None:
    """Each file is read whole, the content of the files beside it once, and nothing else is found."""
    look = tmp_path / "look"
    look.mkdir()
    (look / "evil").write_bytes(CONTENT)
    for n in range(50):
        (look / f"clean-{n}").write_bytes(b"something else %d" % n)
    step = IN_ONE_FILE[kind]
    parts = [range(n, min(n + step, MANY)) for n in range(0, MANY, step)]
    with worker([(kind, f"{part[0]}.{kind}", MAKE[kind](part)) for part in parts]) as driver:
        driver.targets(look)
        done = driver.finish()
    assert done.found == {(RULE[kind], str(look / "evil"))}
    counted = [one["count"] for one in done.loaded]
    assert counted == ([1] * len(parts) if kind == "openioc" else [len(part) for part in parts])
    assert not [problem for one in done.loaded for problem in one["problems"]]
    assert (done.tally["files"], done.tally["complete"]) == (51, True)
    assert done.tally["bytes"] == sum(one.stat().st_size for one in look.iterdir())
