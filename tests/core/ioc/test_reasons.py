"""Why an indicator matched is told in bounds, and shows what was decisive."""

from stanch.core.ioc.judging import Judge
from tests.core.ioc.judged import every, file, indicator, md5, name, size, some, term


def test_the_branch_shows_what_was_decisive_only():
    """The part of an OR that holds, every part of an AND, with the groups above."""
    root = some(name("zzz"), every(some(name("b"), name("a")), size("5", "greater-than"), md5(negate=True)))
    (match,) = Judge([indicator(root)]).see(file("a", SizeInBytes=7, Md5sum="00" * 16))
    assert [(line.depth, line.text, line.got) for line in match.branch] == [
        (0, "one of", ""),
        (1, "all of", ""),
        (2, "one of", ""),
        (3, str(name("a")), "a"),
        (2, str(size("5", "greater-than")), "7"),
        (2, str(md5(negate=True)), "00" * 16),
    ]


def test_values_are_shortened_and_made_visible():
    """No value steers a terminal or fills a page."""
    root = term("FileItem/FileName", "contains", "evil")
    (match,) = Judge([indicator(root)]).see(file("\x1b[2Jevil\n\u202e" + "x" * 500))
    got = match.branch[-1].got
    assert got.startswith(r"\x1b[2Jevil\n\u202e")
    assert got.endswith("…")
    assert len(got) <= 200
    assert match.branch[-1].item.isprintable()


def test_a_wide_indicator_is_told_in_bounds():
    """Two hundred lines at most."""
    (match,) = Judge([indicator(every(name("a"), *(size(str(n), negate=True) for n in range(5000))))]).see(
        file("a", SizeInBytes=9999)
    )
    assert len(match.branch) == 200


def test_bytes_that_are_no_utf8_are_shown_as_such() -> None:
    r"""As everywhere: `\xff`, not the surrogate that stands for it."""
    from stanch.core.ioc.reasons import shown

    assert shown("a\udcff\x1b", 100) == r"a\xff\x1b"
