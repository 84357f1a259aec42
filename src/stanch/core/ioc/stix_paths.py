"""Where on an endpoint the properties of STIX objects are found: object paths to documents and terms. A table.

A path that is not here becomes a term of the document `STIX`, which no endpoint knows: unknown, and no error.
"""

from collections.abc import Mapping
from dataclasses import dataclass

NOWHERE = "STIX"
"""The document of what has no place here."""
LONGEST_PATH = 500
"""Characters of a path that has no place here: each of the values it is compared with bears it."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a property may be: one of these is enough."""

    type: str
    terms: tuple[str, ...]
    """Document/Path."""
    exact: bool = True
    """Do upper and lower case differ? In STIX they do, but not in what has a spelling of its own on each system."""
    turned: tuple[str, ...] = ()
    """Where it is if the endpoint was the destination: a host sees its connections from both ends."""


def _text(*terms: str, exact: bool = True) -> Places:
    return Places("string", terms, exact)


def _ends(document: str, *, reference: str = "") -> Mapping[str, Places]:
    """The ends of a connection: outgoing, the source is this side; incoming, the destination is."""
    kinds = {"ref.value": ("IP", "IP"), "port": ("int", "Port")}
    return {
        f"{reference}{end}_{name}": Places(
            kind, (f"{document}/{here}{suffix}",), turned=(f"{document}/{there}{suffix}",)
        )
        for name, (kind, suffix) in kinds.items()
        for end, here, there in (("src", "local", "remote"), ("dst", "remote", "local"))
    }


def _hashes(prefix: str, document: str) -> Mapping[str, Places]:
    return {
        f"{prefix}hashes.{name}": Places("hash", (f"{document}/{term}",), exact=False)
        for name, term in (("MD5", "Md5sum"), ("SHA1", "Sha1sum"), ("SHA256", "Sha256sum"))
    }


_FILE: Mapping[str, Places] = {
    "name": _text("FileItem/FileName"),
    "size": Places("int", ("FileItem/SizeInBytes",)),
    "parent_directory_ref.path": _text("FileItem/FilePath"),
    "created": Places("date", ("FileItem/Created",)),
    "modified": Places("date", ("FileItem/Modified",)),
    "accessed": Places("date", ("FileItem/Accessed",)),
    "ctime": Places("date", ("FileItem/Created",)),
    "mtime": Places("date", ("FileItem/Modified",)),
    "atime": Places("date", ("FileItem/Accessed",)),
    **_hashes("", "FileItem"),
}

_PROCESS: Mapping[str, Places] = {
    "pid": Places("int", ("ProcessItem/pid",)),
    "name": _text("ProcessItem/name"),
    "command_line": _text("ProcessItem/arguments"),
    "created": Places("date", ("ProcessItem/startTime",)),
    "created_time": Places("date", ("ProcessItem/startTime",)),
    "parent_ref.pid": Places("int", ("ProcessItem/parentpid",)),
    "parent_ref.name": _text("ProcessItem/parentName"),
    "creator_user_ref.account_login": _text("ProcessItem/Username"),
    "creator_user_ref.user_id": _text("ProcessItem/SecurityID"),
    "binary_ref.name": _text("ProcessItem/name"),
    "image_ref.name": _text("ProcessItem/name"),
    **_hashes("binary_ref.", "ProcessItem"),
    **_hashes("image_ref.", "ProcessItem"),
    **_ends("ProcessItem/PortList/PortItem", reference="opened_connection_refs."),
}

_TRAFFIC: Mapping[str, Places] = {
    **_ends("PortItem"),
    "protocols": _text("PortItem/protocol", exact=False),
}

_ACCOUNT: Mapping[str, Places] = {
    "account_login": _text("UserItem/Username"),
    "user_id": _text("UserItem/SecurityID"),
    "display_name": _text("UserItem/fullname"),
    "extensions.unix-account-ext.home_dir": _text("UserItem/homedirectory"),
    "extensions.unix-account-ext.shell": _text("UserItem/shell"),
    "extensions.unix-account-ext.groups": _text("UserItem/grouplist/groupname"),
}

_MAC = ("ArpEntryItem/PhysicalAddress", "SystemInfoItem/MAC")
_NAMES = ("DnsEntryItem/Host", "DnsEntryItem/RecordName", "DnsEntryItem/RecordData/Host")

_OBJECTS: Mapping[str, Mapping[str, Places]] = {
    "file": _FILE,
    "directory": {"path": _text("FileItem/FilePath")},
    "process": _PROCESS,
    "network-traffic": _TRAFFIC,
    "user-account": _ACCOUNT,
    "ipv4-addr": {
        "value": Places("IP", ("PortItem/remoteIP", "ArpEntryItem/IPv4Address", "DnsEntryItem/RecordData/IPv4Address"))
    },
    "ipv6-addr": {
        "value": Places("IP", ("PortItem/remoteIP", "ArpEntryItem/IPv6Address", "DnsEntryItem/RecordData/IPv6Address"))
    },
    "mac-addr": {"value": _text(*_MAC, exact=False)},
    "domain-name": {
        "value": _text(*_NAMES, exact=False),
        "resolves_to_refs.value": Places(
            "IP", ("DnsEntryItem/RecordData/IPv4Address", "DnsEntryItem/RecordData/IPv6Address")
        ),
    },
}

PATHS: Mapping[str, Places] = {
    f"{name}:{path}": places for name, paths in _OBJECTS.items() for path, places in paths.items()
}
"""Object path, without quotes and without the numbers of lists, to where that is."""


def places_of(kind: str, steps: tuple[str, ...]) -> Places:
    """Where a property of an object of this kind is."""
    named = [_hash_name(step) if above == "hashes" else step for above, step in zip(("", *steps), steps, strict=False)]
    path = f"{kind}:{'.'.join(named)}"
    return PATHS.get(path) or Places("string", (f"{NOWHERE}/{kind}:{'.'.join(steps)}"[:LONGEST_PATH],))


def _hash_name(step: str) -> str:
    """`SHA-256`, `SHA256` and `sha256` are the same."""
    return step.replace("-", "").replace("_", "").upper()
