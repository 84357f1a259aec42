"""What people typed, as a checked model."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from stanch.core.action import invalid_fields
from stanch.core.model import Model

M = TypeVar("M", bound=Model)


def checked(kind: type[M], typed: Mapping[str, Any], message: str) -> M:
    """The model of what was typed; options that were not given stay unset. Invalid names what is wrong."""
    given = {name: value for name, value in typed.items() if value is not None and value is not False and value != ()}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise invalid_fields(message, error) from None
