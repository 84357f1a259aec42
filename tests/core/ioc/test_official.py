"""The official list of terms, and what a name is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.official import Standing, known_of, official_terms, platforms_of
from stanch.core.ioc.terms import DOCUMENTS


def test_the_names_of_the_list():
    """1,320 different ones; some that everybody knows."""
    names = official_terms()
    assert len(names) == 1320
    assert {"FileItem/Md5sum", "ProcessItem/PortList/PortItem/remoteIP", "Yara/Yara"} <= names.keys()
    assert platforms_of("FileItem/Md5sum") == "Windows, macOS, Linux"
    assert platforms_of("FileItem/PEInfo/Type") == "Windows"
    assert platforms_of("Yara/Yara") == platforms_of("no/such") == ""


def test_a_term_that_is_supported():
    """With what it is here."""
    found = known_of("FileItem/Md5sum")
    assert (found.standing, found.what) == (Standing.SUPPORTED, DOCUMENTS["FileItem"]["Md5sum"].what)
    assert known_of("FileItem/MD5SUM") == found


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("FileItem/PEInfo/Type", "Windows only"),
        ("RegistryItem/Path", "there is no RegistryItem on Linux (Windows only)"),
        ("eventItem/processEvent/process", "events of the past are not kept on endpoints"),
        ("processEvent/processCmdLine", "events of the past are not kept on endpoints"),
    ],
)
def test_official_terms_that_are_unknown_here(name, why):
    """With the reason."""
    found = known_of(name)
    assert (found.standing, found.what) == (Standing.UNKNOWN_HERE, why)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("FileItem/MD5-Sum", "FileItem/Md5sum"),
        ("fileitem/filename", "FileItem/FileName"),
        ("FileItem/FullPaht", "FileItem/FullPath"),
        ("ProcessItem/argument", "ProcessItem/arguments"),
    ],
)
def test_misspelt_names_are_answered_with_what_is_near(name, near):
    """They are no official terms; the right one is named first."""
    found = known_of(name)
    assert found.standing is Standing.UNOFFICIAL
    assert found.near[0] == near
    assert f"did you mean {near}" in found.what


def test_names_that_are_near_to_nothing():
    """Are only said to be no terms."""
    for name in ("Quux/Frobnicate", "", "/", "x" * 10_000):
        assert known_of(name).what == "no term of the official list"


def test_paths_of_stix_without_a_place():
    """Are named as what they are."""
    assert known_of("STIX/file:mime_type").what == "the STIX path file:mime_type has no place on an endpoint"


@given(st.text(max_size=80))
def test_any_name_has_a_standing(name):
    """In words."""
    assert known_of(name).what
