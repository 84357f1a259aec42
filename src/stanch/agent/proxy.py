"""The HTTP proxy through which this endpoint reaches its server, where there is no other way.

`/etc/stanch/agent.toml` names it, or else the enrolment did:

    [link]
    proxy = "http://10.0.0.3:3128"          # http://NAME:PASSWORD@HOST:PORT only in a file that nobody else can read

The proxy opens a tunnel (CONNECT) and sees the server's name or address, no more: TLS runs inside, end to end.
"""

import os
import stat
import tomllib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from stanch.core.errors import Invalid

DEFAULT_PORT = 3128
MAX_URL = 1000
MAX_FILE_BYTES = 1_048_576
_EXPECTED = "http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. Its text has no credentials: it may be shown and logged."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)
    """The value of `Proxy-Authorization`."""

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """From its URL; Invalid, without the URL's credentials in the error, if it is none that can be used."""
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port or DEFAULT_PORT
        except ValueError:
            parts, host, port = urlsplit(""), None, 0
        if parts.scheme and parts.scheme != "http":
            hint = "TLS to the server runs through the tunnel in any case; the proxy itself is reached by HTTP."
            got = f"{parts.scheme[:20]}://"
            raise Invalid("This kind of proxy is not supported", got=got, expected=_EXPECTED, hint=hint)
        if not host or len(url) > MAX_URL or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise Invalid("This is no URL of a proxy", got=f"{len(url)} characters", expected=_EXPECTED)
        return cls(host, port, _basic(parts.username, parts.password))

    @property
    def headers(self) -> Mapping[str, str]:
        """What the proxy is told besides where to connect to."""
        return {} if self.authorization is None else {"Proxy-Authorization": self.authorization}

    def at(self, address: str) -> str:
        """The URL of the proxy at one of its addresses, without credentials."""
        return f"http://{_bracketed(address)}:{self.port}"

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


def configured_proxy(config: Path, enrolled: str | None) -> Proxy | None:
    """The proxy that the configuration names, or that the enrolment went through; None if there is none.

    Invalid if the one that is named cannot be used. A file that is no TOML is the local policy's to complain about.
    """
    named = _named_in(config)
    if named is None:
        return Proxy.parse(enrolled) if enrolled else None
    proxy = Proxy.parse(named)
    if proxy.authorization is not None:
        _check_closed(config)
    return proxy


def _named_in(config: Path) -> str | None:
    try:
        with os.fdopen(os.open(config, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            link = tomllib.loads(file.read(MAX_FILE_BYTES).decode()).get("link", {})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        # Not its text: a line of it may hold the password.
        log.warning("proxy-not-read", path=str(config), error=type(error).__name__)
        return None
    named = link.get("proxy") if isinstance(link, dict) else None
    if named is not None and not isinstance(named, str):
        raise Invalid("[link] proxy is no text", got=type(named).__name__, expected=_EXPECTED)
    return named or None


def _check_closed(config: Path) -> None:
    found = config.stat()
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in {0, os.geteuid()}:
        raise Invalid(
            f"{config} holds the password of a proxy, and others may read it",
            got=f"uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}",
            expected="root, mode 600",
            hint=f"chmod 600 {config}",
        )


def _basic(name: str | None, password: str | None) -> str | None:
    if name is None:
        return None
    both = f"{unquote(name)}:{unquote(password or '')}"
    return f"Basic {b64encode(both.encode()).decode()}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
