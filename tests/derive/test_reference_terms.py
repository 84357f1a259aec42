"""The reference page of terms."""

from stanch.core.ioc.official import official_terms
from stanch.core.ioc.terms import DOCUMENTS
from stanch.derive.reference_terms import terms_page

SUPPORTED, UNKNOWN = "\n## Supported\n", "\n## Unknown on Linux\n"


def test_every_term_is_there_once():
    """Supported with what it is here, or unknown with why."""
    page = terms_page()
    ours = {f"{document}/{path}" for document, paths in DOCUMENTS.items() for path in paths}
    known, unknown = page.split(UNKNOWN)
    for name in ours | official_terms().keys():
        assert (known.count(f"\n| `{name}` |"), unknown.count(f"\n| `{name}` |")) == (
            (1, 0) if name in ours else (0, 1)
        )


def test_the_page_says_what_a_term_is_and_costs():
    """In the words of the table of terms."""
    line = next(one for one in terms_page().splitlines() if one.startswith("| `FileItem/Md5sum` |"))
    assert line == f"| `FileItem/Md5sum` | hash | {DOCUMENTS['FileItem']['Md5sum'].what} | reads the whole file |"


def test_the_source_of_the_list_is_named():
    """As its licence asks."""
    assert "Mandiant Corporation, Apache License 2.0" in terms_page()


def test_stix_paths_are_listed():
    """With the terms at which they are looked for."""
    assert "| `network-traffic:dst_port` | `PortItem/remotePort`, `PortItem/localPort` |" in terms_page()
