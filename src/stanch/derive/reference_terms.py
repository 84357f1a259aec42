"""The reference page of the terms that indicators of compromise may ask for.

Pure: Markdown from the official list and from what can be known on Linux. `stanch.cli.reference` writes the file.
"""

from collections.abc import Iterator, Sequence

from stanch.core.ioc.items import Cost, Supported
from stanch.core.ioc.official import Standing, known_of, official_terms, platforms_of
from stanch.core.ioc.stix_paths import PATHS
from stanch.core.ioc.terms import DOCUMENTS
from stanch.derive.reference import document, table

_COSTS = {
    Cost.FREE: "",
    Cost.LOOKUP: "a further look",
    Cost.READ: "reads the whole file",
    Cost.DEEP: "reads and searches all of it",
}

_ABOUT = (
    "What indicators of compromise can ask of an endpoint. The names are those of OpenIOC's official list "
    "(`current.iocterms` of 2020-11-06, copyright 2013 Mandiant Corporation, Apache License 2.0); what Linux has "
    "beyond it has names of our own, made in the same way. A term that is unknown here is no error and never a match: "
    "a scan lists it, and `stanch ioc check FILE` tells before a scan."
)
_DENYING = (
    "Terms of one document within one AND are about one and the same item: FileName and SizeInBytes mean one file that "
    "has both. A list matches if one of its values does; a term that denies holds if none does. An indicator that "
    "holds by denying alone is no match."
)
_STIX = (
    "Where the properties of STIX objects are looked for. Any other path is unknown. Of a connection, the endpoint may "
    "be either end."
)


def terms_page() -> str:
    """Every term, supported or not."""
    supported = _supported()
    official = official_terms()
    ours = [(name, one) for name, one in supported if name not in official]
    known = [(name, one) for name, one in supported if name in official]
    unknown = [name for name in official if known_of(name).standing is not Standing.SUPPORTED]
    counts = (
        f"Of {len(official)} official names, {len(known)} are supported and {len(unknown)} are unknown on Linux; "
        f"{len(ours)} are our own."
    )
    return document(
        "Terms of indicators",
        [
            _ABOUT,
            counts,
            _DENYING,
            "## Supported",
            table(_HEAD, (_row(name, one) for name, one in known)),
            "## Our own",
            table(_HEAD, (_row(name, one) for name, one in ours)),
            "## STIX",
            _STIX,
            table(("object path", "terms"), _stix()),
            "## Unknown on Linux",
            table(("term", "platforms in the list", "why"), (_unknown(name) for name in unknown)),
        ],
    )


_HEAD = ("term", "values", "what it is here", "cost")


def _supported() -> Sequence[tuple[str, Supported]]:
    found = ((f"{name}/{path}", one) for name, paths in DOCUMENTS.items() for path, one in paths.items())
    return sorted(found, key=lambda one: one[0].lower())


def _row(name: str, one: Supported) -> tuple[str, str, str, str]:
    return f"`{name}`", one.kind, one.what, _COSTS[one.cost]


def _unknown(name: str) -> tuple[str, str, str]:
    return f"`{name}`", platforms_of(name), known_of(name).what


def _stix() -> Iterator[tuple[str, str]]:
    for path, places in PATHS.items():
        some = dict.fromkeys((*places.terms, *places.turned))
        yield f"`{path}`", ", ".join(f"`{one}`" for one in some)
