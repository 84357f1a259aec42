"""The network isolation of one endpoint as everybody tells it: server, console, command line, the endpoint itself.

`status` is the one function that decides what the state is, from what is written down and what the kernel says.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from stanch.core.errors import Invalid
from stanch.core.exclusion import MAX_TEXT, Exclusion, Profile
from stanch.core.host import Effect
from stanch.core.model import LooseModel, Model
from stanch.core.network import IsolationRules, IsolationState, KernelIsolation
from stanch.core.types import Instant, Text

T = TypeVar("T")

MAX_LINES = 100
MAX_TOLD = 1000
"""Exclusions that a state tells; the rest is counted."""


class Phase(StrEnum):
    """What is written down about an isolation, in `detail["phase"]` of its effect."""

    UNCONFIRMED = "unconfirmed"
    """It is being put in force; the server has not confirmed it."""

    IN_FORCE = "in-force"
    RELEASING = "releasing"


class Tampering(LooseModel):
    """Somebody else changed the isolation's rules."""

    at: Instant
    """When, by the agent's clock."""

    what: Text
    """What was changed."""

    who: Text
    """The process and account that did it, as far as anybody can tell."""

    repaired: bool
    """Were the rules put back?"""


class IsolationStatus(LooseModel):
    """Is the endpoint cut off, since and until when, by whom and why, and what is not covered."""

    state: IsolationState
    """released, isolating, isolated, releasing, tampered or partial."""

    since: Instant | None = None
    """Since when it is in force, by the agent's clock."""

    until: Instant | None = None
    """When it lifts itself; null for never, or if released."""

    by: Text = ""
    """Who asked for it."""

    origin: Text = ""
    """How the request came in: console, cli, rule, local, ..."""

    why: Text = ""
    """The reason that was given."""

    order: Text = ""
    """The order."""

    task: Text = ""
    """The task: a release code belongs to one."""

    allow: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    """Exclusions as they were ordered; of more than a thousand, how many more."""

    profiles: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    """Profiles that are on."""

    not_covered: Annotated[tuple[Text, ...], Field(max_length=MAX_LINES)] = ()
    """Traffic that the isolation cannot reach on this machine, one line each."""

    not_open: Annotated[tuple[Text, ...], Field(max_length=MAX_LINES)] = ()
    """Exclusions that open nothing now, and why: a name without an address, a unit that does not run."""

    tampered: Tampering | None = None
    """The last time that somebody else changed the rules."""


def status(
    effect: Effect | None,
    kernel: KernelIsolation,
    *,
    due: bool = False,
    not_open: Sequence[str] = (),
    tampered: Tampering | None = None,
) -> IsolationStatus:
    """The state of an isolation from what is written down (`effect`) and what the kernel says.

    `due`: has its deadline passed? Then the kernel has lifted it, or is about to.
    """
    state = _state(effect, kernel, due=due)
    if effect is None:
        return IsolationStatus(state=state, not_covered=_lines(kernel.not_covered), tampered=tampered)
    return IsolationStatus(
        state=state,
        since=effect.since,
        until=effect.until,
        by=effect.by,
        origin=effect.origin,
        why=effect.reason,
        order=effect.order,
        task=effect.task,
        allow=tuple(shortened(effect.detail.get("allow", ()), MAX_TOLD)),
        profiles=tuple(effect.detail.get("profiles", ())),
        not_covered=_lines(kernel.not_covered),
        not_open=_lines(not_open),
        tampered=tampered,
    )


def _state(effect: Effect | None, kernel: KernelIsolation, *, due: bool) -> IsolationState:
    in_kernel = kernel.state is not IsolationState.RELEASED
    if effect is None:
        # Rules without a line on the disk: they end by their own deadline, and nobody renews them.
        return IsolationState.PARTIAL if in_kernel else IsolationState.RELEASED
    phase = phase_of(effect)
    if phase is Phase.RELEASING or due:
        return IsolationState.RELEASING
    if phase is Phase.UNCONFIRMED:
        return IsolationState.ISOLATING
    return IsolationState.TAMPERED if kernel.damaged or not in_kernel else kernel.state


def phase_of(effect: Effect) -> Phase:
    """What is written down about an isolation; what cannot be read is in force."""
    try:
        return Phase(effect.detail.get("phase", Phase.IN_FORCE))
    except ValueError:
        return Phase.IN_FORCE


def shortened(items: Sequence[str], most: int) -> list[str]:
    """The first of them; in the place of the others, how many they are."""
    rest = len(items) - most
    return [*items[:most], *([f"... and {rest} more"] if rest > 0 else [])]


def _lines(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(one[:4000] for one in lines[:MAX_LINES])


def readable_order(
    detail: Mapping[str, Any],
) -> tuple[tuple[Exclusion, ...], tuple[Profile, ...] | None, tuple[str, ...]]:
    """What was ordered to stay open: exclusions, profiles (None if nothing is said), and what cannot be read.

    A journal may be of another version of the agent, which knew other words.
    """
    allow, lost = _each_readable(detail.get("allow", ()), Exclusion.parse)
    profiles, unknown = _each_readable(detail.get("profiles", ()), Profile)
    lines = tuple(f"{one} opens nothing: this agent does not know what it means" for one in (*lost, *unknown))
    return allow, profiles if "profiles" in detail else None, lines


def _each_readable(words: object, read: Callable[[Any], T]) -> tuple[tuple[T, ...], list[str]]:
    found, lost = [], []
    for one in words if isinstance(words, list | tuple) else ():
        try:
            found.append(read(one))
        except ValueError:
            lost.append(str(one)[:MAX_TEXT])
    return tuple(found), lost


# --- the rules on the disk -------------------------------------------------------------------------------------------

_RULES = TypeAdapter(IsolationRules)


def rules_json(rules: IsolationRules) -> dict[str, Any]:
    """The rules in plain JSON, for the journal: whoever restores them needs no resolver."""
    plain: dict[str, Any] = _RULES.dump_python(rules, mode="json", exclude_defaults=True)
    return plain


def rules_of(plain: Mapping[str, Any]) -> IsolationRules:
    """The rules that were written down; Invalid if these are none."""
    try:
        return _RULES.validate_python(plain)
    except ValidationError as error:
        raise Invalid("These are no isolation rules", got=error.errors(include_url=False)[0]["loc"]) from None


# --- the release code ------------------------------------------------------------------------------------------------

CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: nothing in it looks like anything else."""

CODE_LENGTH = 16
"""Characters of 5 bits: 80 bits, more than anybody can try."""

ITERATIONS = 1_000
MAX_ITERATIONS = 1_000_000

_LOOKALIKES = str.maketrans("OILU", "011V")


class ReleaseCode(Model):
    """What an endpoint needs to recognise its release code: nothing from which the code follows."""

    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Random, hexadecimal."""

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """PBKDF2-HMAC-SHA256 of the code, hexadecimal."""

    iterations: Annotated[int, Field(ge=1, le=MAX_ITERATIONS)] = ITERATIONS
    """Of PBKDF2."""

    @classmethod
    def of(cls, code: str, salt: bytes, *, iterations: int = ITERATIONS) -> "ReleaseCode":
        """What recognises this code."""
        return cls(salt=salt.hex(), key=_derived(code, salt, iterations).hex(), iterations=iterations)

    def opens(self, typed: str) -> bool:
        """Is this the code? However it was typed: small letters, spaces, dashes, O for 0. In constant time."""
        return hmac.compare_digest(_derived(typed, bytes.fromhex(self.salt), self.iterations), bytes.fromhex(self.key))


def _derived(code: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", plain_code(code).encode(), salt, iterations)


def plain_code(typed: str) -> str:
    """A code without what people add: the same for every way to write it."""
    letters = typed[:100].upper().translate(_LOOKALIKES)
    return "".join(one for one in letters if one in CODE_ALPHABET)


def show_code(code: str) -> str:
    """In groups of four, to be read aloud."""
    return "-".join(code[at : at + 4] for at in range(0, len(code), 4))
