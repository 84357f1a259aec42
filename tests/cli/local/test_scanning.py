"""`stanch local scan`: malware is looked for with the rules that come along."""

import shutil
import subprocess

from stanch.cli.scan_text import FOUND

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!" + b"$H+H*"


def test_malware_is_looked_for_with_the_rules_that_come_along(run, planted):
    """Without --rules: the harmless test file of the industry is found."""
    (planted / "look" / "eicar").write_bytes(EICAR)
    ended = run("local", "scan", "malware", "--no-gentle", "--path", "look", "--no-clamav", "--json")
    assert ended.code == FOUND
    assert {one["objects"][0]["path"] for one in ended.json["findings"]} == {str(planted / "look" / "eicar")}


def test_critical_looks_at_what_runs(run, planted):
    """A program that runs is looked at wherever it lies."""
    program = planted / "sleeper"
    shutil.copy("/bin/sleep", program)
    (planted / "own.yar").write_text('rule sleeper { condition: filename == "sleeper" }')
    with subprocess.Popen([program, "100"]) as process:
        try:
            ended = run(
                "local",
                "scan",
                "critical",
                "--no-gentle",
                "--rules",
                "own.yar",
                "--no-memory",
                "--no-clamav",
                "--json",
            )
        finally:
            process.kill()
    assert ended.code == FOUND
    assert {one["objects"][0]["path"] for one in ended.json["findings"]} == {str(program)}
