"""What a scan tells is bounded, and fits what the agent expects."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stanch.core.scan_wire import MAX_ANSWER
from stanch.core.scanning import Finding, Skip, Tally
from stanch.core.types import EndpointPath
from stanch.worker.scan.telling import Telling, Wire, finding, line, path_text, text
from tests.worker.scan.driving import scan

NOT_ROOT = 12_345


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_so_many_finds_end_it(tmp_path: Path) -> None:
    """It says that it is not complete, and why."""
    for n in range(50):
        put(tmp_path / str(n))
    done = scan(tmp_path, findings=5)
    assert (len(done.findings), done.tally["findings"], done.tally["complete"]) == (5, 5, False)
    assert "5 finds" in done.tally["why_incomplete"]


def test_what_it_says_fits_the_models(tmp_path: Path) -> None:
    """The agent validates each finding, skip and tally with the models of the core."""
    put(tmp_path / "evil")
    os.mkfifo(tmp_path / "fifo")
    done = scan(tmp_path)
    assert [Finding.model_validate(one) for one in done.findings]
    assert [Skip.model_validate(one) for one in done.skips]
    assert Tally.model_validate(done.tally).findings == 1


def wire() -> tuple[Wire, int]:
    """A wire, and where to read what it says."""
    reading, writing = os.pipe()
    return Wire(writing), reading


def test_a_finding_that_is_too_large_loses_reasons() -> None:
    """And a message is never longer than the agent reads."""
    sending, reading = wire()
    telling = Telling(sending, most_findings=10, most_rules=0)
    why = [line("x" * 4000, got="\0" * 4000) for _ in range(200)]
    reader = ThreadPoolExecutor(1).submit(os.read, reading, 2 * MAX_ANSWER)
    telling.finding(finding(engine="yara", rule="R", material="m", objects=[{"name": "o"}], why=why))
    telling.flush()
    assert len(reader.result()) < MAX_ANSWER


def test_paths_can_be_had_back_and_texts_are_harmless() -> None:
    """Odd bytes are escaped; a surrogate that stands for nothing does not stop it."""
    for raw in (b"/\xff", b"/\\x41", "/\u00fc".encode()):
        assert EndpointPath(path_text(raw)).raw == raw
    assert text("\udcff\ud800").encode()
