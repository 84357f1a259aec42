"""Where the agent keeps its things."""

from pathlib import Path

from stanch.agent.settings import CONFIG_VARIABLE, SOCKET_VARIABLE, STATE_VARIABLE, Settings


def test_the_environment_may_name_each_place():
    """A variable moves its place; the others, and empty ones, leave the usual place."""
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({STATE_VARIABLE: "/s", CONFIG_VARIABLE: ""}) == Settings(state=Path("/s"))
    everything = {STATE_VARIABLE: "/s", CONFIG_VARIABLE: "/c", SOCKET_VARIABLE: "/k"}
    assert Settings.from_environment(everything) == Settings(state=Path("/s"), config=Path("/c"), socket=Path("/k"))


def test_journal_and_addresses_are_in_the_state_folder():
    """Whoever moves the state folder moves all of the agent's memory."""
    settings = Settings(state=Path("/s"))
    assert {settings.journal.parent, settings.addresses.parent} == {Path("/s")}
