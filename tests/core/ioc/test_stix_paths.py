"""Where properties of STIX objects are found."""

import pytest

from stanch.core.ioc.stix_paths import LONGEST_PATH, NOWHERE, PATHS, places_of
from stanch.core.ioc.terms import DOCUMENTS


def test_every_place_can_be_known():
    """The table of places leads nowhere that no endpoint can look; and types are those of the values."""
    names = {name for places in PATHS.values() for name in (*places.terms, *places.turned)}
    kinds = {name: DOCUMENTS.get(name.partition("/")[0], {}).get(name.partition("/")[2]) for name in names}
    assert not [name for name, one in kinds.items() if one is None]
    assert all(kinds[name].kind == places.type for places in PATHS.values() for name in (*places.terms, *places.turned))


@pytest.mark.parametrize("name", ["SHA-256", "SHA256", "sha256", "sha_256"])
def test_names_of_hashes_are_spelled_in_many_ways(name):
    """And are the same."""
    assert places_of("file", ("hashes", name)).terms == ("FileItem/Sha256sum",)


def test_what_has_no_place():
    """Keeps its own name, as it is written."""
    found = places_of("x-ours", ("hashes", "Sha-3"))
    assert (found.terms, found.turned) == ((f"{NOWHERE}/x-ours:hashes.Sha-3",), ())


def test_only_ends_of_connections_are_turned():
    """What is source here is destination there."""
    turned = {path for path, places in PATHS.items() if places.turned}
    assert len(turned) == 8
    assert all("src_" in path or "dst_" in path for path in turned)
    for path in turned:
        assert PATHS[path].turned == PATHS[path.replace("src_", "x").replace("dst_", "src_").replace("x", "dst_")].terms


def test_a_path_of_any_length_takes_little():
    """It is told in each term, and there may be tens of thousands of them."""
    assert len(places_of("file", ("a",) * 50_000).terms[0]) == LONGEST_PATH
