"""The agent's places, as the command line names them."""

from pathlib import Path

from stanch.agent.settings import Settings
from stanch.cli import places


def test_the_places_are_those_of_the_agent():
    """The command line names the places itself, to stay quick; the agent's own settings say the same."""
    assert Settings() == Settings(config=places.CONFIG, state=places.STATE, socket=places.SOCKET)
    named = {places.CONFIG_VARIABLE: "/c", places.STATE_VARIABLE: "/s", places.SOCKET_VARIABLE: "/k"}
    assert Settings.from_environment(named) == Settings(config=Path("/c"), state=Path("/s"), socket=Path("/k"))
