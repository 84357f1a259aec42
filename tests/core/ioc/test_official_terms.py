"""The data of the official list."""

import pytest

from stanch.core.ioc.official import official_terms
from stanch.core.ioc.official_terms import TERMS
from stanch.core.ioc.xml import read

LIST = "openioc/openioc-1.1/iocterms/current.iocterms"


def test_each_document_names_its_platforms_once():
    """A line that is not indented has a document and its platforms, never the same twice."""
    heads = [tuple(line.split()[:2]) for line in TERMS.strip().splitlines() if not line.startswith(" ")]
    assert len(heads) == len(set(heads))
    assert all(set(letters) <= set("wml-") for _, letters in heads)


@pytest.mark.shared
def test_the_names_are_those_of_the_authors(shared_data):
    """Every entry of their file, with its platforms, and no other."""
    letters = {"win": "w", "osx": "m", "linux": "l"}
    root = read((shared_data / LIST).read_bytes(), most=2**20)
    entries = [one for one in root.children if one.local == "iocterm"]
    theirs: dict[str, set[str]] = {}
    for one in entries:
        platforms = filter(None, one.attributes.get("platform", "").split(","))
        theirs.setdefault(one.attributes["text"], set()).update(letters[name] for name in platforms)
    assert len(entries) == 1327
    assert official_terms() == theirs
