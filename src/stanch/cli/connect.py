"""From a command to the server: the saved session, opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stanch.client.api import Client


@contextmanager
def connected(*, patience: float = 30.0) -> Iterator["Client"]:
    """A client of the server that was signed in to; NotAuthenticated if none was. Patience is in seconds."""
    from stanch.client.api import Client
    from stanch.client.session import default_path, load
    from stanch.core.errors import NotAuthenticated
    from stanch.core.policy import Origin

    session = load(default_path())
    if not session.token:
        raise NotAuthenticated("Nobody is signed in here any more", hint=f"Sign in again: stanch login {session.url}")
    with Client.of(session, origin=Origin.CLI, patience=patience) as client:
        yield client
