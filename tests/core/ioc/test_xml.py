"""XML of hostile files."""

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.xml import BLOCK, MAX_DEPTH, MAX_NODES, read

MOST = 3 * 2**20


def parsed(data: bytes):
    """Read with the bound of the field."""
    return read(data, most=MOST)


def test_elements_have_names_attributes_text_and_lines():
    """Names carry their namespace, text is that of the element alone, lines begin at 1."""
    root = parsed(b'<a xmlns="urn:x" k="v">one\n<b> two </b><!-- no -->three</a>')
    assert (root.name, root.namespace, root.local) == ("{urn:x}a", "urn:x", "a")
    assert (root.attributes, root.text, root.line) == ({"k": "v"}, "one\nthree", 1)
    assert root.first("b").line == 2
    assert root.text_of("b") == "two"
    assert root.text_of("c") == ""


def test_a_child_of_another_namespace_is_not_found_by_its_local_name():
    """What is called alike in a foreign vocabulary is something else."""
    assert parsed(b'<a xmlns="urn:x"><b xmlns="urn:y"/></a>').first("b") is None


@pytest.mark.parametrize(
    "data",
    [
        "<a>é</a>".encode(),
        b"\xef\xbb\xbf" + "<a>é</a>".encode(),
        "<a>é</a>".encode("utf-16"),
        "\ufeff<?xml version='1.0' encoding='utf-16'?><a>é</a>".encode("utf-16-be"),
        "<?xml version='1.0' encoding='iso-8859-1'?><a>é</a>".encode("latin-1"),
        "<?xml version='1.0' encoding='windows-1252'?><a>é</a>".encode("cp1252"),
        "<!-- a licence -->\n<?xml version='1.0' encoding='utf-8'?><a>é</a>".encode(),
        b"\xef\xbb\xbf" + "\n<!-- one --> <!-- <?xml?> --><?xml version='1.0'?><a>é</a>".encode(),
        "<!-- no declaration: <?xml version='1.0'?> --><a>é</a>".encode(),
    ],
    ids=["plain", "bom", "utf-16", "utf-16-be", "latin-1", "cp1252", "comment", "comments", "comment-only"],
)
def test_encodings_and_comments_before_the_declaration(data):
    """Expat takes the encoding from mark or declaration; comments may stand before the latter."""
    assert parsed(data).text == "é"


def test_lines_count_from_the_beginning_of_the_file():
    """Also behind a comment that was skipped."""
    data = b"<!-- 1\n2\n3 -->\n<?xml version='1.0'?>\n<a>\n<b/></a>"
    assert parsed(data).first("b").line == 6
    with pytest.raises(Unreadable) as caught:
        parsed(data + b"<")
    assert caught.value.line == 6


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY x "y">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://198.51.100.1/a.dtd">',
        "<!DOCTYPE a>",
    ],
)
def test_a_document_type_is_refused(doctype):
    """So there are no entities, inside or outside."""
    with pytest.raises(Unreadable, match="document type") as caught:
        parsed(f"\n{doctype}<a>&x;</a>".encode())
    assert caught.value.line == 2


def test_an_entity_bomb_is_refused_before_it_opens():
    """A billion of anything never comes to be."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    with pytest.raises(Unreadable, match="document type"):
        parsed(f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]><a>&e11;</a>'.encode())


def test_the_bounds():
    """Exactly the bytes, the depth and the number that are allowed load; one more is refused."""
    assert read(b"<a/>", most=4)
    with pytest.raises(Unreadable, match="too large, got 4 bytes, expected at most 3 bytes"):
        read(b"<a/>", most=3)
    assert parsed(b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH)
    with pytest.raises(Unreadable, match="too deep"):
        parsed(b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1))
    assert parsed(b"<a>" + b"<b/>" * (MAX_NODES - 1) + b"</a>")
    with pytest.raises(Unreadable, match="too many elements"):
        parsed(b"<a>" + b"<b/>" * MAX_NODES + b"</a>")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<a>",
        b"<a></b>",
        b"a",
        b"<a>&nbsp;</a>",
        b"<a b='1' b='2'/>",
        b"<x:a/>",
        b"<a>\xff</a>",
        b"<?xml version='1.0' encoding='nonsense'?><a/>",
        b"<?xml version='1.0' encoding='utf-7'?><a/>",
        b"<?xml version='1.0' encoding='idna'?><a/>",
        b"<?xml version='1.0' encoding='rot13'?><a/>",
        b"<?xml version='1.0' encoding='shift_jis'?><a/>",
        b"<!-- never closed",
        b"<!-- a --><!-- b",
    ],
)
def test_what_is_no_xml_is_named(data):
    """The parser's own words, and nothing but our error."""
    with pytest.raises(Unreadable, match="The file is no XML"):
        parsed(data)


def test_text_in_many_pieces_is_put_together():
    """Comments between single characters cost no more than the file is long."""
    count = 100_000
    assert parsed(b"<a>" + b"x<!---->" * count + b"</a>").text == "x" * count


@given(st.binary(max_size=400) | st.text(alphabet="<>/a!-?[]&;'\"= \n", max_size=200).map(str.encode))
def test_any_bytes_are_xml_or_unreadable(data):
    """Nothing else comes out."""
    with suppress(Unreadable):
        assert parsed(data).local


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-_", max_size=20))
def test_any_encoding_that_is_named_is_read_or_unreadable(name):
    """A declaration chooses among the codecs of Python: none of them may surprise."""
    with suppress(Unreadable):
        assert parsed(f"<?xml version='1.0' encoding='{name}'?><a>x</a>".encode()).text == "x"


@pytest.mark.parametrize("names", [b"<x:a/>", b"<a x:b='1'/>"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_name_of_a_namespace_is_bounded(names, encoding):
    """Said once, every name of it would bear all of it: gigabytes of a file of one megabyte."""
    text = f"<a xmlns:x='{'n' * 200_000}'>{names.decode() * 1000}</a>"
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="namespace is too long, at line 1, got 200000 characters"):
            parsed(text.encode(encoding))
        assert tracemalloc.get_traced_memory()[1] < 20 * len(text)
    finally:
        tracemalloc.stop()


def test_what_stands_at_the_end_of_a_block_is_read_whole():
    """The file is handed on piece by piece, wherever that cuts it."""
    for more in range(-3, 4):
        root = parsed(b"<a><b>" + b"x" * (BLOCK - 10 + more) + "é".encode() * 9 + b"</b></a>")
        assert root.text_of("b") == "x" * (BLOCK - 10 + more) + "é" * 9
