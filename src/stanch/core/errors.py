"""Every error of Stanch: one shallow tree with stable codes, statuses, exit codes and advice.

StanchError
├── Invalid                 the request itself is wrong
│   ├── UnknownAction
│   └── TooLarge
├── NotAuthenticated        who are you?
├── Denied                  you may not
├── NotFound
├── Conflict                true, but not now
│   ├── IllegalTransition
│   └── TokenSpent
├── VerificationFailed      something signed or pinned is not what it must be
│   ├── BadSignature
│   ├── WrongEndpoint
│   ├── Expired
│   ├── Replayed
│   └── Outdated
├── Refused                 the endpoint will not do it
│   ├── Unsupported         it cannot, and says what would make it possible
│   ├── ForbiddenHere       its owner forbids it
│   ├── Protected           the target must not be touched
│   └── VaultFull           there is no room to keep what would be taken
├── ActionFailed            it was tried
│   ├── NotVerified         the effect was not seen
│   ├── Unconfirmed         the server was not reachable under the new rules; rolled back
│   ├── TargetGone
│   ├── TimedOut
│   └── Interrupted         the agent stopped in the middle and the effect cannot be told
├── Cancelled
└── Unavailable             a part of Stanch does not answer
    └── TooManyRequests     ask again later
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from pydantic import Field

from stanch.core.model import LooseModel

MAX_TEXT = 4000
_Text = Annotated[str, Field(max_length=MAX_TEXT)]


class ErrorBody(LooseModel):
    """An error as it crosses a boundary: REST, the link, `--json`."""

    code: Annotated[str, Field(max_length=100)]
    """Stable code, for programs."""

    message: _Text
    """One sentence, for people."""

    got: _Text | None = None
    """What was found."""

    expected: _Text | None = None
    """What would have been right."""

    hint: _Text | None = None
    """What to do next."""


def _tellable(text: str) -> str:
    """Bounded, and without the lone surrogates that file names of arbitrary bytes bring: no wire carries them."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


class StanchError(Exception):
    """The root: something went wrong inside Stanch, and we do not know it better."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    openc2_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str | None] = None

    def __init__(self, message: str, *, got: object = None, expected: object = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = _tellable(message)
        self.got = None if got is None else _tellable(str(got))
        self.expected = None if expected is None else _tellable(str(expected))
        self.hint = _tellable(hint or self.default_hint or "") or None

    def __str__(self) -> str:
        """Everything a person needs, in one line."""
        sides = [
            f"got {self.got}" if self.got is not None else "",
            f"expected {self.expected}" if self.expected else "",
        ]
        facts = ", ".join(side for side in sides if side)
        return self.message + (f" ({facts})" if facts else "") + (f". {self.hint}" if self.hint else "")

    def body(self) -> ErrorBody:
        """The same, for a wire."""
        return ErrorBody(code=self.code, message=self.message, got=self.got, expected=self.expected, hint=self.hint)

    @classmethod
    def from_body(cls, body: ErrorBody) -> "StanchError":
        """The error that another process met, as the same class here; an unknown code becomes the root."""
        found = next((kind for kind in error_classes() if kind.code == body.code), cls)
        return found(body.message, got=body.got, expected=body.expected, hint=body.hint)

    @classmethod
    def subtree(cls) -> Iterator[type[Self]]:
        """This class and all below it."""
        yield cls
        for child in cls.__subclasses__():
            yield from child.subtree()


class Invalid(StanchError):
    """The request is malformed."""

    code, http_status, openc2_status, exit_code = "invalid", 422, 400, 2


class UnknownAction(Invalid):
    """No such action, or not in this version."""

    code, http_status, openc2_status = "unknown-action", 404, 501
    default_hint = "`stanch actions` lists what there is."


class TooLarge(Invalid):
    """A body, frame or value is over its bound."""

    code, http_status = "too-large", 413


class NotAuthenticated(StanchError):
    """No valid identity came with the request."""

    code, http_status, openc2_status, exit_code = "not-authenticated", 401, 401, 3
    default_hint = "Sign in with `stanch login URL --ca-pin SHA256`."


class Denied(StanchError):
    """The principal has not the right."""

    code, http_status, openc2_status, exit_code = "denied", 403, 403, 4


class NotFound(StanchError):
    """No such thing."""

    code, http_status, openc2_status, exit_code = "not-found", 404, 404, 5


class Conflict(StanchError):
    """Well-formed, but the present state does not allow it."""

    code, http_status, openc2_status, exit_code = "conflict", 409, 400, 6


class IllegalTransition(Conflict):
    """A task cannot go there from where it is."""

    code = "illegal-transition"


class TokenSpent(Conflict):
    """An enrolment token was used up, has expired, or never was."""

    code, http_status = "token-spent", 403
    default_hint = "Make a new one with `stanch token create`."


class VerificationFailed(StanchError):
    """Something signed or pinned is not what it must be."""

    code, http_status, openc2_status, exit_code = "verification-failed", 400, 400, 7


class BadSignature(VerificationFailed):
    """The signature, its algorithm or its key is wrong."""

    code = "bad-signature"


class WrongEndpoint(VerificationFailed):
    """The envelope is for another endpoint."""

    code = "wrong-endpoint"


class Expired(VerificationFailed):
    """Its validity is over."""

    code = "expired"


class Replayed(VerificationFailed):
    """It was seen before."""

    code = "replayed"


class Outdated(VerificationFailed):
    """A newer one of its kind was accepted before."""

    code = "outdated"


class Refused(StanchError):
    """The endpoint will not do it; nothing was changed."""

    code, http_status, openc2_status, exit_code = "refused", 409, 500, 8


class Unsupported(Refused):
    """Cannot be done here; the message says why, the hint what would make it possible."""

    code, openc2_status = "unsupported", 501


class ForbiddenHere(Refused):
    """The owner of the machine forbids it in the local policy."""

    code, openc2_status = "forbidden-here", 403
    default_hint = "The file /etc/stanch/agent.toml on the endpoint decides; the server cannot override it."


class Protected(Refused):
    """The target must not be touched: the machine, or Stanch itself, needs it."""

    code, openc2_status = "protected", 403


class VaultFull(Refused):
    """The vault has no room for it, so nothing was taken."""

    code, openc2_status = "vault-full", 500
    default_hint = "Remove items with quarantine-delete, or raise the limit in the policy of the endpoint's group."


class ActionFailed(StanchError):
    """The endpoint tried, and it did not work."""

    code, http_status, openc2_status, exit_code = "action-failed", 500, 500, 9


class NotVerified(ActionFailed):
    """The action ran, but its effect was not seen afterwards."""

    code = "not-verified"


class Unconfirmed(ActionFailed):
    """The server could not be reached under the new rules, so they were rolled back."""

    code = "unconfirmed"


class TargetGone(ActionFailed):
    """What was to be acted upon is no longer there."""

    code = "target-gone"


class TimedOut(ActionFailed):
    """The time limit of the action was reached."""

    code = "timed-out"


class Interrupted(ActionFailed):
    """The agent stopped in the middle, and whether the effect came about cannot be told."""

    code = "interrupted"


class Cancelled(StanchError):
    """Somebody cancelled it; nothing of it remains."""

    code, http_status, openc2_status, exit_code = "cancelled", 409, 500, 10


class Unavailable(StanchError):
    """A part of Stanch does not answer."""

    code, http_status, openc2_status, exit_code = "unavailable", 503, 503, 11


class TooManyRequests(Unavailable):
    """Somebody asks too often; waiting helps."""

    code, http_status, openc2_status = "too-many-requests", 429, 503


def error_classes() -> tuple[type[StanchError], ...]:
    """The whole tree, root first: what is declared here, not what somebody derives elsewhere."""
    return tuple(one for one in StanchError.subtree() if one.__module__ == __name__)
