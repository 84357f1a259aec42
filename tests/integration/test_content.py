"""Rules on their whole way: imported, published, signed, fetched, tried and used by a real agent; and back again."""

from pathlib import Path
from typing import Any

import pytest

from stanch.client.content import Gathered, gather
from stanch.core.rest_content import ForGroups, Publish
from stanch.core.task import State
from tests.integration.stack import LiveAgent, LiveServer

pytestmark = pytest.mark.slow

RULE = 'rule planted { strings: $a = "%s" condition: $a }\n'


async def updated(server: LiveServer, agent: LiveAgent) -> dict[str, Any]:
    """What an update, ordered now, has done."""
    task = await server.api.finished(await server.api.submit("update_content", agent.endpoint, {}))
    assert task.state is State.DONE, task.error
    assert task.result is not None
    return dict(task.result)


async def imported(server: LiveServer, folder: Path, text: str, *, version: int = 1) -> None:
    """The next version of the content, for everybody."""
    gathered = gathered_from(folder, text)
    await server.api.ask(server.api.client.import_content, "planted", gathered)
    await server.api.ask(server.api.client.publish_content, "planted", Publish(version=version))


def gathered_from(folder: Path, text: str) -> Gathered:
    folder.mkdir(exist_ok=True)
    (folder / "rules.yar").write_text(text)
    return gather([folder])


def changes(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(one["name"], one["before"], one["after"], one["refused"]) for one in result["changes"]]


async def test_rules_come_change_go_back_and_go(server: LiveServer, agent: LiveAgent, tmp_path: Path):
    """Each step on the server is what the endpoint has after an update, through the real gateway and its ranges."""
    api = server.api
    large = RULE % "first-mark" + "// " + "x" * 5_000_000 + "\n"
    await imported(server, tmp_path / "rules", large)
    assert changes(await updated(server, agent)) == [("planted", None, 1, None)]
    await imported(server, tmp_path / "rules", RULE % "second-mark", version=2)
    result = await updated(server, agent)
    assert changes(result) == [("planted", 1, 2, None)]
    assert [one["name"] for one in result["installed"]] == ["stanch-base", "stanch-base-hashes", "planted"]
    await api.ask(api.client.roll_back_content, "planted", ForGroups())
    [(name, before, _after, refused)] = changes(await updated(server, agent))
    assert (name, before, refused) == ("planted", 2, None)
    await api.ask(api.client.unpublish_content, "planted", ForGroups())
    assert [one[2] for one in changes(await updated(server, agent))] == [None]
    assert changes(await updated(server, agent)) == []


async def test_a_scan_uses_what_was_published(server: LiveServer, agent: LiveAgent, tmp_path: Path):
    """A planted file is found by a published rule, and by nothing that was not asked for."""
    await imported(server, tmp_path / "rules", RULE % "this-mark-only")
    await updated(server, agent)
    place = tmp_path / "place"
    place.mkdir()
    (place / "planted").write_bytes(b"... this-mark-only ...")
    (place / "clean").write_bytes(b"nothing")
    params = {"content": ["planted"], "path": [str(place)]}
    task = await server.api.finished(await server.api.submit("yara_scan", agent.endpoint, params))
    assert task.state is State.DONE, task.error
    found = (task.result or {})["findings"]
    assert [(one["rule"], one["objects"][0]["path"]) for one in found] == [("planted", str(place / "planted"))]
