"""Scans on their whole way: an order with a file, a real server, a real agent and its scanner, and the answer."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stanch.core.task import State
from tests.integration.stack import LiveAgent, LiveServer, until

pytestmark = pytest.mark.slow

MARK = b"a-mark-that-nothing-else-has"
RULE = b'rule planted { strings: $a = "%b" condition: $a }\n' % MARK


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with one planted file among others."""
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "planted").write_bytes(b"... " + MARK + b" ...")
    (folder / "clean").write_bytes(b"nothing")
    return folder


async def uploaded(server: LiveServer, folder: Path, name: str, content: bytes) -> dict[str, Any]:
    """A file of the responder's, as an order names it."""
    (folder / name).write_bytes(content)
    upload = await server.api.ask(server.api.client.upload, folder / name)
    return dict(upload.model_dump(mode="json"))


async def scanned(server: LiveServer, agent: LiveAgent, action: str, params: dict[str, Any]) -> dict[str, Any]:
    """What a scan answers that ends well."""
    return dict((await server.api.run(action, agent.endpoint, params)).result or {})


async def rules_in(server: LiveServer, folder: Path) -> dict[str, Any]:
    return {"rules": [await uploaded(server, folder, "planted.yar", RULE)]}


@contextmanager
def running(program: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A planted program that runs: a copy of sleep with the mark behind it."""
    shutil.copy("/bin/sleep", program)
    with program.open("ab") as file:
        file.write(MARK)
    process = subprocess.Popen([program, "1000"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def detections(server: LiveServer) -> list[tuple[str, dict[str, Any]]]:
    """Of scans, the newest first."""
    found = await server.api.ask(lambda: list(server.api.client.detections()))
    return [(one.kind, dict(one.detail)) for one in found if one.kind.endswith("-found")]


async def test_what_is_planted_is_found_once_and_told(
    server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path
):
    """The planted file and no other; why, with the string; and one detection that names the file."""
    result = await scanned(server, agent, "yara_scan", {**await rules_in(server, tmp_path), "path": [str(place)]})
    [found] = result["findings"]
    assert found["objects"][0]["path"] == str(place / "planted")
    assert MARK.decode() in found["why"][0]["got"]
    assert (result["complete"], result["files"]) == (True, 2)
    [(kind, detail)] = await until_told(server)
    assert (kind, detail["found"]) == ("yara-found", 1)
    assert detail["findings"][0]["objects"][0]["path"] == str(place / "planted")


async def until_told(server: LiveServer) -> list[tuple[str, dict[str, Any]]]:
    """Detections come beside the answer."""
    await until(lambda: any(one.kind.endswith("-found") for one in server.api.client.detections()))
    return await detections(server)


async def test_a_dry_run_needs_no_upload(server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path):
    """Nothing is sent to the server for a plan, and the plan names the file all the same."""
    rules = await rules_in(server, tmp_path)
    rules["rules"][0]["id"] = "not-uploaded"
    for action in ("yara_scan", "malware_scan"):
        order = await server.api.submit(action, agent.endpoint, {**rules, "path": [str(place)]}, dry_run=True)
        task = await server.api.finished(order)
        assert task.state is State.DONE, task.error
        assert "planted.yar" in json.dumps(task.result)


async def test_a_second_scan_reads_nothing_again(server: LiveServer, agent: LiveAgent, tmp_path: Path):
    """A file that did not change since is known, unless the order asks for everything anew."""
    params = {**await rules_in(server, tmp_path), "path": ["/usr/share/common-licenses"]}
    first = await scanned(server, agent, "yara_scan", params)
    second = await scanned(server, agent, "yara_scan", params)
    assert first["bytes"] > 0
    assert (second["files"], second["remembered"], second["bytes"]) == (first["files"], first["files"], 0)
    anew = await scanned(server, agent, "yara_scan", {**params, "cache": False})
    assert anew["bytes"] == first["bytes"]


async def test_a_named_place_that_is_missing_is_no_clean_bill(server: LiveServer, agent: LiveAgent, tmp_path: Path):
    """A typing error in a path, a pid and a name: not complete, and the answer says of which."""
    rules, missing = await rules_in(server, tmp_path), f"{tmp_path}/missing/"
    for params, said in (
        ({"path": [missing]}, missing),
        ({"pid": [4194303]}, "4194303"),
        ({"process": ["nosuch"]}, "nosuch"),
    ):
        result = await scanned(server, agent, "yara_scan", {**rules, **params})
        assert not result["complete"]
        assert said in result["why_incomplete"]


async def test_all_finds_are_evidence(server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path):
    """Of 1,100 finds the first 1,000 are in the answer, and each is in what can be fetched."""
    for n in range(1099):
        (place / f"more-{n}").write_bytes(MARK)
    result = await scanned(server, agent, "yara_scan", {**await rules_in(server, tmp_path), "path": [str(place)]})
    assert (result["found"], result["complete"]) == (1100, True)
    assert 0 < len(result["findings"]) <= 1000
    [piece] = result["findings_evidence"]
    assert piece["size"] > 0


async def test_finds_go_into_the_vault_and_come_back(server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path):
    """`order undo` brings every file back as it was."""
    before = (place / "planted").read_bytes()
    params = {**await rules_in(server, tmp_path), "path": [str(place)], "quarantine": True}
    order = await server.api.submit("malware_scan", agent.endpoint, params)
    task = await server.api.finished(order)
    assert task.state is State.DONE, task.error
    assert not (place / "planted").exists()
    assert (place / "clean").exists()
    back = await server.api.finished(await server.api.ask(server.api.client.undo, order.id))
    assert back.state is State.DONE, back.error
    assert (place / "planted").read_bytes() == before


async def test_who_runs_a_find_is_ended_though_it_stays(
    server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path
):
    """`--end-processes` alone ends the very process, and takes no file away."""
    with running(place / "program") as planted, running(tmp_path / "elsewhere") as other:
        params = {**await rules_in(server, tmp_path), "path": [str(place)], "end_processes": True}
        result = await scanned(server, agent, "malware_scan", params)
        assert [one["pid"] for one in result["ended"]] == [planted.pid]
        assert planted.wait(10) == -9
        assert other.poll() is None
        assert (place / "program").exists()


async def test_malware_that_deleted_itself_is_ended(server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path):
    """A program that runs without a path is found among what runs, kept in the vault, and its process ended."""
    with running(place / "program") as planted:
        (place / "program").unlink()
        params = {**await rules_in(server, tmp_path), "memory": False, "quarantine": True, "end_processes": True}
        result = await scanned(server, agent, "critical_areas_scan", params)
        assert planted.pid in result["ended_pids"]
        assert planted.wait(10) == -9
        assert [one["path"] for one in result["removed"]] == [str(place / "program")]


async def test_a_scan_that_is_cancelled_leaves_no_scanner(
    server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path
):
    """It ends at once, and what it had found is told."""
    params = {**await rules_in(server, tmp_path), "path": [str(place), "/usr"], "cache": False}
    order = await server.api.submit("yara_scan", agent.endpoint, params)
    client, task = server.api.client, order.tasks[0].id
    await until(lambda: client.task(task).state is State.RUNNING and scanners(agent))
    await server.api.ask(client.cancel, order.id)
    assert (await server.api.finished(order)).state is State.CANCELLED
    await until(lambda: not scanners(agent))


def scanners(agent: LiveAgent) -> list[int]:
    """Scanners below the supervisor of this agent."""
    found, above = list[int](), [agent.programs[-1].process.pid]
    while above:
        pid = above.pop()
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            above += map(int, thread.read_text().split())
        if b"stanch.worker.scan" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    return found


@pytest.mark.parametrize("wrong", [b"", b"%PDF-1.4\n%\xe2\xe3\n1 0 obj\n", b"\x00\x01" * 500, b"\x89PNG\r\n\x1a\n"])
async def test_what_are_no_rules_is_refused(server: LiveServer, agent: LiveAgent, tmp_path: Path, wrong: bytes):
    """It is refused by the name of the file, with what was expected and what to do."""
    rules = [await uploaded(server, tmp_path, "wrong.bin", wrong)]
    task = await server.api.finished(await server.api.submit("yara_scan", agent.endpoint, {"rules": rules}))
    assert task.state is State.REFUSED
    assert task.error is not None
    assert "wrong.bin" in task.error.message
    assert task.error.expected == "YARA rules"
    assert task.error.hint


async def test_a_forbidden_folder_is_not_opened_and_told(
    server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path
):
    """The owner's policy: what is below it is not found, and its place is among the skips."""
    secret = place / "secret"
    secret.mkdir()
    (secret / "planted-too").write_bytes(MARK)
    (agent.state.parent / "agent.toml").write_text(f'[paths]\nforbid = ["{secret}"]\n')
    result = await scanned(server, agent, "yara_scan", {**await rules_in(server, tmp_path), "path": [str(place)]})
    assert [one["objects"][0]["path"] for one in result["findings"]] == [str(place / "planted")]
    assert (str(secret), "forbidden") in [(one["name"], one["reason"]) for one in result["skips"]]
