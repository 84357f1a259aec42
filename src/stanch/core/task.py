"""The state machine of a task: one order on one endpoint.

                 ┌────────────── cancel ──────────────┐
    held ──approve──▶ queued ──send──▶ sent ──start──▶ running        final: done failed refused cancelled
      └──── expire ─────┘              └──── finish ─────┘                   expired unknown ──finish──▶ (corrected)

`transition` is the only way from one state to the next, on the server and in tests.
"""

from enum import StrEnum

from stanch.core.errors import IllegalTransition


class State(StrEnum):
    """Where a task is."""

    HELD = "held"
    """Waits for a second person."""
    QUEUED = "queued"
    """Waits for its endpoint."""
    SENT = "sent"
    """Was handed to the link; the endpoint may have it."""
    RUNNING = "running"
    """The endpoint said that it has begun."""
    DONE = "done"
    """The effect was seen."""
    FAILED = "failed"
    """It was tried; the error says how it ended."""
    REFUSED = "refused"
    """The endpoint will not or cannot; nothing was changed."""
    CANCELLED = "cancelled"
    """Stopped on request."""
    EXPIRED = "expired"
    """Its validity ended before it was sent."""
    UNKNOWN = "unknown"
    """Interrupted, and nobody can tell; a later report may correct it."""

    @property
    def final(self) -> bool:
        """Will it stay so? Only `unknown` may still be corrected."""
        return self in FINAL


FINAL = frozenset({State.DONE, State.FAILED, State.REFUSED, State.CANCELLED, State.EXPIRED, State.UNKNOWN})
OPEN = frozenset(State) - FINAL


class Event(StrEnum):
    """What can happen to a task."""

    APPROVE = "approve"
    SEND = "send"
    START = "start"
    DONE = "done"
    FAIL = "fail"
    REFUSE = "refuse"
    STOP = "stop"
    """The endpoint says that it has cancelled it."""
    LOSE = "lose"
    """The endpoint, or the sweep, says that it cannot tell."""
    CANCEL = "cancel"
    """A person cancels what was not sent yet."""
    EXPIRE = "expire"


_ANSWERS = {
    Event.DONE: State.DONE,
    Event.FAIL: State.FAILED,
    Event.REFUSE: State.REFUSED,
    Event.STOP: State.CANCELLED,
}
"""The endpoint's own final words: they also correct `unknown`."""

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.HELD, Event.APPROVE): State.QUEUED,
    (State.HELD, Event.CANCEL): State.CANCELLED,
    (State.HELD, Event.EXPIRE): State.EXPIRED,
    (State.QUEUED, Event.SEND): State.SENT,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.QUEUED, Event.EXPIRE): State.EXPIRED,
    (State.SENT, Event.START): State.RUNNING,
    **{(State.SENT, event): state for event, state in _ANSWERS.items()},
    **{(State.RUNNING, event): state for event, state in _ANSWERS.items()},
    **{(State.UNKNOWN, event): state for event, state in _ANSWERS.items()},
    (State.SENT, Event.LOSE): State.UNKNOWN,
    (State.RUNNING, Event.LOSE): State.UNKNOWN,
}

ANSWER_OF: dict[State, Event] = {state: event for event, state in _ANSWERS.items()} | {
    State.UNKNOWN: Event.LOSE,
    State.RUNNING: Event.START,
}
"""The event that an endpoint's report of a state is."""


def transition(state: State, event: Event) -> State:
    """The next state; IllegalTransition if there is none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        allowed = ", ".join(sorted(e for s, e in TRANSITIONS if s is state)) or "nothing"
        raise IllegalTransition(f"A task that is {state} cannot {event}", got=event, expected=allowed) from None


def sources(event: Event) -> tuple[State, ...]:
    """The states from which an event is possible: the condition of a compare-and-set."""
    return tuple(state for state, one in TRANSITIONS if one is event)
