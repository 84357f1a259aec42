"""Scans by hand: what all of them do, with the real worker and planted files."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from stanch.cli.failure import INTERRUPTED
from stanch.cli.scan_text import FOUND, INCOMPLETE

MARK = b"stanch-planted-MARK"


def test_a_planted_file_is_found_and_nothing_else(run, planted):
    """What is found is named with its rule and the place in the file; the exit code says so."""
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look", "--json")
    assert ended.code == FOUND
    found = ended.json
    assert [(one["rule"], one["objects"][0]["path"]) for one in found["findings"]] == [
        ("planted", str(planted / "look" / "bad file"))
    ]
    assert found["tally"]["files"] == 2
    assert found["complete"]


def test_findings_and_the_summary_are_for_people(run, planted):
    """Plain text, where there is no terminal."""
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look")
    assert "FOUND planted (yara, rule.yar)" in ended.out
    assert str(planted / "look" / "bad file") in ended.out
    assert ended.out.rstrip().endswith("1 found.")
    assert ended.err == ""


def test_nothing_found_is_0(run, planted):
    """A scan that is complete and has found nothing ends well."""
    (planted / "look" / "bad file").unlink()
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look")
    assert ended.code == 0
    assert "Nothing was found." in ended.out


def test_what_was_excluded_is_listed(run, planted):
    """Nothing is left out in silence."""
    ended = run(
        *("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look", "--skipped"),
        *("--exclude", f"{planted}/look/bad*", "--skipped-to", "skips"),
    )
    assert ended.code == 0
    assert str(planted / "look" / "bad file") in ended.out
    rows = [json.loads(line) for line in (planted / "skips").read_text().splitlines()]
    assert [(one["name"], one["reason"]) for one in rows] == [(str(planted / "look" / "bad file"), "excluded")]


def test_a_folder_is_excluded_by_its_name(run, planted):
    """With everything below; signs of patterns in its name stand in brackets."""
    for name in ("sub", "s[x]"):
        (planted / "look" / name).mkdir()
        (planted / "look" / name / "bad").write_bytes(MARK)
    (planted / "look" / "bad file").unlink()
    line = ("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look")
    assert run(*line, "--json").json["found"] == 2
    ended = run(*line, "--json", "--exclude", f"{planted}/look/sub/", "--exclude", f"{planted}/look/s[[]x]")
    assert ended.code == 0
    assert ended.json["tally"]["skipped"] == {"excluded": 2}


def test_a_dry_run_looks_at_nothing(run, planted):
    """It says what would be done."""
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look", "--dry-run")
    assert ended.code == 0
    assert f"Look at files: {planted / 'look'}" in ended.out
    assert "FOUND" not in ended.out


def test_too_many_findings_are_incomplete(run, planted):
    """The limit is told, and the exit code still says that something was found."""
    for n in range(5):
        (planted / "look" / f"more-{n}").write_bytes(MARK)
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look", "--max-findings", "2")
    assert ended.code == FOUND
    assert "INCOMPLETE" in ended.out


def test_a_second_scan_reads_less(run, planted, cache):
    """What is clean and did not change is remembered, unless the scan says otherwise."""
    run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "/usr/share/doc/bash", "--json")
    assert (cache / "remembered").exists()
    again = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look", "--no-cache", "--json").json
    assert again["tally"]["remembered"] == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("yara scan --path look", "--rules"),
        ("yara scan --rules rule.yar --path nowhere", "nothing at this path"),
        ("yara scan --rules rule.yar --path look --area all", "do not fit"),
        ("yara scan --rules rule.yar --area custom", "do not fit"),
        ("yara scan --rules rule.yar --path look --exclude relative", "expected an absolute path"),
        ("yara scan --rules rule.yar --path look --exclude /", "expected a path below /"),
        ("yara scan --rules rule.yar --path look --max-file-size big", "expected bytes"),
        ("yara scan --rules rule.yar --path look --per-object soon", "expected a duration"),
        ("yara scan --rules look/good --path look", "neither rules nor indicators"),
        (
            "ioc scan --path look rule.yar",
            "got YARA rules, expected OpenIOC indicators or a STIX bundle or a list of hashes",
        ),
        ("ioc scan --path look --only Files rule.yar", "no such document"),
        ("ioc scan --path look", "FILE"),
    ],
)
def test_wrong_input_is_named(run, planted, line, says):
    """What was got, what was expected; exit code 2."""
    ended = run(*line.split())
    assert ended.code == 2
    assert says in ended.err


@pytest.mark.parametrize("words", ["ioc scan", "yara scan", "local scan critical", "local scan malware"])
def test_the_help_has_examples_and_exit_codes(run, words):
    """Whoever asks sees how it is used, and what the exit codes mean."""
    ended = run(*words.split(), "--help")
    assert f"stanch {words}" in ended.out
    assert f"{FOUND} if something was found" in " ".join(ended.out.split())
    assert f"{INCOMPLETE} if it could not look" in " ".join(ended.out.split())


def test_a_pipe_by_name_is_refused(run, planted):
    """A path at which nothing can be looked at is wrong input, not a place where nothing was found."""
    os.mkfifo(planted / "pipe")
    ended = run("yara", "scan", "--rules", "rule.yar", "--path", "pipe")
    assert ended.code == 2
    assert "Only files and folders" in ended.err


def test_what_the_scanner_logs_does_not_stand_in_the_json(run, planted, monkeypatch):
    """An account without a home folder, whose scans cannot be remembered: JSON stays JSON, and it is said once."""
    monkeypatch.setenv("STANCH_SCAN_CACHE", "/proc/no-such-folder/scans")
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look", "--json")
    assert ended.json["found"] == 1
    assert ended.err.startswith("warning: what scans learn cannot be kept: ")
    assert len(ended.err.splitlines()) == 1


def test_an_area_of_named_places_may_be_said(run, planted):
    """As the order has it: `--area custom` with the paths means what the paths alone mean."""
    ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--area", "custom", "--path", "look", "--dry-run")
    assert ended.code == 0
    assert f"Look at files: {planted / 'look'}" in ended.out


def test_a_named_path_that_is_left_out_is_no_clean_bill(run, planted):
    """A folder that the kernel makes up is not looked into: whoever names it is told, also by the exit code."""
    (planted / "link").symlink_to("/proc/sys")
    for path in ("/proc/sys", "link"):
        ended = run("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", path)
        assert ended.code == INCOMPLETE
        assert "INCOMPLETE: not looked at: /proc/sys (kernel)" in ended.out


def test_a_name_that_does_not_answer_is_left_to_the_scan(run, planted, monkeypatch):
    """To ask about it may take for ever, and no Ctrl-C would end that: the command goes on, and the scan tells it."""
    answers = threading.Event()
    monkeypatch.setattr("stanch.cli.scanning._PATIENCE", 0.2)
    monkeypatch.setattr("stanch.cli.scanning._kind", lambda _path: answers.wait() and "")
    try:
        ended = run("yara", "scan", "--rules", "rule.yar", "--path", "look", "--dry-run")
    finally:
        answers.set()
    assert ended.code == 0
    assert f"Look at files: {planted / 'look'}" in ended.out


def test_an_interrupt_at_its_very_end_changes_nothing(planted):
    """It has said what was found: it ends with that code, neither by the signal nor with a trace."""
    line = ("yara", "scan", "--no-gentle", "--rules", "rule.yar", "--path", "look")
    with subprocess.Popen(
        [sys.executable, "-m", "stanch.cli.main", *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = next(one for one in process.stdout if one.endswith("found.\n"))
        process.send_signal(signal.SIGINT)
        complaints = process.communicate()[1]
    assert said == "1 found.\n"
    assert process.returncode in {FOUND, INTERRUPTED}
    assert "Traceback" not in complaints
