"""Patterns for paths: as `core.types.Glob` has them, all of them asked at once, in linear time."""

import re
from collections.abc import Callable, Iterator, Sequence

Asked = Callable[[bytes], bool]


def matcher(globs: Sequence[str]) -> Asked | None:
    """Does one of them fit a whole path? None for no patterns. Not to be called once files can no longer be mapped."""
    if not globs:
        return None
    import re2

    whole = "|".join(f"(?:{_translated(one.encode('utf-8', 'surrogateescape'))})" for one in globs)
    compiled = re2.compile(whole.encode("latin-1"), _options())
    return lambda path: compiled.fullmatch(path) is not None


def finder(pattern: str) -> Asked | None:
    """Is this regular expression found in a path? None for an empty one; ValueError for one that is none."""
    if not pattern:
        return None
    import re2

    try:
        compiled = re2.compile(pattern.encode("utf-8", "surrogateescape"), _options())
    except re2.error as error:
        raise ValueError(f"the hint is no regular expression: {error}") from error
    return lambda path: compiled.search(path) is not None


def _options() -> object:
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.log_errors = False
    return options


def _translated(glob: bytes) -> str:
    """`**` stands for any folders, none too; at the end, for everything below."""
    parts = [part for part in glob.decode("latin-1").split("/") if part not in {"", "."}]
    return "".join(_steps(parts)) or "/"


def _steps(parts: Sequence[str]) -> Iterator[str]:
    last = len(parts) - 1
    for n, part in enumerate(parts):
        if part != "**":
            yield "/" + "".join(_part(part))
        else:
            yield "(?:/[^/]+)+" if n == last else "(?:/[^/]+)*"


def _part(part: str) -> Iterator[str]:
    at = 0
    while at < len(part):
        one = part[at]
        end = part.find("]", at + 2) if one == "[" else -1
        if end > 0:
            yield _one_of(part[at + 1 : end])
            at = end
        else:
            yield {"*": "[^/]*", "?": "[^/]"}.get(one) or re.escape(one)
        at += 1


def _one_of(characters: str) -> str:
    negated, characters = characters[:1] == "!", characters.removeprefix("!")
    inner = "".join(one if one == "-" else f"\\x{ord(one):02x}" for one in characters)
    if inner.startswith("-") or inner.endswith("-"):
        inner = inner.strip("-") + "\\-"
    return f"[{'^/' if negated else ''}{inner}]"
