"""What must never leave this machine in a support bundle, and taking it out of what does.

Each part of a bundle leaves secrets out by itself; this is the second lock. It knows the secrets of this machine, and
takes them out of whatever text they come up in, be it the log.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from stanch.agent.identity import MAX_IDENTITY_BYTES
from stanch.agent.proxy import MAX_FILE_BYTES, Proxy
from stanch.agent.settings import Settings
from stanch.core.errors import StanchError

LEFT_OUT = "(left out)"
SHORTEST = 3
"""Characters: to take out what is shorter would take apart every text."""

_CREDENTIALS = 16
_MAX_CREDENTIALS = 65_536
_IN_A_URL = re.compile(rb"(://)[^\s\"'<>]*@")
_PEM = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)", re.DOTALL
)
_AGE = re.compile(rb"AGE-SECRET-KEY-[0-9A-Z]+", re.IGNORECASE)
_BASIC = re.compile(rb"(?i)(proxy-)?authorization\W{0,5}(basic|bearer)\s+[^\s\"']+")

_TOKEN = re.compile(rb"(?i)((?:--|[\"'])?(?:token|password|secret)[\"']?(?:\s*[:=]\s*|\s+)[\"']?)[^\s\"',}]{8,}")
"""What is called a token or a password, on a command line or in JSON."""


_COMMENT = re.compile(r"""^((?:[^#"']|"(?:[^"\\]|\\.)*"|'[^']*')*)#.*$""")
"""A line with a comment: what stands before it, texts included."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """All that is known."""

    known: tuple[bytes, ...] = ()
    """The longest first."""

    def out_of(self, data: bytes) -> bytes:
        """The same without any of them."""
        mark = LEFT_OUT.encode()
        data = _PEM.sub(mark, data)
        for form in (_AGE, _BASIC):
            data = form.sub(mark, data)
        data = _IN_A_URL.sub(rb"\1" + mark + b"@", data)
        data = _TOKEN.sub(rb"\1" + mark, data)
        for one in self.known:
            data = data.replace(one, mark)
        return data

    def left_in(self, data: bytes) -> bool:
        """Is any of them there?"""
        return any(one in data for one in self.known)


def secrets_of(settings: Settings, private: Iterable[Mapping[str, Any]] = ()) -> Secrets:
    """The secrets of this machine; `private`: the parts of effects that stay here. What cannot be read is none."""
    found = {one for text in (*_keys(settings), *_proxies(settings), *_codes(private)) for one in _forms(text)}
    known = (one.encode("utf-8", "surrogateescape") for one in found if len(one) >= SHORTEST)
    return Secrets(tuple(sorted(known, key=len, reverse=True)))


def _forms(text: str) -> Iterator[str]:
    yield text
    yield json.dumps(text)[1:-1]
    yield quote(text, safe="")
    yield unquote(text)


def _keys(settings: Settings) -> Iterator[str]:
    with suppress(OSError):
        for one in islice(settings.state.glob("credentials-*.pem"), _CREDENTIALS):
            yield from _lines_of_key(_text(one, _MAX_CREDENTIALS))
    for line in _text(settings.vault_key, _MAX_CREDENTIALS).splitlines():
        if not line.startswith("#"):
            yield line.strip()


def _lines_of_key(pem: str) -> Iterator[str]:
    inside = False
    for line in pem.splitlines():
        if line.startswith("-----"):
            inside = "BEGIN" in line and "PRIVATE KEY" in line
        elif inside:
            yield line.strip()


def _proxies(settings: Settings) -> Iterator[str]:
    """What is secret in the URLs of the proxies: of the local policy, and of the enrolment."""
    texts = (_text(settings.config, MAX_FILE_BYTES), _text(settings.state / "identity.json", MAX_IDENTITY_BYTES))
    urls = [found for text in texts for found in re.findall(r"[a-z]{2,10}://[^\s\"'<>]*@[^\s\"'<>]*", text)]
    with suppress(ValueError, RecursionError, AttributeError):
        urls.append(str(tomllib.loads(texts[0]).get("link", {}).get("proxy", "")))
    for url in urls:
        with suppress(ValueError):
            yield from filter(None, [urlsplit(url).password])
        with suppress(StanchError):
            yield from filter(None, [(Proxy.parse(url).authorization or "").removeprefix("Basic ")])


def _codes(private: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What recognises a release code: not the code, but somebody may try codes on it."""
    for one in private:
        code = one.get("release_code")
        if isinstance(code, Mapping):
            yield from (value for value in code.values() if isinstance(value, str))


def _text(path: Path, limit: int) -> str:
    with suppress(OSError), path.open("rb") as file:
        return file.read(limit).decode("utf-8", "surrogateescape")
    return ""


def told_policy(text: str, secrets: Secrets) -> str:
    """The local policy, without what is secret and without comments, in which nobody knows what stands.

    All of it is left out if it is no TOML, or too clever to be taken apart by lines.
    """
    try:
        link = tomllib.loads(text).get("link", {})
    except (ValueError, RecursionError):
        return "# The local policy is no TOML, so it is left out: a line of it may hold a password.\n"
    if "'''" in text or '"""' in text:
        return "# The local policy is left out: it has texts of several lines.\n"
    plain = "".join(_COMMENT.sub(r"\1", line).rstrip() + "\n" for line in text.splitlines())
    told = secrets.out_of(plain.encode("utf-8", "surrogateescape"))
    named = link.get("proxy") if isinstance(link, dict) else None
    password = urlsplit(named).password if isinstance(named, str) and "@" in named else None
    if password and len(password) < SHORTEST:
        return "# The local policy is left out: the password of its proxy is too short to be taken out of a text.\n"
    return told.decode("utf-8", "replace")
