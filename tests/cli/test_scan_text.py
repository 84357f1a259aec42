"""What a scan by hand tells people: bounded, harmless to a terminal, and true about what was not looked at."""

import pytest

from stanch.cli.scan_text import FOUND, INCOMPLETE, MAX_LINES, Seen, finding_lines, progress_line, summary
from stanch.core.content import ContentKind
from stanch.core.scanning import (
    Advance,
    Engine,
    Finding,
    Line,
    Loaded,
    Object,
    Problem,
    Skip,
    SkipReason,
    Tally,
    Unknown,
)
from stanch.core.types import EndpointPath


def finding(**more) -> Finding:
    place = Object(document="FileItem", name="/tmp/\x1b[2Jx", path=EndpointPath("/tmp/x"))
    return Finding(**{"engine": Engine.YARA, "rule": "evil", "objects": (place,)} | more)


def words(seen: Seen, **more) -> str:
    return "\n".join(str(one) for one in summary(seen, **{"all_skips": False} | more))


def test_names_of_files_cannot_move_the_cursor():
    """An escape sequence in a name is shown as one."""
    lines = list(finding_lines(finding(title="\u202etitle", why=(Line(text="$a\r", got="\x07"),))))
    assert all(character.isprintable() for line in lines for character in line)
    assert "\\x1b[2Jx" in lines[1]


def test_a_long_reason_is_cut_and_told():
    """The screen stays readable; JSON has all of it."""
    lines = list(finding_lines(finding(why=tuple(Line(text=f"line {n}") for n in range(50)))))
    assert len(lines) == MAX_LINES + 3
    assert f"{50 - MAX_LINES} lines more" in lines[-1]


@pytest.mark.parametrize(
    ("finds", "complete", "code"),
    [(0, True, 0), (1, True, FOUND), (1, False, FOUND), (0, False, INCOMPLETE)],
)
def test_the_exit_code_says_what_came_of_it(finds, complete, code):
    """0 only if it has looked everywhere and found nothing."""
    seen = Seen()
    seen.take([finding()] * finds)
    seen.take([Tally(complete=complete)])
    assert seen.exit_code == code


def test_what_was_wanted_and_skipped_counts_and_what_was_left_out_does_not():
    """By the rule that orders have, too."""
    for reason, code in ((SkipReason.UNREADABLE, INCOMPLETE), (SkipReason.EXCLUDED, 0), (SkipReason.NOT_REGULAR, 0)):
        seen = Seen()
        seen.take([Tally(skipped={reason: 1})])
        assert (seen.exit_code, seen.as_json(skipped=False)["looked_everywhere"]) == (code, not code)


def test_a_scan_without_an_end_is_incomplete():
    """Whatever stopped it: nothing found says little then."""
    assert Seen().exit_code == INCOMPLETE
    assert "INCOMPLETE" in words(Seen())


def test_what_does_not_count_and_what_is_unknown_is_told_once():
    """The same term of two files is one line, with its number."""
    seen = Seen()
    unknown = Unknown(term="RegistryItem/Path", why="Windows only", times=2)
    for name in ("a.ioc", "b.ioc"):
        problem = Problem(line=3, rule="r", text="undefined")
        loaded = Loaded(name=name, kind=ContentKind.OPENIOC, count=1, problems=(problem,), unknown=(unknown,))
        seen.take([loaded])
    told = words(seen)
    assert told.count("RegistryItem/Path") == 1
    assert "'4'" in told
    assert told.count("undefined") == 2


def test_skips_are_counted_and_listed_on_demand():
    """By reason, with what the reason means."""
    seen = Seen()
    seen.take([Skip(name="/tmp/big", reason=SkipReason.TOO_LARGE), Tally(skipped={SkipReason.TOO_LARGE: 7})])
    assert "/tmp/big" not in words(seen)
    assert "too-large" in words(seen)
    assert "/tmp/big" in words(seen, all_skips=True)
    assert seen.as_json(skipped=True)["skips"][0]["name"] == "/tmp/big"


def test_every_reason_has_its_words():
    """A new one cannot be forgotten."""
    seen = Seen()
    seen.take([Tally(skipped=dict.fromkeys(SkipReason, 1))])
    assert words(seen)


def test_the_progress_is_one_line():
    """Files, bytes, and what is being looked at; or that it waits."""
    seen = Seen()
    seen.take([Advance(files=5, total=10, bytes=3 * 2**20, at="/usr\n/lib")])
    assert progress_line(seen) == "5 of 10 files, 3.0 MiB, /usr\\n/lib"
    seen.take([Advance(files=6, paused=True, why="others wait for io", processes=2)])
    expected = "6 files, 2 processes, waiting: others wait for io (--no-gentle does not wait)"
    assert progress_line(seen) == expected


@pytest.mark.parametrize(
    ("reason", "code"),
    [(SkipReason.UNREADABLE, INCOMPLETE), (SkipReason.CRASHED, INCOMPLETE), (SkipReason.TOO_LARGE, 0)],
)
def test_nothing_found_is_only_0_if_what_was_wanted_could_be_read(reason, code):
    """A scan that had to leave out what it should look at does not end as if it had seen it."""
    seen = Seen()
    seen.take([Tally(skipped={reason: 1})])
    assert seen.exit_code == code


def test_an_interrupted_scan_tells_how_far_it_came():
    """Its numbers are those that were told until then, not zeros."""
    seen = Seen()
    seen.take([finding(), Skip(name="/x", reason=SkipReason.GONE), Advance(files=7, bytes=9)])
    seen.interrupt(90.0)
    told = seen.tally
    assert (told.files, told.bytes, told.findings, told.skipped) == (7, 9, 1, {SkipReason.GONE: 1})
    assert told.seconds == 90.0
    assert not told.complete


def test_skips_that_are_too_many_to_be_listed_are_told(monkeypatch):
    """A list that is cut says by how much."""
    monkeypatch.setattr("stanch.cli.scan_text.MAX_SKIPS", 2)
    seen = Seen()
    seen.take([Skip(name=f"/{n}", reason=SkipReason.GONE) for n in range(5)])
    assert "3 more were skipped" in words(seen, all_skips=True)
    assert seen.as_json(skipped=True)["skips_not_listed"] == 3
