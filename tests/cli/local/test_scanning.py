"""`stanch local scan`: malware is looked for with the rules that come along."""

import os
import shutil
import socket
import subprocess
import threading

import pytest

from stanch.cli.scan_text import FOUND, INCOMPLETE

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


def test_clamav_that_is_not_there_is_told(run, planted, no_clamav):
    """It would have been asked: nobody takes "nothing was found" for its word. Without it wanted, nothing is said."""
    told = run("local", "scan", "malware", "--no-gentle", "--path", "look", "--json").json["tally"]["engines"]
    assert "ClamAV's daemon is not there" in told["clamav"]
    line = ("local", "scan", "malware", "--no-gentle", "--path", "look", "--no-clamav", "--json")
    assert "clamav" not in run(*line).json["tally"]["engines"]


def test_clamav_that_says_nothing_is_no_clean_bill(run, planted, silent_clamav):
    """A daemon that takes connections and hangs up: each file is counted, and the exit code says so."""
    ended = run("local", "scan", "malware", "--no-gentle", "--path", "look", "--json")
    assert ended.code == INCOMPLETE
    assert ended.json["tally"]["engines"]["clamav"] == "it does not answer"
    assert ended.json["tally"]["skipped"] == {"other": 2}
    assert all(one["detail"].startswith("ClamAV: ") for one in ended.json["skips"])


@pytest.fixture
def no_clamav(tmp_path, monkeypatch):
    monkeypatch.setattr("stanch.agent.host.clamd.CONFIGS", ())
    monkeypatch.setattr("stanch.agent.host.clamd.SOCKETS", (str(tmp_path / "none"),))


@pytest.fixture
def silent_clamav(tmp_path, monkeypatch):
    """Whoever connects is hung up on."""
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(tmp_path / "clamd"))
        line.listen(1)
        monkeypatch.setattr("stanch.agent.host.clamd.CONFIGS", ())
        monkeypatch.setattr("stanch.agent.host.clamd.SOCKETS", (str(tmp_path / "clamd"),))
        monkeypatch.setattr("stanch.agent.host.clamd._trusted", lambda: {os.geteuid()})

        def hang_up() -> None:
            line.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield
        thread.join()


def test_memory_alone_looks_at_no_files(run, planted):
    """As `malware-scan --only-memory` does; places of files beside it are a mistake, not ignored."""
    ended = run("local", "scan", "malware", "--only-memory", "--dry-run")
    assert ended.code == 0
    assert "Look at: memory of processes" in ended.out
    assert "Look at files" not in ended.out
    wrong = run("local", "scan", "malware", "--only-memory", "--path", "look")
    assert wrong.code == 2
    assert "places of files are named" in wrong.err
