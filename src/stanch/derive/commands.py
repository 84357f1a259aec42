"""From an action to its command: names, flags, kinds, defaults and help of every option, as plain data.

Pure: the command line builds real options from these specifications and hands what people typed to `raw_params`; the
types of the parameters do the parsing. A new look comes from a new type, never from an action.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from stanch.core.action import Action, AnyAction, Irreversible, Risk, Undo
from stanch.core.errors import Invalid
from stanch.core.model import Model
from stanch.core.types import Mode, Size, TypeInfo, describe, show_mode, show_size

NONE = "none"
"""What people type for null."""

UPLOAD = "upload"
"""The kind of what is a file on the side of those who order: its value is the JSON of the upload that it became."""

_ANY_TEXT = frozenset({"text", "secret", "json"})
"""Kinds whose values may read `none` themselves."""

_SEVERAL = (tuple, list, set, frozenset, Sequence, AbstractSet)

_STRUCTURED = (Model, Mapping, *_SEVERAL)

_KINDS: tuple[tuple[type[Any], str], ...] = (
    (bool, "boolean"),
    (Enum, "choice"),
    (int, "integer"),
    (float, "number"),
    (timedelta, "duration"),
    (datetime, "instant"),
    (SecretStr, "secret"),
    (str, "text"),
)
"""The kind of a Python type that does not describe itself; the first that fits, so subclasses come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSpec:
    """One option of a command: one parameter of the action."""

    name: str
    """Name of the parameter."""
    flags: tuple[str, ...]
    """`--pid`, or `--tree/--no-tree` for a switch."""
    kind: str
    """Name of the type: duration, path, pid, text, integer, choice, json, ..."""
    help: str
    """What it means."""
    example: str | None = None
    """A value."""
    choices: tuple[str, ...] = ()
    """All values, when there are few."""
    multiple: bool = False
    """May be given several times."""
    nullable: bool = False
    """`none` is a value."""
    emptied: bool = False
    """That value is the empty list: the only way to type one in the place of a default."""
    required: bool = False
    """Has no default."""
    default: str | None = None
    """As people type it; None for an empty or secret one."""

    @property
    def switch(self) -> bool:
        """Is it on or off, without a value?"""
        return self.kind == "boolean" and not self.nullable and not self.multiple


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """One command: one action."""

    name: str
    """`kill-process`."""
    action: str
    """`kill_process`."""
    summary: str
    """One sentence."""
    description: str
    """The rest."""
    risk: Risk
    """How bad it is to be wrong."""
    undo: str | None
    """How it is taken back, as a sentence; None for read-only ones."""
    examples: tuple[str, ...]
    """Whole command lines after `stanch`."""
    options: tuple[OptionSpec, ...]
    """Its own options; those of every order come from the command line."""
    typed: bool = False
    """Must be confirmed by typing what it is done to."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An annotation, taken apart: what one value is, whether there may be several, or none."""

    inner: Any
    several: bool
    nullable: bool


def command_of(action: AnyAction) -> CommandSpec:
    """The command of an action."""
    return CommandSpec(
        name=action.command,
        action=action.name,
        summary=action.summary,
        description=action.description,
        risk=action.risk,
        undo=undo_sentence(action),
        examples=tuple(f"{action.command} {one}".strip() for one in action.examples),
        options=options_of(action.params),
        typed=action.typed,
    )


def undo_sentence(action: Action[Any, Any]) -> str | None:
    """How an action is taken back, for people; None if it changes nothing."""
    if isinstance(action.undo, Undo):
        return f"`stanch order undo` takes it back with {' or '.join(action.undo.actions).replace('_', '-')}."
    return f"Cannot be undone: {action.undo.why}" if isinstance(action.undo, Irreversible) else None


def options_of(params: type[Model]) -> tuple[OptionSpec, ...]:
    """One option for each parameter, in the order of their declaration; or for each setting of a section."""
    return tuple(_option(params, name, info) for name, info in params.model_fields.items())


def _option(params: type[Model], name: str, info: FieldInfo) -> OptionSpec:
    shape = shape_of(annotation_of(info))
    kind, described = kind_of(shape.inner), _described(shape.inner)
    default = None if info.is_required() else shown_default(params, name)
    emptied = shape.several and not shape.nullable and default is not None and kind not in _ANY_TEXT
    nullable = emptied or (shape.nullable and not (kind in _ANY_TEXT and default == NONE))
    return OptionSpec(
        name=name,
        flags=_flags(name, switch=kind == "boolean" and not nullable and not shape.several),
        kind=kind,
        help=" ".join((info.description or "").split()),
        example=described.example if described else None,
        choices=tuple(_choices(shape.inner)),
        multiple=shape.several,
        nullable=nullable,
        emptied=emptied,
        required=info.is_required(),
        default=None if kind == "secret" else default,
    )


def _flags(name: str, *, switch: bool) -> tuple[str, ...]:
    word = name.replace("_", "-")
    return (f"--{word}/--no-{word}",) if switch else (f"--{word}",)


def annotation_of(info: FieldInfo) -> Any:
    """A field's whole annotation: pydantic keeps what stood in `Annotated` apart."""
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def shape_of(annotation: Any) -> Shape:
    """What one value of an annotation is, looking through `Annotated`, `X | None`, and `tuple[X, ...]`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        found = shape_of(parts[0])
        return found if found.several or found.nullable else Shape(annotation, several=False, nullable=False)
    if origin in {Union, UnionType}:
        return _shape_of_union(annotation, parts)
    if origin in _SEVERAL and (origin is not tuple or parts[1:] == (...,)):
        return Shape(parts[0], several=True, nullable=False)
    return Shape(annotation, several=False, nullable=False)


def _shape_of_union(annotation: Any, parts: tuple[Any, ...]) -> Shape:
    some = [part for part in parts if part is not NoneType]
    nullable = len(some) < len(parts)
    if len(some) > 1:
        return Shape(annotation, several=False, nullable=nullable)
    found = shape_of(some[0])
    return Shape(found.inner, several=found.several, nullable=nullable)


def kind_of(inner: Any) -> str:
    """The kind of one value: as its type describes itself, else as its Python type is; JSON for what has structure."""
    described = _described(inner)
    if described:
        return described.name
    plain = _plain(inner)
    if plain is Literal:
        return "choice"
    if not isinstance(plain, type):
        return "json"
    return next((kind for types, kind in _KINDS if issubclass(plain, types)), "json")


def _described(inner: Any) -> TypeInfo | None:
    """The type's own description; of what has structure only that of the whole, although its parts may have one."""
    plain = _plain(inner)
    structured = isinstance(plain, type) and issubclass(plain, _STRUCTURED) and not issubclass(plain, str)
    own = getattr(plain, "type_info", None)
    return (own if isinstance(own, TypeInfo) else None) if structured else describe(inner)


def _plain(inner: Any) -> Any:
    inner = get_args(inner)[0] if get_origin(inner) is Annotated else inner
    return get_origin(inner) or inner


def _choices(inner: Any) -> Iterator[str]:
    inner = get_args(inner)[0] if get_origin(inner) is Annotated else inner
    if get_origin(inner) is Literal:
        yield from map(str, get_args(inner))
    elif isinstance(inner, type) and issubclass(inner, Enum):
        yield from (str(one.value) for one in inner)


def shown_default(model: type[Model], name: str) -> str | None:
    """A field's default as people type it; None where it is empty."""
    default = model.model_fields[name].get_default(call_default_factory=True, validated_data={})
    if isinstance(default, Size | Mode):
        return show_mode(default) if isinstance(default, Mode) else show_size(default)
    raw = model.model_construct(**{name: default}).model_dump(mode="json", include={name}, warnings=False)[name]
    if raw is None:
        return NONE
    if isinstance(raw, bool):
        return "on" if raw else "off"
    if isinstance(raw, list):
        return ", ".join(map(str, raw)) or None
    return json.dumps(raw) if isinstance(raw, dict) else str(raw) or None


# --- from what was typed to parameters -------------------------------------------------------------------------------


def raw_params(options: Sequence[OptionSpec], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, as the JSON that the parameters parse; what was not given is left out, so defaults stay."""
    return {one.name: _raw(one, given[one.name]) for one in options if _is_given(one, given.get(one.name))}


def _is_given(option: OptionSpec, value: object) -> bool:
    return value is not None and not (option.multiple and value == ())


def _raw(option: OptionSpec, value: Any) -> Any:
    if not option.multiple:
        return _raw_one(option, value)
    if option.nullable and [str(one) for one in value] == [NONE]:
        return [] if option.emptied else None
    return [_raw_one(option, one) for one in value]


def _raw_one(option: OptionSpec, value: Any) -> Any:
    if option.switch:
        return bool(value)
    if option.nullable and not option.multiple and str(value).strip().lower() == NONE:
        return None
    if option.kind == UPLOAD:
        return value
    return _json(option, value) if option.kind == "json" else str(value)


def _json(option: OptionSpec, value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{option.flags[0]} is not JSON", got=value[:100], expected=f"a JSON value ({error})") from None
