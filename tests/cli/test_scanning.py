"""Scans by hand: what all of them do, with the real worker and planted files."""

import json
import os

import pytest

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
        ("yara scan --rules rule.yar --path look --exclude relative", "expected an absolute path"),
        ("yara scan --rules rule.yar --path look --max-file-size big", "expected bytes"),
        ("yara scan --rules rule.yar --path look --per-object soon", "expected a duration"),
        ("yara scan --rules look/good --path look", "neither rules nor indicators"),
        ("ioc scan --path look rule.yar", "nothing that this scan can use"),
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
