"""STIX patterns, read into the tree."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc import stix_pattern
from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.expression import Expression, Group, Term, depth_of
from stanch.core.ioc.stix_pattern import MAX_DEPTH, MAX_PATTERN, read_pattern


def said(part: Expression) -> str:
    """A tree on one line."""
    if isinstance(part, Term):
        return str(part)
    return f" {part.operator} ".join(f"({said(one)})" if isinstance(one, Group) else said(one) for one in part.parts)


def read(pattern: str) -> str:
    """A pattern, read, on one line."""
    return said(read_pattern(pattern))


COMPARISONS = {
    "file:name = 'a'": "FileItem/FileName is a",
    "file:name != 'a'": "FileItem/FileName is not a",
    "file:name NOT = 'a'": "FileItem/FileName is not a",
    "file:name NOT != 'a'": "FileItem/FileName is a",
    "file:size > 5": "FileItem/SizeInBytes is greater than 5",
    "file:size < 5": "FileItem/SizeInBytes is less than 5",
    "file:size >= 5": "FileItem/SizeInBytes is greater than 5 OR FileItem/SizeInBytes is 5",
    "file:size <= -5": "FileItem/SizeInBytes is less than -5 OR FileItem/SizeInBytes is -5",
    "file:size NOT >= 5": "FileItem/SizeInBytes is less than 5",
    "file:size NOT <= 5": "FileItem/SizeInBytes is greater than 5",
    "file:size NOT > 5": "FileItem/SizeInBytes is less than 5 OR FileItem/SizeInBytes is 5",
    "file:name IN ('a', 'b')": "FileItem/FileName is a OR FileItem/FileName is b",
    "file:name NOT IN ('a', 'b')": "FileItem/FileName is not a AND FileItem/FileName is not b",
    "file:name IN ('a')": "FileItem/FileName is a",
    "file:name LIKE 'a'": "FileItem/FileName is a",
    "file:name LIKE 'a%'": "FileItem/FileName starts with a",
    "file:name LIKE '%a'": "FileItem/FileName ends with a",
    "file:name LIKE '%a%'": "FileItem/FileName contains a",
    "file:name NOT LIKE '%a'": "FileItem/FileName does not end with a",
    "file:name LIKE 'a.%b_'": r"FileItem/FileName matches ^a\.(.|\n)*b(.|\n)$",
    "file:name LIKE '%'": r"FileItem/FileName matches ^(.|\n)*$",
    r"file:name MATCHES '^a\\.b$'": r"FileItem/FileName matches ^a\.b$",
    "file:name NOT MATCHES 'a'": "FileItem/FileName does not match a",
    r"file:name = 'it\'s \\'": "FileItem/FileName is it's \\",
    "file:name = ''": "FileItem/FileName is ",
    "EXISTS file:name": "FileItem/FileName matches ^",
    "NOT EXISTS file:size": "FileItem/SizeInBytes is not * TO *",
    "EXISTS process:created_time": "ProcessItem/startTime is * TO *",
    "file:created > t'2026-01-02T03:04:05Z'": "FileItem/Created is greater than 2026-01-02T03:04:05Z",
    "file:hashes.MD5 = 'aa'": "FileItem/Md5sum is aa",
    "file:hashes.'SHA-256' = 'aa'": "FileItem/Sha256sum is aa",
    "file:hashes.SHA1 = 'aa'": "FileItem/Sha1sum is aa",
    "file:hashes.'SHA-512' = 'aa'": "STIX/file:hashes.SHA-512 is aa",
    "file:hashes.MD5 = h'0a'": "FileItem/Md5sum is 0a",
    "file:parent_directory_ref.path = '/tmp'": "FileItem/FilePath is /tmp",
    "directory:path = '/tmp'": "FileItem/FilePath is /tmp",
    "file:mime_type = 'x'": "STIX/file:mime_type is x",
    "x-ours:a.b[3].c[*] = true": "STIX/x-ours:a.b.c is true",
    "process:image_ref.hashes.MD5 = 'aa'": "ProcessItem/Md5sum is aa",
    "network-traffic:protocols[*] = 'tcp'": "PortItem/protocol is tcp",
    "user-account:user_id = '0'": "UserItem/SecurityID is 0",
    "user-account:extensions.'unix-account-ext'.shell = '/bin/sh'": "UserItem/shell is /bin/sh",
    "ipv4-addr:value ISSUBSET '198.51.100.0/24'": (
        "PortItem/remoteIP is 198.51.100.0/24 OR ArpEntryItem/IPv4Address is 198.51.100.0/24"
        " OR DnsEntryItem/RecordData/IPv4Address is 198.51.100.0/24"
    ),
    "ipv6-addr:value ISSUPERSET '2001:db8::1/128'": (
        "PortItem/remoteIP is 2001:db8::1 OR ArpEntryItem/IPv6Address is 2001:db8::1"
        " OR DnsEntryItem/RecordData/IPv6Address is 2001:db8::1"
    ),
    "mac-addr:value != '02:00:00:00:00:01'": (
        "ArpEntryItem/PhysicalAddress is not 02:00:00:00:00:01 AND SystemInfoItem/MAC is not 02:00:00:00:00:01"
    ),
    "domain-name:resolves_to_refs[*].value NOT ISSUBSET '10.0.0.0/8'": (
        "DnsEntryItem/RecordData/IPv4Address is not 10.0.0.0/8"
        " AND DnsEntryItem/RecordData/IPv6Address is not 10.0.0.0/8"
    ),
    "network-traffic:dst_port = 4444": "PortItem/remotePort is 4444 OR PortItem/localPort is 4444",
    "process:opened_connection_refs[0].src_ref.value = '10.0.0.1'": (
        "ProcessItem/PortList/PortItem/localIP is 10.0.0.1 OR ProcessItem/PortList/PortItem/remoteIP is 10.0.0.1"
    ),
}


@pytest.mark.parametrize(("comparison", "tree"), COMPARISONS.items(), ids=COMPARISONS)
def test_comparisons(comparison, tree):
    """Each operator and kind of literal, at the place where the property is found here."""
    assert read(f"[{comparison}]") == tree


def test_exists_asks_for_addresses_of_both_families():
    """Any address at all."""
    assert "remoteIP is 0.0.0.0/0" in read("[EXISTS ipv4-addr:value]")
    assert "remoteIP is ::/0" in read("[EXISTS ipv4-addr:value]")


def test_the_ends_of_a_connection_are_turned_together():
    """Either the endpoint connected, or somebody connected to it; never half of each."""
    assert read("[network-traffic:dst_ref.value = '10.0.0.1' AND network-traffic:dst_port = 443]") == (
        "(PortItem/remoteIP is 10.0.0.1 AND PortItem/remotePort is 443)"
        " OR (PortItem/localIP is 10.0.0.1 AND PortItem/localPort is 443)"
    )


def test_logic_within_an_observation():
    """AND binds closer than OR, parentheses closest; chains stay flat."""
    assert read("[file:size = 1 OR file:size = 2 AND file:size = 3 OR file:size = 4]") == (
        "FileItem/SizeInBytes is 1 OR (FileItem/SizeInBytes is 2 AND FileItem/SizeInBytes is 3)"
        " OR FileItem/SizeInBytes is 4"
    )
    assert read("[(file:size = 1 OR file:size = 2) AND file:size = 3]") == (
        "(FileItem/SizeInBytes is 1 OR FileItem/SizeInBytes is 2) AND FileItem/SizeInBytes is 3"
    )
    long = read_pattern("[" + " OR ".join(f"file:size = {n}" for n in range(2000)) + "]")
    assert [one.content for one in long.parts] == [str(n) for n in range(2000)]
    assert depth_of(long) == 2


def test_logic_between_observations():
    """OR of anything; AND of different kinds of items."""
    assert read(
        "[file:name = 'a'] AND ([process:name = 'b'] OR [file:size = 1])".replace("file:size", "process:pid")
    ) == ("FileItem/FileName is a AND (ProcessItem/name is b OR ProcessItem/pid is 1)")
    assert read("[file:name = 'a'] OR [file:name = 'b']") == "FileItem/FileName is a OR FileItem/FileName is b"


def test_observations_of_one_kind_have_items_of_their_own():
    """They stand apart, in parentheses too; comparisons within brackets are about one item."""
    root = read_pattern("[file:name = 'a'] AND ([file:name = 'b' AND file:size = 1] AND [process:name = 'c'])")
    assert root.apart
    assert [isinstance(part, Group) and part.apart for part in root.parts] == [False, True]
    assert not read_pattern("[file:name = 'a' AND file:size = 1]").apart
    assert not read_pattern("[file:name = 'a'] OR [file:name = 'b']").apart


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("[file:name = 'a'] FOLLOWEDBY [file:name = 'b']", "FOLLOWEDBY"),
        ("[file:name = 'a'] WITHIN 5 SECONDS", "WITHIN"),
        ("[file:name = 'a'] REPEATS 5 TIMES", "REPEATS"),
        ("[file:name = 'a'] START t'2026-01-01T00:00:00Z' STOP t'2026-01-02T00:00:00Z'", "START and STOP"),
        ("[file:name = 'a'] OR ([process:name = 'b'] WITHIN 5 SECONDS)", "WITHIN"),
        ("[ipv4-addr:value ISSUPERSET '10.0.0.0/8']", "ISSUPERSET of a network of 16777216 addresses"),
    ],
)
def test_what_one_look_cannot_answer(pattern, word):
    """Order and number in time, and networks that hold networks, are named."""
    with pytest.raises(Unreadable, match="cannot be judged by one look at an endpoint") as caught:
        read_pattern(pattern)
    assert caught.value.got == word


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "x",
        "[]",
        "[file:name = 'a'",
        "[file:name 'a']",
        "[file:name = a]",
        "[file = 'a']",
        "[file:name = 'a'] AND",
        "[file:name LIKE 5]",
        "[file:name IN ()]",
        "[ipv4-addr:value ISSUPERSET 'x']",
        "[file:name = 'a'] [file:name = 'b']",
        "'" * 9,
    ],
)
def test_what_is_no_pattern(pattern):
    """The grammar's own words."""
    with pytest.raises(Unreadable, match="is not understood"):
        read_pattern(pattern)


def test_the_bounds():
    """Length and parentheses; those within texts do not count."""
    just = "[" + "(" * (MAX_DEPTH - 1) + "file:size = 1" + ")" * (MAX_DEPTH - 1) + "]"
    assert read(just) == "FileItem/SizeInBytes is 1"
    assert read(f"[file:name LIKE '{'(' * 50}_']")
    with pytest.raises(Unreadable, match="nests too deeply"):
        read_pattern(f"({just})")
    with pytest.raises(Unreadable, match="nests too deeply"):
        read_pattern("(" * 50_000)
    long = f"[file:name = '{'x' * (MAX_PATTERN - 16)}']"
    assert len(long) == MAX_PATTERN
    assert read_pattern(long)
    with pytest.raises(Unreadable, match="too long"):
        read_pattern(f"{long} ")


HOSTILE = {
    "a text that never ends": "'" + r"\'" * 60_000,
    "comments that never end": "/* " * 60_000,
    "texts one after the other": "['" * 60_000,
    "a path": "[" + "a." * 60_000,
    "brackets": "[] " * 60_000,
    "a text within a comparison": "[file:name LIKE '" + "_" * 180_000,
}


@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE)
def test_hostile_patterns_take_time_in_proportion(pattern):
    """The grammar's lexer alone would take hours for some: it looks for an end that is not there from every sign."""
    assert len(pattern) <= MAX_PATTERN
    with pytest.raises(Unreadable, match=r"not understood|too deeply"):
        read_pattern(pattern)


def test_comments_of_patterns():
    """Are left, wherever they stand, but not within texts."""
    assert read("/* a ( */ [file:name /* b */ = '/* c */' // d\n]") == "FileItem/FileName is /* c */"


def test_upper_and_lower_case():
    """Differ in texts as in STIX, but not where systems spell differently."""
    cased = {
        "file:name": True,
        "network-traffic:protocols[*]": False,
        "mac-addr:value": False,
        "domain-name:value": False,
    }
    for path, exact in cased.items():
        parts = read_pattern(f"[{path} = 'a']").parts
        assert {one.preserve_case for one in parts} == {exact}


STEPS = st.from_regex(r"[a-z][a-z0-9_]{0,8}|'[A-Za-z0-9-]{1,8}'", fullmatch=True)


@given(
    st.sampled_from(["file", "ipv4-addr", "network-traffic", "x-a"]),
    st.lists(STEPS, min_size=1, max_size=3).filter(lambda steps: not steps[0].startswith("'")),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="'\\", exclude_categories=["Cs"]), max_size=20),
)
def test_the_short_way_is_the_long_way(kind, steps, content):
    """One property that equals one text is read without the grammar, to the same tree."""
    pattern = f"[{kind}:{'.'.join(steps)} = '{content}']"
    short = read_pattern(pattern)
    long = stix_pattern._grouped(stix_pattern._observations(stix_pattern._parsed(pattern)))
    assert short == long


@pytest.mark.parametrize(
    "path", ["file:name", "file:hashes.'SHA-256'", "file:hashes.MD5", "ipv4-addr:value", "network-traffic:dst_port"]
)
def test_the_short_way_of_known_paths(path):
    """Also where a property is looked for at several places."""
    pattern = f"[{path} = 'a']"
    assert stix_pattern._SIMPLE.fullmatch(pattern)
    assert read_pattern(pattern) == read_pattern(f"[({path} = 'a')]")


@pytest.mark.parametrize("word", ["AND", "IN", "true", "LAST"])
def test_words_of_the_grammar_are_no_short_way(word):
    """A step of a path that is called like one must be in quotes, whichever way it is read."""
    with pytest.raises(Unreadable):
        read_pattern(f"[file:hashes.{word} = 'a']")
    assert read_pattern(f"[file:hashes.'{word}' = 'a']")


@pytest.mark.parametrize("literal", ["h'6162'", "b'YWI='"])
def test_bytes_are_not_taken_for_the_text_that_writes_them(literal):
    """A file that is called `6162` is not the one that is meant."""
    with pytest.raises(Unreadable, match="Bytes"):
        read_pattern(f"[file:name = {literal}]")


PIECES = st.sampled_from(
    [
        *("[", "]", "(", ")", "'", "=", "!=", ">", "5", "'a'", "t'x'", "file:name", "file:hashes.MD5"),
        *("AND", "OR", "NOT", "IN", "LIKE", "MATCHES", "EXISTS", "FOLLOWEDBY", "WITHIN", "//", "/*"),
    ]
)


@given(st.lists(PIECES, max_size=25).map(" ".join) | st.text(max_size=60))
def test_any_text_is_a_tree_or_unreadable(pattern):
    """Nothing else comes out."""
    with suppress(Unreadable):
        assert isinstance(read_pattern(pattern), Group)
