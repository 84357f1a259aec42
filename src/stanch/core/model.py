"""The one base of every value that crosses a boundary: frozen, closed, bounded."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A frozen value that refuses unknown fields; field docstrings become descriptions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )


class LooseModel(Model):
    """A frozen value of the wire that ignores fields it does not know, so that old and new can talk."""

    model_config = ConfigDict(extra="ignore")
