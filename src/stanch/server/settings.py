"""What an administrator decides about a server: where it keeps its data, where it listens, what it is called."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from stanch.core.errors import Invalid
from stanch.core.types import Port

MAX_NAMES = 32
MAX_PORT = 65_535
MAX_DAYS = 36_500
MAX_UPLOAD = 2**50
WILDCARDS = frozenset({"0.0.0.0", "::", ""})
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Listen:
    """An address and a TCP port to listen on."""

    host: str
    port: Port
    """0 for any that is free."""

    @classmethod
    def parse(cls, text: str) -> "Listen":
        """From `127.0.0.1:8443` or `[::1]:8443`; Invalid otherwise."""
        host, colon, port = text.rpartition(":")
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= len(str(MAX_PORT)) else -1
        if not colon or not 0 <= number <= MAX_PORT:
            raise Invalid("The address to listen on is wrong", got=text, expected="ADDRESS:PORT or [ADDRESS]:PORT")
        return cls(host.removeprefix("[").removesuffix("]"), number)

    def __str__(self) -> str:
        return authority_of(self.host, self.port)

    @property
    def anywhere(self) -> bool:
        """Does it listen on every address of this machine?"""
        return self.host in WILDCARDS

    @property
    def local(self) -> bool:
        """Does it listen to this machine only?"""
        return self.host in LOOPBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of `stanch server`; Invalid if one of them is wrong."""

    data: Path
    """Folder of the database, the keys and the evidence; only the server may read it."""

    api_listen: str = "127.0.0.1:8443"
    """Where people and programs connect."""

    gateway_listen: str = "0.0.0.0:8444"
    """Where agents connect."""

    names: tuple[str, ...] = ()
    """Names and addresses by which agents and people reach this server; they stand in its certificate."""

    admin_password_file: Path | None = None
    """First line: the administrator's password at the first start; without it, one is made up and printed once."""

    evidence_days: int | None = None
    """Delete evidence when it is so many days old; None to keep it until somebody deletes it."""

    max_upload: int = 2**30
    """Bytes that one upload may have."""

    upload_days: int = 30
    """Delete an upload when no order has named it for so many days."""

    def __post_init__(self) -> None:
        """Refuse early what would otherwise fail late."""
        Listen.parse(self.api_listen)
        Listen.parse(self.gateway_listen)
        if len(self.names) > MAX_NAMES:
            raise Invalid("Too many names", got=len(self.names), expected=f"at most {MAX_NAMES}")
        for name in self.names:
            check_name(name)
        if self.evidence_days is not None and not 0 <= self.evidence_days <= MAX_DAYS:
            raise Invalid("Evidence cannot be kept so long", got=self.evidence_days, expected=f"0 to {MAX_DAYS} days")
        if not 1 <= self.upload_days <= MAX_DAYS:
            raise Invalid("Uploads cannot be kept so long", got=self.upload_days, expected=f"1 to {MAX_DAYS} days")
        if not 0 <= self.max_upload <= MAX_UPLOAD:
            raise Invalid("Uploads cannot be so large", got=self.max_upload, expected=f"0 to {MAX_UPLOAD} bytes")

    @property
    def evidence_lasts(self) -> timedelta | None:
        """How long evidence is kept; None for ever, which 0 days mean too."""
        return timedelta(days=self.evidence_days) if self.evidence_days else None

    @property
    def uploads_last(self) -> timedelta:
        """How long an upload is kept that no order names."""
        return timedelta(days=self.upload_days)

    @property
    def api(self) -> Listen:
        """`api_listen`, parsed."""
        return Listen.parse(self.api_listen)

    @property
    def gateway(self) -> Listen:
        """`gateway_listen`, parsed."""
        return Listen.parse(self.gateway_listen)

    @property
    def advertised(self) -> tuple[str, ...]:
        """The names that agents are told: those that were set, or what can be told from where we listen."""
        if self.names:
            return self.names
        return (socket.gethostname(),) if self.gateway.anywhere else (self.gateway.host,)

    @property
    def certified(self) -> tuple[str, ...]:
        """Every name and address that our certificate should carry."""
        return tuple(dict.fromkeys([*self.names, *self._listening(), *LOOPBACK, *_hostname()]))

    def _listening(self) -> Iterator[str]:
        for listen in (self.api, self.gateway):
            if not listen.anywhere:
                yield listen.host


def authority_of(host: str, port: int) -> str:
    """`host:port` as a URL has it: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(host: str, port: int) -> str:
    """The base URL of a port of ours."""
    return f"https://{authority_of(host, port)}"


def _hostname() -> Iterator[str]:
    """Our host name, if a certificate can carry it."""
    name = socket.gethostname()
    if name and _is_dns_name(name):
        yield name


def check_name(name: str) -> None:
    """Invalid unless it is an address or a host name that a certificate can carry."""
    try:
        ip_address(name)
    except ValueError:
        if not _is_dns_name(name):
            raise Invalid("A name of the server is wrong", got=name[:100], expected="a host name or address") from None


def _is_dns_name(name: str) -> bool:
    labels = name.rstrip(".").split(".")
    longest, longest_label = 253, 63
    return len(name) <= longest and all(
        0 < len(label) <= longest_label and label.isascii() and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )
