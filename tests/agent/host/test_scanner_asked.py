"""A worker that finds something where nobody asked it to look: nothing is done about that, and the scan fails."""

import os
from typing import Any

import pytest

from stanch.agent.host.scanner_areas import Place
from stanch.agent.host.scanner_asked import Asked
from stanch.core.errors import ActionFailed
from stanch.core.scan_wire import OpenedFile
from stanch.core.scanning import Area, Engine, Files, Finding, Object
from stanch.core.types import EndpointPath
from tests.agent.host.scanner_bench import BEGIN, END, Bench, a_scan, events, finding, run

DELETED = OpenedFile(fd=9, name="gone (7)", path="/opt/gone (deleted)", pid=7, started=70)


def asked(**more: Any) -> Asked:
    one = Asked(a_scan(**more), opened=[DELETED], forbidden=[EndpointPath("/srv/secret")])
    one.add([Place("/srv", below=True), Place("/etc/passwd", below=False), Place(os.fsdecode(b"/odd\xff"), below=True)])
    return one


def found(engine: Engine = Engine.YARA, document: str = "FileItem", **more: Any) -> Finding:
    return Finding(engine=engine, rule="evil", objects=(Object(document=document, name="x", **more),))


@pytest.mark.parametrize(
    "path", ["/srv", "/srv/a/b", "/etc/passwd", "/odd\\xff/x", EndpointPath.of(b"/odd\xff/\xfe"), None]
)
def test_what_was_asked_for_is_believed(path: str | None):
    """A named file, and all that is below a folder, odd bytes included."""
    asked().check(found(path=path))


@pytest.mark.parametrize(
    "path", ["/srv2/a", "/etc/shadow", "/etc/passwd/x", "/srv/../etc/shadow", "/srv/secret/x", "/"]
)
def test_what_was_not_asked_for_is_nonsense(path: str):
    """Beside it, above it, out of it by `..`, or below what the owner of the machine forbids."""
    with pytest.raises(ActionFailed, match="nonsense"):
        asked().check(found(path=path))


def test_a_program_without_a_path_is_known_by_its_process():
    """Only what was handed over open, with the very process that it came from."""
    asked().check(found(path="/opt/gone (deleted)", pid=7, started=70))
    for pid, path in ((8, "/opt/gone (deleted)"), (7, "/srv/a"), (7, None)):
        with pytest.raises(ActionFailed, match="nonsense"):
            asked().check(found(path=path, pid=pid, started=70))


def test_processes_are_found_only_if_their_memory_was_asked_for():
    """By indicators always: they judge what the agent itself tells of processes."""
    process = {"document": "ProcessItem", "pid": 1, "started": 1}
    asked(memory=True).check(found(**process))
    asked(pids=(1,)).check(found(**process))
    asked(engines=frozenset({Engine.IOC})).check(found(Engine.IOC, **process))
    with pytest.raises(ActionFailed, match="nonsense"):
        asked().check(found(**process))


def test_an_engine_that_was_not_asked_finds_nothing():
    """What is put away is chosen by whom was asked."""
    with pytest.raises(ActionFailed, match="nonsense"):
        asked().check(found(Engine.CLAMAV, path="/srv/a"))


async def test_a_worker_that_accuses_another_file_fails_the_scan(tmp_path):
    """Whatever it says of the files that it was given, nothing is done by its word about others."""
    place = tmp_path / "place"
    place.mkdir()
    scan = a_scan(files=Files(area=Area.CUSTOM, paths=(EndpointPath(str(place)),)))
    honest = Bench(tmp_path).scanner([*BEGIN, ["all", None], events(finding(path=str(place / "x"))), END])
    assert (await run(honest, scan))[-1].findings == 1
    (tmp_path / "play.lives").unlink()
    liar = Bench(tmp_path).scanner([*BEGIN, ["all", None], events(finding(path="/etc/passwd")), END])
    with pytest.raises(ActionFailed) as error:
        await run(liar, scan)
    assert "/etc/passwd" in str(error.value.got)
