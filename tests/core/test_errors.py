"""The tree of errors has unique codes, and an error keeps its class and its advice across a wire."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import MAX_TEXT, ErrorBody, Invalid, StanchError, TooLarge, UnknownAction, error_classes

ours = pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)


def test_codes_are_unique() -> None:
    """A program can tell every error by its code."""
    codes = [kind.code for kind in error_classes()]
    assert len(codes) == len(set(codes))


@ours
def test_statuses_are_real(kind: type[StanchError]) -> None:
    """Every class has a status of HTTP and an exit code that a shell can carry."""
    assert HTTPStatus(kind.http_status) >= HTTPStatus.BAD_REQUEST
    assert 0 < kind.exit_code < 64


@ours
def test_the_module_draws_every_class(kind: type[StanchError]) -> None:
    """The tree in the module's docstring is complete."""
    module = __import__("stanch.core.errors", fromlist=["errors"])
    assert kind.__name__ in str(module.__doc__)
    assert kind.__doc__


@ours
@given(
    message=st.text(max_size=50), got=st.none() | st.text(), expected=st.none() | st.text(), hint=st.text(min_size=1)
)
def test_errors_cross_a_wire(
    kind: type[StanchError], message: str, got: str | None, expected: str | None, hint: str
) -> None:
    """An error that went through JSON is of the same class and says the same."""
    error = kind(message, got=got, expected=expected, hint=hint)
    back = StanchError.from_body(ErrorBody.model_validate_json(error.body().model_dump_json()))
    assert type(back) is kind
    assert back.body() == error.body()
    assert str(back) == str(error)


def test_unknown_codes_become_the_root() -> None:
    """An error of a newer peer is still an error."""
    assert type(StanchError.from_body(ErrorBody(code="from-the-future", message="m"))) is StanchError


def test_the_line_says_got_expected_and_hint() -> None:
    """A person reads both sides and what to do, in one line."""
    assert str(Invalid("No", got=5, expected="six", hint="Try six.")) == "No (got 5, expected six). Try six."
    assert str(Invalid("No")) == "No"


def test_advice_of_the_class_is_the_default() -> None:
    """A class that always has the same advice gives it by itself."""
    assert UnknownAction("x").hint == UnknownAction.default_hint
    assert UnknownAction("x", hint="other").hint == "other"


def test_texts_are_cut() -> None:
    """A hostile value does not make an endless error."""
    error = TooLarge("m" * 10_000, got="g" * 10_000, expected="e" * 10_000, hint="h" * 10_000)
    assert max(map(len, (error.message, error.got or "", error.expected or "", error.hint or ""))) <= MAX_TEXT


def test_what_is_not_unicode_does_not_break_the_error() -> None:
    """A file name of arbitrary bytes, as the system hands it out, can be told over a wire too."""
    body = Invalid("no \udcff", got="/tmp/\udcff", expected="\udcfe", hint="\udcfd").body()
    assert body.got == "/tmp/?"
    assert ErrorBody.model_validate_json(body.model_dump_json()) == body
