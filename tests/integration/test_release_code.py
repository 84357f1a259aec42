"""The release code from end to end: told by the server, typed at the endpoint by somebody who is not root."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from stanch.core.rest import ReleaseCodes
from stanch.demo.lab import HOSTNAME
from stanch.demo.program import wait_until
from stanch.demo.responder import monotonic_of
from stanch.demo.scene import READ_SECONDS
from stanch.demo.stage import AGENT_PLACES, Stage
from tests.integration.test_isolation import client_came_back, heard

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.long]


NOBODY = 65_534
AS_NOBODY = f"""
import json, os, sys
import stanch.cli.failure, stanch.cli.local.commands, stanch.cli.screen
from stanch.cli.main import main
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
sys.exit(main(sys.argv[1:]))
"""
"""Everything is imported before: the interpreter may be where only root may read."""


def typed(stage: Stage, *line: str) -> dict[str, Any]:
    """What `stanch local ... --json` says on the endpoint to a user who is not root."""
    command = [*stage.lab.endpoint.enter, sys.executable, "-c", AS_NOBODY, "local", "isolation", *line, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=dict(AGENT_PLACES))
    assert ended.stdout, ended.stderr
    return json.loads(ended.stdout)


def test_a_user_lets_the_endpoint_back_without_the_server(stage: Stage):
    """The server is gone; wrong codes open nothing, the right one does, and the server hears of it when it is back."""
    task = stage.responder.order("isolate", HOSTNAME, "--duration", "1h")
    told = stage.responder.one(ReleaseCodes, "release-code", HOSTNAME, "--reason", "a test")
    (code,) = [one for one in told.codes if one.in_force]
    assert code.task == task.id
    stage.program("server").stop()
    seen = typed(stage, "status")
    assert (seen["state"], seen["task"]) == ("isolated", task.id)
    assert typed(stage, "release-code", "0000-0000-0000-0000")["error"]["code"] == "denied"
    assert heard(stage, monotonic_of(task.changed) + READ_SECONDS) == {}
    lifted = typed(stage, "release-code", code.code.lower())
    assert (lifted["changed"], lifted["state"]) == (True, "released")
    client_came_back(stage, time.monotonic(), within=30)
    assert typed(stage, "release-code", code.code)["error"]["code"] == "not-found"
    stage.start_server()

    def kinds() -> set[str]:
        found = stage.responder.stanch("detections")
        return {one["kind"] for one in found}

    assert wait_until(lambda: {"release-code-refused", "release-code-used"} <= kinds(), within=90)
