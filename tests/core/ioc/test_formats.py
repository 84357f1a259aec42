"""Files of indicators, whatever their format."""

import json

import pytest

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.formats import LARGEST, read_indicators
from tests.core.ioc.openioc_files import OR, file_10, file_11
from tests.core.ioc.test_stix import bundled, indicator


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (file_10(OR), "OpenIOC 1.0"),
        (file_11(OR), "OpenIOC 1.1"),
        (b"\xef\xbb\xbf\r\n " + file_11(OR), "OpenIOC 1.1"),
        (file_11(OR).decode().encode("utf-16"), "OpenIOC 1.1"),
        (bundled(indicator()), "STIX 2.1"),
        (b"\n\n" + bundled(indicator()), "STIX 2.1"),
        (bundled(indicator()).decode().encode("utf-16-be"), "STIX 2.1"),
        (json.dumps(indicator()).encode("utf-8-sig"), "STIX 2.1"),
    ],
)
def test_the_content_tells(data, name):
    """OpenIOC begins with `<`, STIX with a brace, in any encoding of Unicode."""
    assert [one.format for one in read_indicators(data).indicators] == [name]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "got an empty file"),
        (b"rule x {}", "holds no indicators, got a file that begins with b'rule x {}'"),
        (b"<html/>", "no OpenIOC"),
        (b"[]", "no STIX"),
        (b"\0" * 5000, "holds no indicators"),
        (b"<" * (LARGEST + 1), "too large"),
        (b"{" * (LARGEST + 1), "too large"),
    ],
    ids=range(7),
)
def test_what_is_neither(data, said):
    """Says what was expected."""
    with pytest.raises(Unreadable, match=said) as caught:
        read_indicators(data)
    assert caught.value.expected
