"""The policy of a group: settings of its endpoints, by section, each checked where it is written and where it is read.

A policy is live: an endpoint follows it as long as it belongs to the group. Sections that an endpoint does not know
are ignored, so that an old agent can live with a new server.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from stanch.core.exclusion import Exclusion, Profile, leaves_everything_open
from stanch.core.model import LooseModel, Model
from stanch.core.types import Duration, Size, Text, hours

DEFAULT_PROFILES = (Profile.DHCP,)


class Unconfirmed(StrEnum):
    """What becomes of an isolation under which the server cannot be reached."""

    ROLL_BACK = "roll-back"
    """The endpoint goes back on the network, and says so."""

    HOLD = "hold"
    """It stays isolated, until its deadline or its release code."""


class IsolationSettings(Model):
    """How endpoints of the group are isolated automatically; isolation by hand says itself what stays open."""

    allow: Annotated[tuple[Exclusion, ...], Field(max_length=10_000)] = ()
    """What stays open in automatic isolation."""

    profiles: Annotated[tuple[Profile, ...], Field(max_length=len(Profile))] = DEFAULT_PROFILES
    """Profiles that are on in automatic isolation: dhcp, dns, ntp, updates."""

    duration: Duration | None = hours(5)
    """How long automatic isolation lasts; null for ever."""

    tell: bool = False
    """Tell those who are logged in when their endpoint is isolated automatically."""

    message: Text | None = None
    """What to tell them instead of the standard text."""

    unconfirmed: Unconfirmed = Unconfirmed.ROLL_BACK
    """What to do if the server cannot be reached under an isolation that it ordered by hand. One by a rule, or by root
    at the endpoint, stays."""

    @model_validator(mode="after")
    def _leaves_something_shut(self) -> Self:
        if leaves_everything_open(self.allow):
            raise ValueError("expected exclusions that do not leave everything open")
        return self


class VaultSettings(Model):
    """How much an endpoint keeps in its vault, and for how long."""

    limit: Annotated[Size, Field(ge=1_048_576, le=2**50)] = Size(2 * 2**30)
    """Bytes that the vault may take on the disk; what would exceed it is refused, and told as a detection."""

    keep: Duration | None = None
    """Remove what was quarantined for good after this long; null for never."""

    keep_deleted: Duration = hours(24)
    """How long what was deleted or replaced can be brought back."""

    protect_services: bool = False
    """Refuse to take away the programs of running services too."""


class GroupSettings(LooseModel):
    """All sections. One that is null says nothing: the next group of the endpoint decides."""

    isolation: IsolationSettings | None = None
    """Network isolation."""

    vault: VaultSettings | None = None
    """Quarantine, and what was deleted."""


class NewSettings(GroupSettings):
    """Settings as somebody writes them: a section that is not known is a mistake, and must not be lost in silence."""

    model_config = ConfigDict(extra="forbid")
