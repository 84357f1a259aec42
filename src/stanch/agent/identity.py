"""Who this endpoint is: its name, its key and certificate, whom it trusts, and where on the machine it may act.

Two files in the state folder: `credentials-*.pem` (private key and certificate) and `identity.json`, which says which
credentials are valid. The second is written last and atomically, so that a crash in the middle of an enrolment or a
renewal leaves the earlier identity, or none, but never half of one.
"""

import os
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Self

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import Field, ValidationError

from stanch.agent.host.namespace import Namespace
from stanch.core.errors import NotFound, VerificationFailed
from stanch.core.model import LooseModel
from stanch.core.types import Id, Text
from stanch.disk.atomic import atomic_write

IDENTITY_FILE = "identity.json"
MAX_IDENTITY_BYTES = 256 * 1024

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO: the same in every kernel since 3.8."""


class Binding(LooseModel):
    """The namespaces in which this identity may act: an agent that is started elsewhere refuses."""

    boot_id: Text
    """The boot during which these numbers hold; the kernel gives out new ones at the next."""
    net: int
    """Inode of the network namespace."""
    pid: int
    """Inode of the pid namespace."""

    @classmethod
    def here(cls, boot_id: str) -> Self:
        """The namespaces of this process."""
        return cls(boot_id=boot_id, net=Namespace.current("net").inode, pid=Namespace.current("pid").inode)

    @property
    def on_the_machine(self) -> bool:
        """Is it the machine itself, as opposed to a container or a test?"""
        return self.pid == _INITIAL_PID_NAMESPACE

    def check(self, here: Self) -> None:
        """Raise VerificationFailed unless `here` is where it was made or, after a reboot, a place of that kind."""
        rebooted = self.boot_id != here.boot_id
        if (rebooted and self.on_the_machine == here.on_the_machine) or self == here:
            return
        raise VerificationFailed(
            "This identity was made in other namespaces than the agent runs in",
            got=f"net {here.net}, pid {here.pid}",
            expected=f"net {self.net}, pid {self.pid}",
            hint="Enrol again where the agent is to act: stanch agent enroll --again.",
        )


class Identity(LooseModel):
    """The content of `identity.json`."""

    endpoint: Id
    """Who we are: the common name of the certificate."""
    urls: Annotated[tuple[Text, ...], Field(min_length=1, max_length=32)]
    """Where the gateway is, as enrolment said."""
    ca: Annotated[str, Field(max_length=20_000)]
    """The only CA that the server's certificate may come from, PEM."""
    signing_keys: Annotated[tuple[Mapping[str, str], ...], Field(min_length=1, max_length=8)]
    """Public keys (JWK) that may sign envelopes, as enrolment said; the journal knows later rotations."""
    binding: Binding
    """Where it may act."""
    credentials_file: Annotated[str | None, Field(pattern=r"^credentials-[0-9A-Za-z_-]{1,128}\.pem$")] = None
    """The file of a renewed key and certificate; null for those of the enrolment."""
    proxy: Annotated[Text | None, Field(repr=False)] = None
    """URL of the proxy that the enrolment went through; it may hold a password, so it is never shown."""

    @classmethod
    def load(cls, state: Path) -> Self:
        """The identity in a state folder.

        NotFound if this endpoint was never enrolled; VerificationFailed if others could have read or changed it.
        """
        path = state / IDENTITY_FILE
        if not path.exists():
            raise NotFound(
                "This endpoint is not enrolled",
                got=f"no {path}",
                hint="Run: stanch agent enroll --server URL --token TOKEN --ca-pin SHA256",
            )
        check_private(state)
        identity = cls._parse(path)
        check_private(identity.credentials(state))
        return identity

    @classmethod
    def _parse(cls, path: Path) -> Self:
        check_private(path)
        with path.open("rb") as file:
            raw = file.read(MAX_IDENTITY_BYTES + 1)
        try:
            return cls.model_validate_json(raw[:MAX_IDENTITY_BYTES])
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            raise VerificationFailed(
                f"{path} is damaged", got=".".join(map(str, first["loc"])), expected=first["msg"], hint="Enrol again."
            ) from None

    def save(self, state: Path, credentials: bytes | None = None) -> None:
        """Write it to a state folder, the credentials (PEM key and certificate) first."""
        if credentials is not None:
            atomic_write(self.credentials(state), credentials)
        atomic_write(state / IDENTITY_FILE, self.model_dump_json(indent=2).encode())

    def credentials(self, state: Path) -> Path:
        """The file that holds the private key and the certificate."""
        return state / (self.credentials_file or f"credentials-{self.endpoint}.pem")

    def renewed(self) -> Self:
        """The same identity, with credentials of another name: the ones in use are never overwritten."""
        return self.model_copy(update={"credentials_file": f"credentials-{self.endpoint}-{token_hex(8)}.pem"})

    def remove_earlier(self, state: Path) -> None:
        """Remove credentials of this endpoint that are not its own any more."""
        for old in set(state.glob(f"credentials-{self.endpoint}*.pem")) - {self.credentials(state)}:
            old.unlink()

    def tls(self, state: Path) -> ssl.SSLContext:
        """TLS 1.3 to our own server, with our certificate."""
        context = trusting(self.ca)
        context.load_cert_chain(self.credentials(state))
        return context

    def keys(self) -> dict[str, OKPKey]:
        """The trusted signing keys by `kid`; VerificationFailed if one is no Ed25519 key."""
        return dict(map(read_signing_key, self.signing_keys))


def trusting(ca: str) -> ssl.SSLContext:
    """TLS 1.3 that accepts certificates of this CA (PEM) alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca)
    return context


def read_signing_key(jwk: Mapping[str, str]) -> tuple[str, OKPKey]:
    """A public key and its `kid`."""
    try:
        key = OKPKey.import_key(dict(jwk))
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise VerificationFailed("A signing key cannot be used", got=error, expected="an Ed25519 JWK") from None
    if jwk.get("crv") != "Ed25519" or not jwk.get("kid") or "d" in jwk:
        raise VerificationFailed(
            "A signing key cannot be used",
            got=f"crv {jwk.get('crv')}, kid {jwk.get('kid')}",
            expected="a public Ed25519 JWK with a kid",
        )
    return jwk["kid"], key


def make_private(folder: Path) -> None:
    """Make a folder that only this account may enter, or check the one that is there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)


def check_private(path: Path) -> None:
    """Raise VerificationFailed if anybody else could read or change what is at `path`."""
    try:
        found = os.lstat(path)
    except OSError as error:
        raise VerificationFailed(f"{path} cannot be read", got=error.strerror, hint="Enrol again.") from None
    mode, odd = stat.S_IMODE(found.st_mode), stat.S_ISLNK(found.st_mode)
    if found.st_uid == 0 != os.geteuid():
        hint = "Try again as root, with sudo, or with a folder of your own."
        raise VerificationFailed(f"{path} is root's", got=f"user {os.geteuid()}", expected="root", hint=hint)
    if odd or mode & 0o077 or found.st_uid != os.geteuid():
        wanted = "0700" if stat.S_ISDIR(found.st_mode) else "0600"
        raise VerificationFailed(
            f"{path} is open to others than the agent",
            got=f"{'a link, ' if odd else ''}mode {mode:04o}, owner {found.st_uid}",
            expected=f"mode {wanted}, owner {os.geteuid()}",
            hint=f"If nobody has used it: chown {os.geteuid()} {path} && chmod {wanted} {path}. Otherwise enrol again.",
        )
