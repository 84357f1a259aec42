"""The types that parameters and results are made of: each parses, shows and describes itself.

A type, never an action's name, decides how a value is asked for and displayed. `describe()` finds the
description of any annotation; derive, the command line and the console build on that alone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from stanch.core.errors import Invalid
from stanch.core.model import Model

MAX_PATH_BYTES = 4095
MAX_PID = 4_194_304
SHORTEST = timedelta(seconds=1)
LONGEST = timedelta(hours=9999)


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """How a type presents itself: a name for docs and forms, an example, one sentence."""

    name: str
    example: str
    help: str


def describe(annotation: Any) -> TypeInfo | None:
    """The description that an annotation carries, looking through Annotated, unions and tuples; None if it has none."""
    return next(_infos(annotation), None)


def _infos(annotation: Any) -> Iterator[TypeInfo]:
    if isinstance(annotation, TypeInfo):
        yield annotation
    own = getattr(annotation, "type_info", None)
    if isinstance(own, TypeInfo):
        yield own
    for part in get_args(annotation):
        yield from _infos(part)


# --- durations -------------------------------------------------------------------------------------------------------

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)


def parse_duration(value: object) -> timedelta:
    """A duration from `5h`, `1h30m`, `90s`, a number of seconds, or a timedelta; ValueError outside 1 s to 9999 h."""
    duration = _read_duration(value)
    if not SHORTEST <= duration <= LONGEST:
        raise ValueError(f"got {value}, expected a duration from 1s to 9999h")
    return duration


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=max(-1.0, min(value, 1e9)))
    text = str(value).strip().lower()
    found = _DURATION.fullmatch(text) if text and len(text) < 40 else None  # noqa: PLR2004 - far above 9999h
    if found is None or not any(found.groups()):
        raise ValueError(f"got {value!r}, expected a duration such as 90s, 30m, 5h or 1h30m")
    seconds = sum(int(n or 0) * unit for n, unit in zip(found.groups(), _UNITS.values(), strict=True))
    return timedelta(seconds=min(seconds, 10**9))


def show_duration(duration: timedelta) -> str:
    """The shortest text that parses to the same duration (whole seconds)."""
    rest, parts = max(1, round(duration.total_seconds())), []
    for unit, size in _UNITS.items():
        if unit != "w" and rest >= size:
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return "".join(parts)


def seconds(n: float) -> timedelta:
    """N seconds."""
    return timedelta(seconds=n)


def minutes(n: float) -> timedelta:
    """N minutes."""
    return timedelta(minutes=n)


def hours(n: float) -> timedelta:
    """N hours."""
    return timedelta(hours=n)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema({"type": "string", "format": "stanch-duration", "examples": ["5h", "90s"], "maxLength": 40}),
    TypeInfo("duration", "5h", "A length of time: 90s, 30m, 5h, 1h30m."),
]

Instant = Annotated[AwareDatetime, TypeInfo("instant", "2026-11-24T12:00:00Z", "A moment, with its time zone.")]


# --- networks --------------------------------------------------------------------------------------------------------

AnyNetwork = IPv4Network | IPv6Network
AnyAddress = IPv4Address | IPv6Address


def parse_network(value: object) -> AnyNetwork:
    """An IPv4 or IPv6 network from `10.0.0.0/8`, `10.0.0.5` or `2001:db8::/32`; ValueError if it is none."""
    if isinstance(value, IPv4Network | IPv6Network):
        return _unmapped(value)
    text = str(value).strip()
    if "%" in text:
        raise ValueError(f"got {text}, expected a network without a zone id")
    return _unmapped(ip_network(text, strict=False))


def _unmapped(network: AnyNetwork) -> AnyNetwork:
    """IPv4-mapped IPv6 is IPv4 to the kernel's sockets: rules for it must be IPv4 rules."""
    mapped_bits = 96
    if isinstance(network, IPv6Network) and network.prefixlen >= mapped_bits:
        address = network.network_address.ipv4_mapped
        if address is not None:
            return IPv4Network((address, network.prefixlen - mapped_bits), strict=False)
    return network


Network = Annotated[
    AnyNetwork,
    BeforeValidator(parse_network),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "format": "ip-network", "examples": ["10.0.0.0/8"], "maxLength": 50}),
    TypeInfo("network", "10.0.0.0/8", "An IPv4 or IPv6 address or network in CIDR form."),
]


def parse_address(value: object) -> AnyAddress:
    """An IPv4 or IPv6 address without a zone, IPv4-mapped IPv6 as IPv4; ValueError if it is none."""
    address = value if isinstance(value, IPv4Address | IPv6Address) else ip_address(str(value))
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError("expected an address without a zone id")
        return address.ipv4_mapped or address
    return address


Address = Annotated[
    AnyAddress,
    BeforeValidator(parse_address),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "format": "ip-address", "maxLength": 45}),
    TypeInfo("address", "10.0.0.5", "An IPv4 or IPv6 address."),
]

Port = Annotated[int, Field(ge=1, le=65535), TypeInfo("port", "443", "A TCP or UDP port.")]


# --- paths -----------------------------------------------------------------------------------------------------------

_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")
_LOOKS_ESCAPED = re.compile(rb"\\(?=x[0-9a-fA-F]{2})")


class EndpointPath(str):
    r"""An absolute path on an endpoint, as text; bytes that are no UTF-8 are written `\xff`.

    Linux paths are bytes. `EndpointPath.of(raw).raw == raw` for every path.
    """

    __slots__ = ()
    type_info = TypeInfo("path", "/etc/passwd", r"An absolute path on the endpoint; odd bytes as \xff.")

    @classmethod
    def of(cls, raw: bytes) -> Self:
        """The text form of a raw path."""
        kept = _LOOKS_ESCAPED.sub(rb"\\x5c", raw)
        return cls(kept.decode("utf-8", "backslashreplace"))

    @property
    def raw(self) -> bytes:
        """The bytes that the kernel is asked for."""
        return b"".join(_path_pieces(self))

    @property
    def name(self) -> str:
        """The last component."""
        return self.rsplit("/", 1)[-1]

    @classmethod
    def parse(cls, value: object) -> Self:
        """An absolute path without NUL, within the kernel's bound; ValueError otherwise."""
        if not isinstance(value, str):
            raise ValueError(f"got {type(value).__name__}, expected text")  # noqa: TRY004 - pydantic wants ValueError
        path = cls(value)
        raw = path.raw
        if not raw.startswith(b"/"):
            raise ValueError(f"got {value[:100]!r}, expected an absolute path")
        if b"\0" in raw or len(raw) > MAX_PATH_BYTES:
            raise ValueError(f"got {len(raw)} bytes, expected at most {MAX_PATH_BYTES} bytes and no NUL")
        # As a shell hands over bytes that are no UTF-8; no JSON could hold those.
        return cls.of(raw) if any("\udc80" <= one <= "\udcff" for one in value) else path

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "type": "string",
            "format": "endpoint-path",
            "examples": ["/etc/passwd"],
            "maxLength": 4 * MAX_PATH_BYTES,
        }


def _path_pieces(text: str) -> Iterator[bytes]:
    if "\\" not in text:
        yield text.encode("utf-8", "surrogateescape")
        return
    end = 0
    for found in _ESCAPED.finditer(text):
        yield text[end : found.start()].encode("utf-8", "surrogateescape")
        yield bytes.fromhex(found[1])
        end = found.end()
    yield text[end:].encode("utf-8", "surrogateescape")


class Glob(EndpointPath):
    r"""A pattern for absolute paths: `*` and `?` within a name, `[a-z]` for one character, `**` for any folders.

    A part that must be taken as it is stands in brackets: `[*]`.
    """

    __slots__ = ()
    type_info = TypeInfo("pattern", "/tmp/**/*.sh", "Absolute path with * ? [a-z] within a name, ** across folders.")  # noqa: S108 - an example

    may_be_path: ClassVar[bool] = False
    """Is a path without a pattern in it one, too?"""

    @classmethod
    def parse(cls, value: object) -> Self:
        """A path with at least one pattern in it and `**` only as a whole name; ValueError otherwise."""
        pattern = super().parse(value)
        parts = pattern.raw.split(b"/")
        if not cls.may_be_path and not any(set(part) & set(b"*?[") for part in parts):
            raise ValueError(f"got {str(pattern)[:100]!r}, expected a pattern with * or ?; a path needs no pattern")
        if any(b"**" in part and part != b"**" for part in parts):
            raise ValueError(f"got {str(pattern)[:100]!r}, expected ** as a whole name between slashes")
        return pattern


class Exclusion(Glob):
    """What is left out: a folder or file by its path, or a pattern for several; with everything below.

    A sign that means something in a pattern, and is part of a name, stands in brackets: `[*]`.
    """

    __slots__ = ()
    type_info = TypeInfo("pattern", "/var/lib/docker", "Absolute path, or a pattern for paths as /home/*/.cache.")
    may_be_path = True

    @classmethod
    def parse(cls, value: object) -> Self:
        """A pattern, or a path; not the root, and no way up, which would leave out all or nothing: ValueError."""
        found = super().parse(value)
        parts = [part for part in found.raw.split(b"/") if part not in {b"", b"."}]
        if not parts or b".." in parts:
            raise ValueError(f"got {str(found)[:100]!r}, expected a path below /, with no .. in it")
        return found


# --- the rest --------------------------------------------------------------------------------------------------------


def _hex(name: str, digits: int) -> tuple[StringConstraints, TypeInfo]:
    pattern = StringConstraints(to_lower=True, strip_whitespace=True, pattern=rf"^[0-9a-fA-F]{{{digits}}}$")
    return pattern, TypeInfo(name, "0" * (digits - 2) + "ff", f"{digits} hexadecimal digits.")


_SHA256 = _hex("sha256", 64)
Sha256 = Annotated[str, _SHA256[0], _SHA256[1]]

_MD5 = _hex("md5", 32)
Md5 = Annotated[str, _MD5[0], _MD5[1]]

VaultId = Annotated[
    str, StringConstraints(pattern=r"^qrt_[0-9a-f]{16}$"), TypeInfo("vault-item", "qrt_01ab…", "An item in the vault.")
]

_PIN = re.compile(r"[0-9a-f]{64}")


def parse_pin(text: str) -> str:
    """The pin of a CA as 64 hexadecimal digits, from any of its usual spellings; Invalid otherwise."""
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if not _PIN.fullmatch(digits):
        raise Invalid(
            "This is no pin of a CA",
            got=text[:100],
            expected="64 hexadecimal digits",
            hint="`stanch token create` prints it, and so does the first start of `stanch server`.",
        )
    return digits


Pid = Annotated[int, Field(ge=1, le=MAX_PID), TypeInfo("pid", "4711", "A process id on the endpoint.")]


class _ShownInt(int):
    """A bounded integer that people read in another form than a number."""

    __slots__ = ()
    most: ClassVar[int] = 2**63 - 1

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        bounded = core_schema.int_schema(ge=0, le=cls.most)
        return core_schema.no_info_after_validator_function(
            cls, bounded, serialization=core_schema.plain_serializer_function_ser_schema(int)
        )


_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,6})?)\s*([kmgtp]?)(i?)b?", re.ASCII | re.IGNORECASE)


def parse_size(value: object) -> object:
    """Bytes from `100MB` (1000s), `100MiB` or `100M` (1024s), or a plain number; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"got {value[:40]!r}, expected bytes such as 1048576, 100MB or 1.5GiB")
    number, unit, binary = found[1], found[2].lower(), found[3] or not value.strip().lower().endswith("b")
    whole, _, part = number.partition(".")
    return int(whole + part) * (1024 if binary else 1000) ** " kmgtp".index(unit or " ") // 10 ** len(part)


class Size(_ShownInt):
    """Bytes; people may write `100MiB`."""

    __slots__ = ()
    type_info = TypeInfo("size", "100MiB", "Bytes, also as 100MB or 1.5GiB.")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        number = super().__get_pydantic_core_schema__(source, handler)
        return core_schema.no_info_before_validator_function(parse_size, number)


def show_size(size: int) -> str:
    """The shortest text that parses to exactly this size: `100MiB`, `1500`."""
    power = max((n for n in range(1, 6) if size and size % 1024**n == 0), default=0)
    return f"{size // 1024**power}{' KMGTP'[power]}iB" if power else str(size)


_OCTAL = re.compile(r"(?:0o)?([0-7]{1,5})", re.ASCII)


def parse_mode(value: object) -> object:
    """Permission bits from text as `chmod` has it, `0755` or `755`; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    found = _OCTAL.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"got {value[:40]!r}, expected octal permission bits such as 0644")
    return int(found[1], 8)


class Mode(_ShownInt):
    """Permission bits of a file; people write `0644`, as `chmod` has it."""

    __slots__ = ()
    most = 0o7777
    type_info = TypeInfo("mode", "0644", "Permission bits in octal, as chmod has them.")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        number = super().__get_pydantic_core_schema__(source, handler)
        return core_schema.no_info_before_validator_function(parse_mode, number)


def show_mode(mode: int) -> str:
    """As `ls` and `chmod` have it: `0644`."""
    return f"{mode:04o}"


Text = Annotated[str, StringConstraints(max_length=4000)]
"""Bounded free text."""

Printed = Annotated[Text, TypeInfo("printed", "done", "What a program printed, line by line.")]
"""Text whose lines are shown as lines."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""A bounded, non-empty name."""

Id = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
"""An identifier made by Stanch."""

Secret = Annotated[SecretStr, Field(max_length=4000), TypeInfo("secret", "********", "Never shown, never logged.")]

_LABEL = r"^[A-Za-z0-9._/-]{1,63}=[A-Za-z0-9._:/-]{0,63}$"


def _parse_label(text: str) -> str:
    """The same text; ValueError, in words, if it is no label."""
    if not re.fullmatch(_LABEL.strip("^$"), text):
        raise ValueError(
            f"got {text[:130]!r}, expected KEY=VALUE such as env=prod, of letters, digits and . _ - /, at most 63 each"
        )
    return text


Label = Annotated[str, AfterValidator(_parse_label), WithJsonSchema({"type": "string", "pattern": _LABEL})]
"""`key=value`."""

_GROUP = r"^[a-z0-9][a-z0-9._-]{0,62}$"


def _parse_group(text: str) -> str:
    """The same text; ValueError, in words, if no group may be called so."""
    if not re.fullmatch(_GROUP.strip("^$"), text):
        raise ValueError(f"got {text[:70]!r}, expected small letters, digits and . _ -, at most 63, such as web-prod")
    return text


GroupName = Annotated[str, AfterValidator(_parse_group), WithJsonSchema({"type": "string", "pattern": _GROUP})]
"""What a group may be called."""


class EvidenceRef(Model):
    """Where bytes taken from an endpoint are kept, and how to check them."""

    type_info: ClassVar[TypeInfo] = TypeInfo("evidence", "tsk_01…", "Bytes taken from the endpoint.")

    id: Id
    """Identifier of the evidence."""

    name: Annotated[str, StringConstraints(max_length=4 * MAX_PATH_BYTES)]
    """What it was called on the endpoint."""

    size: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Bytes."""

    sha256: Sha256
    """Of the whole content."""


class Upload(Model):
    """Bytes that somebody has uploaded to the server, to be put on endpoints."""

    type_info: ClassVar[TypeInfo] = TypeInfo("upload", "./tool.sh", "A file on your side, uploaded with the order.")

    id: Id
    """Identifier of the upload."""

    name: Annotated[str, StringConstraints(max_length=255)] = ""
    """What it was called where it came from."""

    size: Annotated[int, Field(ge=0, le=2**50)]
    """Bytes."""

    sha256: Sha256
    """Of all of it."""


def show_instant(moment: datetime) -> str:
    """ISO 8601, whole seconds, as people read it."""
    return moment.isoformat(sep=" ", timespec="seconds")
