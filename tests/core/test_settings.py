"""Are the settings of a group checked where they are written, and read by those who know less or more?"""

import pytest
from pydantic import ValidationError

from stanch.core.exclusion import Profile
from stanch.core.settings import (
    DEFAULT_PROFILES,
    GroupSettings,
    IsolationSettings,
    NewSettings,
    Unconfirmed,
    VaultSettings,
)
from stanch.core.types import hours
from tests.contract.bounds import unbounded, undescribed


def test_a_group_that_says_nothing() -> None:
    """No section is there by default, and a section that is there has safe defaults."""
    assert GroupSettings().isolation is None
    isolation = IsolationSettings()
    assert (isolation.allow, isolation.profiles, isolation.duration) == ((), DEFAULT_PROFILES, hours(5))
    assert DEFAULT_PROFILES == (Profile.DHCP,)
    assert isolation.unconfirmed is Unconfirmed.ROLL_BACK
    assert (isolation.tell, isolation.message) == (False, None)


def test_they_survive_the_wire() -> None:
    """What was written is what is read, defaults left out or not."""
    raw = {
        "allow": ["out tcp 192.0.2.7 remote 443", "10.0.0.0/8"],
        "profiles": ["dns", "updates"],
        "duration": None,
        "tell": True,
        "message": "Off.",
        "unconfirmed": "hold",
    }
    settings = GroupSettings.model_validate({"isolation": raw})
    for how in ({}, {"exclude_defaults": True}):
        assert GroupSettings.model_validate(settings.model_dump(mode="json", **how)) == settings
    assert settings.model_dump(mode="json")["isolation"] == raw


def test_an_old_agent_ignores_a_new_section_and_a_writer_does_not() -> None:
    """On the wire a section that is not known says nothing; where it is written it is a mistake."""
    raw = {"isolation": {"tell": True}, "prevention": {"rules": []}}
    settings = GroupSettings.model_validate(raw)
    assert settings.isolation is not None
    assert settings.isolation.tell
    with pytest.raises(ValidationError, match="prevention"):
        NewSettings.model_validate(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"allow": ["any"]}, "leave everything open"),
        ({"allow": ["0.0.0.0/1", "128.0.0.0/1"]}, "leave everything open"),
        ({"allow": ["tcp any remote 1-2"]}, "one direction only"),
        ({"allow": ["10.0.0.0/8"] * 10_001}, "at most 10000"),
        ({"profiles": ["dhcp"] * 5}, "at most 4"),
        ({"profiles": ["smtp"]}, "dhcp"),
        ({"duration": "0s"}, "from 1s to 9999h"),
        ({"message": "x" * 4001}, "4000"),
        ({"unconfirmed": "wait"}, "hold"),
        ({"allowed": []}, "allowed"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_wrong_is_refused(raw: dict[str, object], why: str) -> None:
    """Exclusions that leave everything open, contradictions, what is too many, too long or misspelt."""
    with pytest.raises(ValidationError, match=why):
        GroupSettings.model_validate({"isolation": raw})


def test_every_setting_is_described_and_bounded() -> None:
    """Forms and the reference show each; none is as large as its writer likes."""
    schema = GroupSettings.model_json_schema()
    assert not undescribed(schema)
    assert not unbounded(schema)


def test_a_vault_that_nobody_has_set() -> None:
    """Two gigabytes; what was quarantined stays, what was deleted can be brought back for a day."""
    vault = VaultSettings()
    assert (vault.limit, vault.keep, vault.keep_deleted) == (2 * 2**30, None, hours(24))
    assert not vault.protect_services


def test_sizes_of_a_policy_may_have_units() -> None:
    """As people write them in TOML; what is told to endpoints is a number."""
    read = GroupSettings.model_validate({"vault": {"limit": "5GiB", "keep": "30d"}})
    assert read.model_dump(mode="json", exclude_defaults=True) == {"vault": {"limit": 5 * 2**30, "keep": "30d"}}


@pytest.mark.parametrize(
    "raw", [{"limit": "1kB"}, {"limit": -1}, {"keep": "0s"}, {"keep_deleted": None}, {"kept": "1d"}]
)
def test_a_vault_that_holds_nothing_is_refused(raw: dict[str, object]) -> None:
    """A limit under a megabyte, no time to bring back what was deleted, or a misspelt setting."""
    with pytest.raises(ValidationError):
        GroupSettings.model_validate({"vault": raw})
