"""What kind of rules or indicators a file holds, told by its first bytes: a name may say anything."""

import re

from stanch.core.content import ContentKind

HEAD = 65_536
"""First bytes that are enough to tell."""

SUFFIXES = frozenset(
    {
        *(".yar", ".yara", ".yr", ".rule", ".rules", ".ioc", ".xml", ".json", ".stix", ".stix2"),
        *(".txt", ".csv", ".hash", ".hashes", ".md5", ".sha1", ".sha256"),
    }
)
"""Of the files in a folder that are looked at: a folder of rules also has a README, scripts and pictures in it."""

_DIGITS = r"(?:[0-9A-Fa-f]{64}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{32})"
_HASH = re.compile(rf"[\s\"'\\*]*{_DIGITS}\b")
_CELL = re.compile(rf"[,;|\t][ \"']*{_DIGITS}[ \"']*(?:[,;|\t]|$)")
"""Of a table whose first column is something else, such as a date."""
_BSD = re.compile(rf"(?:MD5|SHA1|SHA256|SHA2-256) ?\(.+\) ?= ?{_DIGITS}\s*$", re.IGNORECASE)
_RULE = re.compile(
    r"^[ \t]*(?:(?:private|global)\s+){0,3}rule\s+\w+\s*(?:[:{]|//|/\*)|^[ \t]*(?:import|include)\s+\"", re.MULTILINE
)
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def kind_of(head: bytes) -> ContentKind | None:
    """The kind of a file that begins so; None if it is nothing of ours."""
    text = _text(head[:HEAD]).lstrip()
    if text.startswith("<") and ("openioc" in text.lower() or "mandiant.com" in text.lower()):
        return ContentKind.OPENIOC
    if text.startswith(("{", "[")):
        return ContentKind.STIX if '"indicator"' in text or '"bundle"' in text else None
    if _RULE.search(text):
        return ContentKind.YARA
    return ContentKind.HASHES if any(_has_hash(line) for line in _lines(text)) else None


def _has_hash(line: str) -> bool:
    return bool(_HASH.match(line) or _BSD.match(line) or _CELL.search(line))


def _text(head: bytes) -> str:
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
    return head.decode(encoding, "replace")


def _lines(text: str) -> list[str]:
    """The first lines that say something."""
    said = [one for one in text.splitlines() if one.strip() and not one.lstrip().startswith("#")]
    return said[:20]
