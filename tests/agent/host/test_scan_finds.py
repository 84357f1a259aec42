"""Does `stanch ioc scan` find what is planted for each term of FileItem, ProcessItem and PortItem, and nothing else?"""

import json
import os
import subprocess
import sys
from collections import defaultdict

import pytest

from stanch.core.ioc.terms import DOCUMENTS
from tests.fakes.waiting import PATIENCE

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """All is planted once, in namespaces of its own, and found by one scan."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path_factory.mktemp("finds")
    line = 'ip link set lo up && exec "$0" -m tests.agent.host.scan_finds_planted "$1"'
    apart = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"]
    ended = subprocess.run(
        [*apart, "sh", "-c", line, sys.executable, folder],
        capture_output=True,
        check=False,
        timeout=6 * PATIENCE,
        env={**os.environ, "STANCH_SCAN_CACHE": f"{folder}/cache"},
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


def test_every_term_is_planted(told):
    """No term of the three documents is left out, but the time of birth where no file system keeps it."""
    planted = {case[0] for case in told["cases"]}
    terms = {
        f"{document}/{path}" for document in ("FileItem", "ProcessItem", "PortItem") for path in DOCUMENTS[document]
    }
    assert terms - planted <= {"FileItem/Created"}
    assert not planted - terms


def test_each_finds_what_was_planted_and_nothing_else(told):
    """Of a case, those with a question mark may be found; `?` is whoever has no name here: the scan itself."""
    found = defaultdict(set)
    for one in told["findings"]:
        for thing in one["objects"]:
            pid = str(thing.get("pid") or "")
            found[one["rule"]].add(told["names"].get(pid, "?") if pid else thing["path"])
    wrong = {}
    for term, _condition, content, fits in told["cases"]:
        must = {one for one in fits if not one.endswith("?")}
        may = must | {one.rstrip("?") for one in fits} | ({"?"} & set(fits))
        if not must <= found[term] <= may:
            wrong[term] = (content, sorted(found[term]))
    assert not wrong


def test_nothing_was_unknown(told):
    """Every term is known here, and nothing kept the scan from looking at all of it."""
    assert told["complete"]
    assert not told["skips"]
    assert len(told["materials"]) == len(told["cases"])
    assert not [problem for one in told["materials"] for problem in one["problems"]]
