"""Contents are read by kind, as exactly as they are written, or said to be unreadable."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.items import Kind
from stanch.core.ioc.reading import Span, address, boolean, hashed, network, span

DAY = 86400


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), (" 75264 ", 75264), ("-5", -5), ("+5", 5), ("0x1F", 31), ("0XfF", 255), ("-0x10", -16), ("007", 7)],
)
def test_whole_numbers(text, number):
    """Decimal, and hexadecimal with 0x."""
    assert span(text, Kind.INT) == Span(number, number)


@pytest.mark.parametrize("text", ["", "x", "1.5", "1_000", "0x", "1 2", "9" * 200, "\u0661", "nan", "1e3"])
def test_what_is_no_whole_number(text):
    """Anything else is refused, with words."""
    with pytest.raises(ValueError, match=r"number"):
        span(text, Kind.INT)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1_0.5", "", "1,5"])
def test_what_is_no_number(text):
    """Neither infinity nor what is no number can be compared."""
    with pytest.raises(ValueError, match=r"no number"):
        span(text, Kind.FLOAT)


@pytest.mark.parametrize(
    ("text", "low", "length"),
    [
        ("1970-01-01T00:00:00Z", 0, 1),
        ("1970-01-01T00:00:00", 0, 1),
        ("1970-01-01 00:00:01", 1, 1),
        ("1970-01-01T01:00:00+01:00", 0, 1),
        ("1969-12-31T19:00:00-0500", 0, 1),
        ("19700101T000000Z", 0, 1),
        ("1970-01-01T00:01Z", 60, 60),
        ("1970-01-02", DAY, DAY),
        ("1970-02", 31 * DAY, 28 * DAY),
        ("1970-12", 334 * DAY, 31 * DAY),
        ("1970", 0, 365 * DAY),
        ("0001-01-01T00:00:00", -62135596800, 1),
        ("9999-12-31", 253402214400, DAY),
        ("9999-12", 251_400_000_000 + 1_999_622_400 - 0, None),
        ("2014-08-23T08:22:49Z", 1408782169, 1),
    ],
)
def test_dates(text, low, length):
    """ISO 8601, UTC unless a zone is said; what is not said is part of the date."""
    if length is None:
        assert span(text, Kind.DATE).holds(253402214400)
        return
    assert span(text, Kind.DATE) == Span(low, low + length, with_high=False)


def test_fractions_of_a_second_are_exact():
    """Seven digits occur in files of one vendor."""
    assert span("1970-01-01T00:00:00.2500000Z", Kind.DATE) == Span(0.25, 0.25)


@pytest.mark.parametrize("text", ["", "yesterday", "2014-13-01", "2014-02-30", "24:00", "0000-01-01", "10000-01-01"])
def test_what_is_no_date(text):
    """Dates that there are not are refused."""
    with pytest.raises(ValueError, match="no date"):
        span(text, Kind.DATE)


@pytest.mark.parametrize(
    ("text", "low"), [("30", 30), ("PT30S", 30), ("P1DT2H", 93600), ("P2W", 1209600), ("-PT5M", -300), ("pt1h", 3600)]
)
def test_durations(text, low):
    """ISO 8601, or seconds; a whole second is all of it."""
    assert span(text, Kind.DURATION) == Span(low, low + 1, with_high=False)
    assert span("PT1.5S", Kind.DURATION) == span("1.5", Kind.DURATION) == Span(1.5, 1.5)


@pytest.mark.parametrize("text", ["P1Y", "P2M", "P1Y2M3DT4H", "P", "PT", "", "1h"])
def test_what_is_no_duration(text):
    """Years and months have no fixed length."""
    with pytest.raises(ValueError, match=r"duration|length"):
        span(text, Kind.DURATION)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("49600 TO 50700", [49600, 50000, 50700], [49599, 50701]),
        ("[154192 TO 154192]", [154192], [154191, 154193]),
        ("{1 TO 4}", [2, 3], [1, 4]),
        ("[1 TO 4}", [1, 3], [0, 4]),
        ("[* TO 4]", [-(10**9), 4], [5]),
        ("0x10 TO *", [16, 10**12], [15]),
    ],
)
def test_intervals(text, inside, outside):
    """With their ends, unless in braces."""
    between = span(text, Kind.INT)
    assert all(map(between.holds, inside))
    assert not any(map(between.holds, outside))


def test_an_interval_of_dates_ends_with_all_of_its_end():
    """To a day is to its last moment; beyond the ends of a day in braces is the next day."""
    between = span("1970-01-01 TO 1970-01-02", Kind.DATE)
    assert between.holds(2 * DAY - 0.001)
    assert not between.holds(2 * DAY)
    assert span("{1970-01-01 TO 1970-01-03}", Kind.DATE) == Span(DAY, 2 * DAY, True, False)


def test_an_interval_that_ends_before_it_begins():
    """It would never hold: said instead."""
    with pytest.raises(ValueError, match="before it begins"):
        span("5 TO 4", Kind.INT)


@given(st.sampled_from(["1970-01-01", "1970-01", "5 TO 9", "{5 TO 9}", "PT30S", "7"]), st.integers(-(10**6), 10**7))
def test_exactly_one_of_less_is_and_greater(text, value):
    """Whatever is asked, one of the three holds."""
    kind = Kind.DATE if "-" in text else Kind.DURATION if "P" in text else Kind.INT
    between = span(text, kind)
    assert between.below(value) + between.holds(value) + between.above(value) == 1


@pytest.mark.parametrize(("text", "truth"), [("true", True), ("1", True), ("False", False), (" 0 ", False)])
def test_booleans(text, truth):
    """As XML writes them, in any case."""
    assert boolean(text) is truth


def test_addresses_and_networks():
    """Mapped addresses are IPv4, zones and bits below the prefix do not count."""
    assert str(address("::ffff:10.0.0.1")) == str(address(" 10.0.0.1 ")) == "10.0.0.1"
    assert str(address("fe80::1%eth0")) == "fe80::1"
    assert str(network("10.1.2.3/8")) == str(network("::ffff:10.0.0.0/104")) == "10.0.0.0/8"
    assert str(network("10.1.2.3/255.255.0.0")) == "10.1.0.0/16"
    for text in ("", "evil.example", "10.0.0", "10.0.0.1/33", "1" * 5000):
        with pytest.raises(ValueError, match="IP"):
            network(text)


def test_hashes():
    """In any case, with white space; as long as their name asks."""
    md5 = "D41D8CD98F00B204E9800998ECF8427E"
    assert hashed(f" {md5[:16]} {md5[16:]}\n", "Md5sum") == md5.lower()
    with pytest.raises(ValueError, match="32 digits where SHA256 has 64"):
        hashed(md5, "PEInfo/Sha256sum")
    with pytest.raises(ValueError, match="hexadecimal"):
        hashed("z" * 32)


@given(st.text(max_size=80), st.sampled_from([Kind.INT, Kind.FLOAT, Kind.DATE, Kind.DURATION]))
def test_reading_never_fails_otherwise(text, kind):
    """Whatever the text, there is a span or a ValueError."""
    try:
        between = span(text, kind)
    except ValueError:
        return
    assert between.low <= between.high or math.isinf(between.low)
