"""From the saved session to the server."""

import pytest

from stanch.cli.connect import connected
from stanch.client.session import load, save
from stanch.core.errors import NotAuthenticated


def test_the_saved_session_is_opened(signed_in):
    """Requests carry its token, and say that they come from the command line."""
    with connected() as client:
        assert client.whoami().name == "alice"
    assert signed_in.headers[-1]["x-stanch-origin"] == "cli"


def test_without_a_session_nobody_is_asked(place):
    """The error says how to sign in."""
    with pytest.raises(NotAuthenticated, match="login"), connected():
        pass


def test_after_signing_out_nobody_is_asked(signed_in, place):
    """A session without its token is no session."""
    save(place, load(place).model_copy(update={"token": ""}))
    with pytest.raises(NotAuthenticated, match="login"), connected():
        pass
    assert not signed_in.requests
