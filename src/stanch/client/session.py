"""Where a signed-in person's session is kept: one small file that only they can read."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from stanch.core.errors import Invalid, NotAuthenticated
from stanch.core.model import LooseModel
from stanch.core.types import Name
from stanch.disk.atomic import atomic_write

MAX_BYTES = 100_000
ENVIRONMENT = "STANCH_SESSION"
"""Names another session file, for scripts and tests."""


class SavedSession(LooseModel):
    """A server, why we trust it, and who we are there."""

    url: Annotated[str, Field(max_length=2000)]
    """Where the server is: https://host:port."""
    ca: Annotated[str, Field(max_length=20_000)]
    """The server's CA, PEM; its pin was checked."""
    token: Annotated[str, Field(max_length=4000, repr=False)] = ""
    """Bearer token; empty after signing out."""
    name: Name
    """Account."""


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """`~/.config/stanch/session.json`, or what the environment says instead."""
    named = environment.get(ENVIRONMENT)
    if named:
        return Path(named)
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "stanch" / "session.json"


def save(path: Path, session: SavedSession) -> None:
    """Keep it, readable by its owner only, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write(path, session.model_dump_json().encode(), mode=0o600)


def load(path: Path) -> SavedSession:
    """The session; NotAuthenticated if there is none, Invalid if the file is not what we wrote."""
    try:
        data = _read(path)
    except FileNotFoundError:
        raise NotAuthenticated("Nobody is signed in here", got=f"no {path}") from None
    try:
        return SavedSession.model_validate_json(data)
    except ValidationError:
        raise Invalid("The session file is damaged", got=path, hint="Sign in again with `stanch login`.") from None


def known(path: Path) -> SavedSession | None:
    """The session, if there is one."""
    try:
        return load(path)
    except NotAuthenticated:
        return None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise Invalid(
                "Others can read the session file",
                got=f"{path} with mode {mode:04o}",
                expected="0600",
                hint=f"Sign out with `stanch logout`, then chmod 600 {path}.",
            )
        return file.read(MAX_BYTES)
