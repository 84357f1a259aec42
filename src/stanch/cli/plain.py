"""Make foreign text harmless to a terminal.

A host name, a process's arguments or an error from an endpoint may contain escape sequences that move the cursor,
change the window's title or forge lines, and direction marks that make text read otherwise than it is. Each such
character is shown as an escape, so that one can see it and it can do nothing.
"""

import json
import unicodedata
from typing import Any

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: controls, format and direction marks, surrogates, unassigned, line and paragraph separators."""


def plain(text: object, *, longest: int = 4000) -> str:
    r"""The text on one line, with `\x1b` for an escape and so on; cut at `longest` characters."""
    raw = str(text)
    shown = "".join(map(_shown, raw[:longest]))
    return shown + "…" if len(raw) > longest else shown


def _shown(character: str) -> str:
    if " " <= character <= "~":
        return character
    if unicodedata.category(character) not in _HARMFUL:
        return character
    code = ord(character)
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - the three escapes of Python


def json_text(value: Any) -> str:
    """One JSON document on one line, in ASCII: no terminal and no encoding can be confused by it."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(", ", ": "))
