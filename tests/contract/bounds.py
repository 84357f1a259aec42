"""What a JSON schema leaves open: fields without a description, values without a bound."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_BOUNDED = {
    "string": ({"maxLength"}, {"pattern"}, {"format"}, {"enum"}, {"const"}),
    "array": ({"maxItems"}, {"prefixItems"}),
    "integer": ({"maximum"}, {"exclusiveMaximum"}, {"enum"}, {"const"}),
    "number": ({"maximum"}, {"exclusiveMaximum"}),
}
"""A type to the keywords that bound it: one of the sets must be there."""


def unbounded(schema: Schema) -> list[str]:
    """The places of a schema where a value may be as large as its sender likes."""
    return [where for where, part in _parts(schema, "") if _is_open(part)]


def undescribed(schema: Schema) -> list[str]:
    """The fields of a schema, those of inner objects too, that say nothing about themselves."""
    return [
        f"{where}.{name}"
        for where, part in _parts(schema, "")
        for name, field in part.get("properties", {}).items()
        if not field.get("description")
    ]


def _is_open(part: Schema) -> bool:
    kind = part.get("type")
    if kind == "object" and "properties" not in part:
        return "maxProperties" not in part and part.get("additionalProperties") is not False
    return kind in _BOUNDED and not any(keys <= part.keys() for keys in _BOUNDED[kind])


def _parts(part: Schema, where: str) -> Iterator[tuple[str, Schema]]:
    """Every schema inside a schema, and where it is."""
    yield where, part
    for name in ("properties", "$defs"):
        for key, inner in part.get(name, {}).items():
            yield from _parts(inner, f"{where}.{key}")
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for inner in part.get(name, ()):
            yield from _parts(inner, where)
    for name in ("items", "additionalProperties"):
        if isinstance(part.get(name), Mapping):
            yield from _parts(part[name], f"{where}[]")
