"""The task machine, against a little model of its own: what is final stays, and nothing is skipped."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stanch.core.errors import IllegalTransition
from stanch.core.task import ANSWER_OF, FINAL, OPEN, TRANSITIONS, Event, State, sources, transition

MODEL = {
    State.HELD: {Event.APPROVE: State.QUEUED, Event.CANCEL: State.CANCELLED, Event.EXPIRE: State.EXPIRED},
    State.QUEUED: {Event.SEND: State.SENT, Event.CANCEL: State.CANCELLED, Event.EXPIRE: State.EXPIRED},
    State.SENT: {Event.START: State.RUNNING, Event.LOSE: State.UNKNOWN},
    State.RUNNING: {Event.LOSE: State.UNKNOWN},
    State.UNKNOWN: {},
}
"""Written from the words of the design, not from the code."""

ANSWERS = {
    Event.DONE: State.DONE,
    Event.FAIL: State.FAILED,
    Event.REFUSE: State.REFUSED,
    Event.STOP: State.CANCELLED,
}
ANSWERABLE = {State.SENT, State.RUNNING, State.UNKNOWN}


def expected(state: State, event: Event) -> State | None:
    """Where the model goes; None if it may not."""
    if event in ANSWERS and state in ANSWERABLE:
        return ANSWERS[event]
    return MODEL.get(state, {}).get(event)


class TaskLife(RuleBasedStateMachine):
    """Any events in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.HELD
        self.past = [State.HELD]

    @rule(event=st.sampled_from(Event))
    def happens(self, event: Event) -> None:
        """The machine does what the model does."""
        wanted = expected(self.state, event)
        if wanted is None:
            with pytest.raises(IllegalTransition):
                transition(self.state, event)
        else:
            self.state = transition(self.state, event)
            assert self.state is wanted
            self.past.append(self.state)

    @invariant()
    def nothing_ran_before_it_was_sent(self) -> None:
        """What ran was sent; what was sent was approved."""
        if State.RUNNING in self.past:
            assert State.SENT in self.past
        if State.SENT in self.past:
            assert State.QUEUED in self.past

    @invariant()
    def only_unknown_is_corrected(self) -> None:
        """After a final state comes nothing, except that unknown is corrected once."""
        finals = [state for state in self.past if state.final]
        assert finals == self.past[len(self.past) - len(finals) :]
        assert all(state is State.UNKNOWN for state in finals[:-1])
        assert len(finals) <= 2

    @invariant()
    def expired_was_never_sent(self) -> None:
        """An expired task certainly did nothing."""
        if self.state is State.EXPIRED:
            assert State.SENT not in self.past


TestTaskLife = TaskLife.TestCase


@pytest.mark.parametrize("event", list(Event))
@pytest.mark.parametrize("state", list(State))
def test_every_pair_is_decided(state: State, event: Event) -> None:
    """For each state and event, the machine and the model agree."""
    wanted = expected(state, event)
    assert TRANSITIONS.get((state, event)) is wanted
    assert (state in sources(event)) is (wanted is not None)


def test_states_are_open_or_final() -> None:
    """No state is both, and none is neither."""
    assert frozenset(State) == OPEN | FINAL
    assert not OPEN & FINAL


def test_every_report_of_an_endpoint_is_an_event() -> None:
    """Each state that an endpoint may report is reached by exactly one event."""
    for state, event in ANSWER_OF.items():
        assert transition(State.SENT, event) is state


def test_the_error_names_what_would_be_possible() -> None:
    """An illegal transition says what was tried and what is allowed."""
    with pytest.raises(IllegalTransition) as raised:
        transition(State.QUEUED, Event.DONE)
    assert raised.value.got == "done"
    assert raised.value.expected == "cancel, expire, send"
