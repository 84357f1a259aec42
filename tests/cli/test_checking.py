"""What was typed becomes a model, or an error that names it."""

import pytest

from stanch.cli.checking import checked
from stanch.core.errors import Invalid
from stanch.core.rest import OrderCommon, TokenCreate


def test_what_was_not_given_stays_unset():
    """Null, an empty list and a flag that is off are not given."""
    made = checked(OrderCommon, {"reason": None, "labels": (), "dry_run": False, "endpoints": ("a",)}, "Wrong")
    assert made.model_fields_set == {"endpoints"}


def test_zero_is_given():
    """A zero is a value, and here a wrong one."""
    with pytest.raises(Invalid, match="uses"):
        checked(TokenCreate, {"uses": 0}, "Wrong")


def test_empty_text_is_given():
    """A reason may be emptied on purpose."""
    assert checked(OrderCommon, {"reason": ""}, "Wrong").model_fields_set == {"reason"}


def test_the_error_names_what_is_wrong():
    """The message of the command comes first, then the field."""
    with pytest.raises(Invalid, match=r"^Wrong .*labels"):
        checked(OrderCommon, {"labels": ("x",)}, "Wrong")
