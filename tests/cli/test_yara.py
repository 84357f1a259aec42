"""`stanch yara scan`: rules for real, on files and processes that are planted."""

import subprocess
import sys

import pytest

from stanch.cli.scan_text import FOUND, INCOMPLETE
from stanch.core.types import EndpointPath

RULE = 'rule planted : demo { strings: $a = "stanch-planted-MARK" condition: $a }\n'
MARK = b"stanch-planted-MARK"


def test_a_wrong_rule_is_named_and_the_others_run(run, planted):
    """With its line."""
    (planted / "rule.yar").write_text(RULE + "rule broken {\n condition: nowhere }\n")
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look")
    assert ended.code == FOUND
    assert "Do not count" in ended.out
    assert "nowhere" in ended.out


def test_memory_of_a_process(run, planted):
    """What is only in the memory of a process is found there."""
    code = "import sys; x = b'stanch-planted-' + b'MARK'; y = x * 3; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--pid", str(process.pid), "--json")
        process.stdin.close()
    assert ended.code == FOUND
    (one,) = ended.json["findings"]
    assert one["objects"][0]["pid"] == process.pid
    assert ended.json["tally"]["files"] == 0


@pytest.mark.parametrize("named", [("--pid", "4194303"), ("--process", "nobody-here"), ("--process", "python3-nope")])
def test_a_process_that_is_not_there(run, planted, named):
    """Nothing found says nothing about it then: it is no clean bill."""
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", *named)
    assert ended.code == INCOMPLETE
    assert f"INCOMPLETE: not looked at: process {named[1]}" in ended.out


def test_a_folder_of_rules(run, planted):
    """Every file of rules in it counts; what is none is left out."""
    (planted / "rules").mkdir()
    (planted / "rules" / "a.yar").write_text(RULE)
    (planted / "rules" / "b.yar").write_text("rule other { condition: false }")
    (planted / "rules" / "README").write_text("nothing of ours")
    ended = run("yara", "scan", "--no-gentle", "--rules", "rules", "--path", "look", "--json")
    assert sorted(one["name"] for one in ended.json["materials"]) == ["rules/a.yar", "rules/b.yar"]


def test_rules_that_all_are_wrong_are_invalid(run, planted):
    """The first problem is told."""
    (planted / "rule.yar").write_text("rule broken { condition: nowhere }")
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look", "--json")
    assert ended.code == 2
    assert "nowhere" in ended.json["error"]["got"]


def test_what_starts_by_itself_is_looked_at(run, planted, monkeypatch):
    """As the order does: beside the places that are named, and never with an area."""

    async def starting():
        return [EndpointPath("/etc/crontab")]

    monkeypatch.setattr("stanch.agent.scan_alone.autoruns", starting)
    ended = run("yara", "scan", "--rules", "rule.yar", "--autoruns", "--path", "look", "--dry-run")
    assert ended.code == 0
    assert "Look at files: /etc/crontab" in ended.out
    assert f"Look at files: {planted / 'look'}" in ended.out
    alone = run("yara", "scan", "--rules", "rule.yar", "--autoruns", "--dry-run").out
    assert "Look at files: /etc/crontab" in alone
    assert "every local file system" not in alone
    wrong = run("yara", "scan", "--rules", "rule.yar", "--autoruns", "--area", "system")
    assert wrong.code == 2
    assert "area of its own" in wrong.err
