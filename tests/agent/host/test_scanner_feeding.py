"""What the worker is given, and what it is not given."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from stanch.agent.host.scanner_feeding import Feeder
from stanch.core.errors import ActionFailed, Invalid, VerificationFailed
from stanch.core.ioc.items import NOT_LOOKED_AT, Item
from stanch.core.scan_wire import OpenedFile
from stanch.core.scanning import (
    Area,
    Files,
    Limits,
    Skip,
    SkipReason,
)
from stanch.core.types import EndpointPath, Exclusion
from tests.agent.host.scanner_bench import BEGIN, END, LOADED, Bench, a_scan, events, material, run

SLEEP = Path("/bin/sleep").resolve()


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


async def test_the_worker_is_given_the_job_the_bytes_and_the_names(bench):
    """The rules arrive whole, the folders are named, and `all` says that there is no more."""
    data = os.urandom(700_000)
    scan = a_scan(
        materials=(material(data),),
        files=Files(
            area=Area.CUSTOM,
            paths=(EndpointPath("/tmp"),),
            exclude=(Exclusion("/tmp/a*"), Exclusion("/tmp/c/"), Exclusion("/tmp/b/**")),
            max_size=5,
        ),
        fast=True,
        limits=Limits(per_object=timedelta(seconds=7), findings=3),
    )
    await run(bench.scanner([*BEGIN, ["all", None], END]), scan)
    (job,) = bench.jobs()
    assert (job["exclude"], job["max_size"], job["fast"], job["per_object"], job["findings"]) == (
        ["/tmp/a*", "/tmp/a*/**", "/tmp/c", "/tmp/c/**", "/tmp/b/**"],
        5,
        True,
        7,
        3,
    )
    assert next(one for one in bench.log if "material" in one)["content"].encode("latin-1") == data
    assert bench.heard("targets") == [{"type": "targets", "paths": ["/tmp"], "below": True}]


async def test_bytes_that_are_not_what_was_ordered_end_the_scan(bench):
    """The hash of the rules is compared while they are handed over."""
    with pytest.raises(VerificationFailed):
        await run(bench.scanner([*BEGIN, ["hang", None]]), a_scan(materials=(material(sha256="0" * 64),)))


async def test_rules_that_are_too_short_end_the_scan(bench):
    """A file that shrank since it was measured is not scanned with."""
    data = b"rule a { condition: true }"
    with pytest.raises(ActionFailed, match="shorter"):
        await run(bench.scanner([*BEGIN, ["hang", None]]), a_scan(materials=(material(data, size=100),)))


async def test_only_what_is_wanted_is_collected(bench):
    """Collectors run for the documents that the worker names, with its paths, unless the scan leaves them out."""
    asked = []

    def collector(name):
        async def collect(paths):
            asked.append((name, paths))
            yield [Item(document=name, name=f"{name} {n}", values={"a": (n,)}, about={"pid": 1}) for n in range(250)]

        return collect

    bench.more["collectors"] = {name: collector(name) for name in ("PortItem", "UserItem", "DiskItem", "FileItem")}
    documents = {"PortItem": ["a", "b"], "UserItem": ["a"], "FileItem": ["FullPath"]}
    wants = ["say", {"type": "wants", "documents": documents, "files": False}]
    await run(bench.scanner([["open", None], LOADED, wants, ["all", None], END]), a_scan(documents={"UserItem": False}))
    assert asked == [("PortItem", frozenset({"a", "b"}))]
    sent = [one for message in bench.heard("items") for one in message["items"]]
    assert len(sent) == 250
    assert sent[7] == {"document": "PortItem", "name": "PortItem 7", "values": {"a": [7]}, "about": {"pid": 1}}
    assert not bench.heard("targets")


async def test_a_document_that_cannot_be_known_is_told(bench):
    """The scan goes on without it."""

    async def collect(_paths):
        raise Invalid("no table")
        yield []

    bench.more["collectors"] = {"PortItem": collect}
    wants = ["say", {"type": "wants", "documents": {"PortItem": ["a"]}, "files": False}]
    told = await run(bench.scanner([["open", None], LOADED, wants, ["all", None], END]))
    assert [one.name for one in told if isinstance(one, Skip)] == ["PortItem"]
    assert not told[-1].complete
    assert "PortItem" in told[-1].why_incomplete


@pytest.mark.parametrize("there", [True, False])
async def test_what_came_before_a_document_failed_is_judged_and_the_rest_is_not_known(bench, there):
    """The items that came are sent, then one of which nothing is known: only that if nobody collects them."""

    async def collect(_paths):
        yield [Item(document="PortItem", name="first", values={"a": (1,)})]
        raise Invalid("no more")

    bench.more["collectors"] = {"PortItem": collect} if there else {}
    wants = ["say", {"type": "wants", "documents": {"PortItem": ["a"]}, "files": False}]
    told = await run(bench.scanner([["open", None], LOADED, wants, ["all", None], END]))
    sent = [one for message in bench.heard("items") for one in message["items"]]
    assert [one["name"] for one in sent] == ["first"] * there + [NOT_LOOKED_AT]
    assert sent[-1]["values"] == {}
    assert not told[-1].complete


async def test_files_that_are_not_scanned_are_not_known(bench):
    """An indicator that denies something of a file says nothing where no files are looked at; that was asked for."""
    wants = ["say", {"type": "wants", "documents": {"FileItem": ["FullPath"]}, "files": True}]
    told = await run(bench.scanner([["open", None], LOADED, wants, ["all", None], END]), a_scan(files=None))
    assert [one for message in bench.heard("items") for one in message["items"]] == [
        {"document": "FileItem", "name": NOT_LOOKED_AT, "values": {}, "about": {}}
    ]
    assert told[-1].complete


async def test_the_memory_of_a_forbidden_program_is_left_out_and_told(bench):
    """What runs below a forbidden folder is not named to the worker, which also gets the folder as a pattern."""
    folder = str(SLEEP.parent)
    child = await asyncio.create_subprocess_exec(SLEEP, "60")
    try:
        bench.more["forbidden"] = lambda: (EndpointPath(folder),)
        scan = a_scan(files=None, memory=True, pids=(child.pid,))
        told = await run(bench.scanner([*BEGIN, ["all", None], END]), scan)
    finally:
        child.kill()
        await child.wait()
    assert [(one.name, one.reason) for one in told if isinstance(one, Skip)] == [
        (f"sleep ({child.pid})", SkipReason.FORBIDDEN)
    ]
    assert not bench.heard("processes")
    assert bench.jobs()[0]["forbidden"] == [folder, f"{folder}/**"]


async def test_what_the_owner_forbids_is_left_out_and_told(bench):
    """A named path is not sent; one below a folder is left out by the worker, and told as forbidden."""
    secret, inside = bench.folder / "secret*", bench.folder / "open" / "private"
    secret.mkdir()
    inside.mkdir(parents=True)
    bench.more["forbidden"] = lambda: (EndpointPath(str(secret)), EndpointPath(str(inside)))
    left_out = events(["skip", {"name": str(inside), "reason": "excluded"}])
    tally = ["say", {"type": "end", "tally": {"skipped": {"excluded": 1}}, "error": ""}]
    paths = (EndpointPath(str(secret / "x")), EndpointPath(str(bench.folder / "open")))
    scan = a_scan(files=Files(area=Area.CUSTOM, paths=paths))
    told = await run(bench.scanner([*BEGIN, ["all", None], left_out, tally]), scan)
    assert {one.name for one in told if isinstance(one, Skip) and one.reason is SkipReason.FORBIDDEN} == {
        str(secret / "x"),
        str(inside),
    }
    assert told[-1].skipped == {SkipReason.FORBIDDEN: 2}
    assert bench.heard("targets") == [{"type": "targets", "paths": [str(bench.folder / "open")], "below": True}]
    assert bench.jobs()[0]["exclude"] == [str(bench.folder / "secret[*]"), str(inside)]


async def test_our_own_memory_is_not_looked_into(bench):
    """A process that is named and is ours is skipped, and told; one that is not there is gone."""
    scan = a_scan(files=None, memory=True, pids=(os.getpid(), 4_194_303))
    told = await run(bench.scanner([*BEGIN, ["all", None], END]), scan)
    assert {(one.name, one.reason) for one in told if isinstance(one, Skip)} == {
        (f"process {os.getpid()}", SkipReason.OTHER),
        ("process 4194303", SkipReason.GONE),
    }
    assert not bench.heard("processes")


def test_what_the_owner_forbids_is_left_out_of_open_files_too():
    """A deleted program and the first sectors of a disk are held by descriptor, and keep the name that is forbidden."""
    told = list[Skip]()
    names = {"gone": "/secret/x (deleted)", "kept": "/opt/x (deleted)", "/dev/vda: its first 1 MiB": ""}
    held = [OpenedFile(fd=9, name=name, path=path, pid=0, started=0) for name, path in names.items()]
    forbidden = (EndpointPath("/secret"), EndpointPath("/dev/vda"))
    allowed = Feeder._allowed_open(SimpleNamespace(opened=held, forbidden=forbidden, tell=told.extend))
    assert [one["name"] for one in allowed] == ["kept"]
    assert [(one.name, one.reason) for one in told] == [
        ("/secret/x", SkipReason.FORBIDDEN),
        ("/dev/vda", SkipReason.FORBIDDEN),
    ]
