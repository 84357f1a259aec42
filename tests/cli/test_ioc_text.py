"""What `stanch ioc check` prints."""

import pytest

from tests.core.ioc.openioc_files import OR, file_11
from tests.core.ioc.test_stix import bundled, indicator

UNKNOWN = OR.replace("FileItem/FileName", "RegistryItem/Path")
DENYING = OR.replace('negate="false"', 'negate="true"')


@pytest.fixture
def write(tmp_path):
    """Puts a file here."""

    def put(name: str, data: bytes) -> str:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return name

    return put


def test_a_file_is_explained(run, write):
    """Its facts, its logic in words, and whether it can match here."""
    ended = run("ioc", "check", write("a.txt", file_11(OR)))
    assert ended.code == 0
    lines = ended.out.splitlines()
    for line in ("file:     a.txt", "id:       i-1", "title:    One", "format:   OpenIOC 1.1"):
        assert line in lines
    assert lines[lines.index("logic:") + 1 :][:2] == ["  any of", "    FileItem/FileName is x"]
    assert "on Linux: it can match" in lines
    assert lines[-1] == "1 files, 0 wrong: 1 indicators, 1 terms, 0 unknown."
    assert not ended.err


def test_what_cannot_be_known_is_listed(run, write):
    """With why; and that nothing of it is left."""
    out = run("ioc", "check", write("a.ioc", file_11(UNKNOWN))).out
    assert "RegistryItem/Path  1      there is no RegistryItem on Linux (Windows only)" in out
    assert "it can never match" in out


def test_what_can_never_match_is_listed(run, write):
    """A condition that does not fit, and a branch that only denies."""
    unfit = OR.replace("FileItem/FileName", "FileItem/Md5sum")
    out = run("ioc", "check", write("a.ioc", file_11(unfit)), write("b.ioc", file_11(DENYING, key="i-2"))).out
    assert "can never match:\nTERM                  TIMES  WHY\nFileItem/Md5sum is x  1      no hash" in out
    assert "branches that only deny, which count as no match:\n  FileItem/FileName is not x\n" in out


def test_long_logic_is_cut(run, write):
    """Unless all of it is asked for."""
    many = f'<Indicator operator="OR">{"".join(OR for _ in range(60))}</Indicator>'
    name = write("a.ioc", file_11(many))
    assert "... 81 more lines: --full shows them" in run("ioc", "check", name).out
    assert run("ioc", "check", name, "--full").out.count("    FileItem/FileName is x") == 60


def test_a_bundle(run, write):
    """Each indicator, what is not understood, and what is left."""
    wrong = indicator(id="indicator--w", pattern="[file:name")
    yara = indicator(id="indicator--y", pattern_type="yara")
    ended = run("ioc", "check", write("a.json", bundled(indicator(), wrong, yara)))
    assert ended.code == 0
    assert "format:   STIX 2.1" in ended.out
    assert "1 not understood in a.json:\nWHY\nindicator--w: The pattern is not understood, got " in ended.out
    assert "a.json: 1 objects are left; a pattern of the type yara" in ended.out


def test_a_large_bundle_is_cut(run, write):
    """Fifty of its indicators are shown, unless all are asked for."""
    name = write("a.json", bundled(*(indicator(id=f"indicator--{n}") for n in range(60))))
    shown = run("ioc", "check", name)
    assert shown.out.count("format:") == 50
    assert "... 10 more indicators in a.json: --full shows them" in shown.out
    assert run("ioc", "check", name, "--full").out.count("format:") == 60


def test_ids_that_are_there_twice(run, write):
    """Are named, with their files."""
    line = ("ioc", "check", write("a.ioc", file_11(OR)), write("b.ioc", file_11(OR)))
    assert "ids that are there twice:\nID   TIMES  FILES\ni-1  2      a.ioc, b.ioc\n" in run(*line).out
    assert run(*line, "--json").json["duplicates"] == {"i-1": ["a.ioc", "b.ioc"]}


def test_as_json(run, write):
    """Everything, the logic as a tree."""
    wrong = write("wrong.ioc", b"<a>")
    ended = run("ioc", "check", write("a.ioc", file_11(OR)), wrong, write("b.json", bundled(indicator())), "--json")
    assert ended.code == 2
    right, broken, bundle = ended.json["files"]
    (one,) = right["indicators"]
    assert (one["id"], one["terms"], one["can_match"], one["unknown"], one["never"]) == ("i-1", 1, True, [], [])
    assert one["logic"]["operator"] == "OR"
    assert one["logic"]["parts"] == [
        {
            "id": "t",
            "term": "FileItem/FileName",
            "condition": "is",
            "content": "x",
            "type": "string",
            "negate": False,
            "preserve_case": False,
        }
    ]
    assert broken == {
        "file": "wrong.ioc",
        "error": {
            "code": "invalid",
            "message": "The file is no XML",
            "got": "no element found",
            "expected": "well-formed XML",
            "line": 1,
        },
    }
    assert [one["format"] for one in bundle["indicators"]] == ["STIX 2.1"]
    assert (bundle["problems"], bundle["ignored"], bundle["notes"]) == ([], 0, [])


def test_hostile_texts_do_not_reach_the_terminal(run, write):
    """A title or content with escape sequences is shown as text."""
    hostile = file_11(OR.replace(">x<", ">\u202e\u009b31m<")).replace(b"One", "T\u009b2J".encode())
    out = run("ioc", "check", write("a.ioc", hostile)).out
    assert "T\\x9b2J" in out
    assert "\\u202e\\x9b31m" in out
    assert not {"\u202e", "\x9b"} & set(out)


def test_an_end_that_is_over_is_told(run, write):
    """Its author no longer stands by it; it is looked for all the same."""
    old, new = "2020-01-01T00:00:00Z", "9999-01-01T00:00:00Z"
    name = write("a.json", bundled(indicator(valid_until=old), indicator(id="indicator--2", valid_until=new)))
    out = run("ioc", "check", name).out
    assert f"{old}: over, but still looked for" in out
    assert f"{new}: over" not in out
    found = run("ioc", "check", name, "--json").json["files"][0]["indicators"]
    assert [(one["valid_until"], one["expired"]) for one in found] == [(old, True), (new, False)]


def test_observations_that_stand_apart_are_told_as_such(run, write):
    """Not as one item with both."""
    name = write("a.json", bundled(indicator(pattern="[file:name = 'a'] AND [file:name = 'b']")))
    assert "all of, each of an item of its own or of one item" in run("ioc", "check", name).out
    assert run("ioc", "check", name, "--json").json["files"][0]["indicators"][0]["logic"]["apart"]
