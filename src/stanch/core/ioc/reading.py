"""Contents of terms and values of items, read by kind: numbers, dates, durations, booleans, addresses, hashes.

Every function raises ValueError with words for people if the text is not what it should be; nothing else.

A date is as exact as it is written: `2014-08-23` is that day, `2014-08-23T08:22:49Z` that second. So exactly one of
less, is and greater holds for any value: less is before it begins, greater is from its end on.
"""

import math
import re
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from stanch.core.ioc.items import Kind

MAX_NUMBER = 60
"""Characters of a number, date or address."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_DECEMBER = 12
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]{1,32})|([0-9]{1,40}))", re.ASCII)
_DATE = re.compile(
    r"(\d{4})(?:-?(\d\d)(?:-?(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,12}))?)?"
    r"\s*(Z|[+-]\d\d(?::?\d\d)?)?)?)?)?",
    re.ASCII | re.IGNORECASE,
)
_DURATION = re.compile(
    r"([+-]?)P(?:(\d{1,9})W)?(?:(\d{1,9})D)?(?:T(?=\d)(?:(\d{1,12})H)?(?:(\d{1,12})M)?(?:(\d{1,12}(?:[.,]\d{1,9})?)S)?)?",
    re.ASCII | re.IGNORECASE,
)
_INTERVAL = re.compile(r"\s*([\[{]?)\s*(\S.{0,99}?)\s+TO\s+(\S.{0,99}?)\s*([\]}]?)\s*", re.DOTALL)
_HASH = re.compile(r"[0-9a-f]{8,128}")
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})
_OPEN = "*"


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers from `low` to `high`; the ends belong to it or not."""

    low: float
    high: float
    with_low: bool = True
    with_high: bool = True

    @property
    def point(self) -> bool:
        """Is it one number only? Without one of its ends it is none."""
        return self.low == self.high and self.with_low and self.with_high

    def above(self, value: float) -> bool:
        """Is the value greater than all of it?"""
        return value > self.high if self.with_high else value >= self.high

    def below(self, value: float) -> bool:
        """Is the value less than all of it?"""
        return value < self.low if self.with_low else value <= self.low

    def holds(self, value: float) -> bool:
        """Is the value in it?"""
        return not self.above(value) and not self.below(value)


def span(text: str, kind: Kind) -> Span:
    """A number, date or duration, or an interval: `A TO B`, `[A TO B]`, `{A TO B}` without its ends; `*` is open."""
    both = _INTERVAL.fullmatch(text) if len(text) <= 4 * MAX_NUMBER else None
    if both is None:
        return _one(text, kind)
    first, low, high, last = both.groups()
    begin = Span(-math.inf, -math.inf) if low == _OPEN else _one(low, kind)
    end = Span(math.inf, math.inf) if high == _OPEN else _one(high, kind)
    if begin.low > end.high:
        raise ValueError("an interval that ends before it begins")
    if first == "{" or last == "}":
        return _without_ends(begin, end, first == "{", last == "}")
    return Span(begin.low, end.high, begin.with_low, end.with_high)


def _without_ends(begin: Span, end: Span, no_low: bool, no_high: bool) -> Span:  # noqa: FBT001 - private, two sides of one thing
    low, with_low = (begin.high, not begin.with_high) if no_low else (begin.low, True)
    high, with_high = (end.low, False) if no_high else (end.high, end.with_high)
    return Span(low, high, with_low, with_high)


def _one(text: str, kind: Kind) -> Span:
    stripped = text.strip()
    if len(stripped) > MAX_NUMBER:
        raise ValueError(f"too long for {_A[kind]}")
    if kind is Kind.DATE:
        return _date(stripped)
    if kind is Kind.DURATION:
        return _duration(stripped)
    number = _int(stripped) if kind is Kind.INT else _float(stripped)
    return Span(number, number)


_A = {
    Kind.INT: "a whole number",
    Kind.FLOAT: "a number",
    Kind.DATE: "a date (ISO 8601)",
    Kind.DURATION: "a duration (ISO 8601, or seconds)",
}


def _int(text: str) -> int:
    found = _INT.fullmatch(text)
    if found is None:
        raise ValueError("no whole number (decimal, or hexadecimal with 0x)")
    sign, digits, decimal = found.groups()
    number = int(digits, 16) if digits else int(decimal)
    return -number if sign == "-" else number


def _float(text: str) -> float:
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("no number")
    return number


def _date(text: str) -> Span:
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError("no date (ISO 8601)")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        begin = datetime(
            int(year),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            tzinfo=_zone(zone),
        )
        low = (begin - EPOCH).total_seconds()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no date that there is: {error}") from None
    if fraction:
        low += float(f"0.{fraction}")
        return Span(low, low)
    return Span(low, low + _unit(begin, month, day, hour, second), with_high=False)


def _zone(text: str | None) -> timezone:
    if text is None or text.upper() == "Z":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[-2:] if len(text) > 3 else 0)  # noqa: PLR2004 - sign and hours
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def _unit(begin: datetime, month: str | None, day: str | None, hour: str | None, second: str | None) -> float:
    """Seconds from the beginning of what is named to its end."""
    if second:
        return 1
    if hour:
        return 60
    if day:
        return 86400
    if begin.year == MAXYEAR:
        return 86400 * (31 if month else 366)
    next_year = begin.replace(year=begin.year + 1, month=1)
    after = begin.replace(month=begin.month + 1) if month and begin.month < _DECEMBER else next_year
    return (after - begin).total_seconds()


def _duration(text: str) -> Span:
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()[1:]):
        return _plain_seconds(text)
    sign, weeks, days, hours, minutes, seconds = found.groups()
    whole = int(weeks or 0) * 604800 + int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes or 0) * 60
    exact = (seconds or "0").replace(",", ".")
    total = whole + float(exact)
    return _seconds(-total if sign == "-" else total, exact="." in exact)


def _plain_seconds(text: str) -> Span:
    if re.search(r"P\d*[YM]|P\d+Y\d*M?", text, re.IGNORECASE) or re.match(r"[+-]?P.*\d[YM]", text, re.IGNORECASE):
        raise ValueError("years and months have no fixed length: say it in days")
    try:
        number = _float(text)
    except ValueError:
        raise ValueError("no duration (ISO 8601, or seconds)") from None
    return _seconds(number, exact="." in text)


def _seconds(number: float, *, exact: bool) -> Span:
    return Span(number, number) if exact else Span(number, number + 1, with_high=False)


def boolean(text: str) -> bool:
    """True or false, as indicators write it."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return word in _TRUE


def address(text: str) -> Address:
    """An address without its zone; IPv4 that is mapped into IPv6 as IPv4."""
    try:
        one = ip_address(text.strip()[:MAX_NUMBER].partition("%")[0])
    except ValueError:
        raise ValueError("no IP address") from None
    return (one.ipv4_mapped or one) if isinstance(one, IPv6Address) else one


def network(text: str) -> Network:
    """An address, or a network in CIDR notation (or with a netmask); bits below the prefix do not count."""
    stripped = text.strip()[: 2 * MAX_NUMBER]
    if "/" not in stripped:
        return ip_network(address(stripped))
    try:
        one = ip_network(stripped, strict=False)
    except ValueError:
        raise ValueError("neither an IP address nor a network") from None
    mapped = one.network_address.ipv4_mapped if isinstance(one, IPv6Network) else None
    return ip_network(f"{mapped}/{one.prefixlen - 96}") if mapped and one.prefixlen >= 96 else one  # noqa: PLR2004 - ::ffff:0:0/96


_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


def hashed(text: str, path: str = "") -> str:
    """Hexadecimal digits in lower case without white space; as many as the name of the path asks for, if it does."""
    if _HASH.fullmatch(text):
        digits = text
    else:
        digits = "".join(text[:500].split()).lower()
        if not _HASH.fullmatch(digits):
            raise ValueError("no hash (hexadecimal digits)")
    name = path.rpartition("/")[2].lower()
    for kind, length in _DIGITS.items():
        if name.startswith(kind) and len(digits) != length:
            raise ValueError(f"a hash of {len(digits)} digits where {kind.upper()} has {length}")
    return digits
