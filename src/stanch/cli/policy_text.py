"""A policy as TOML that people edit: every setting explained from its declaration, and read back.

Pure. Values are texts, lists of texts, switches and null, which TOML has not: it is `"none"`, or a line left out. The
settings' own types do the parsing. What stands here may be printed: no text in it can speak to a terminal.
"""

import difflib
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from stanch.cli.plain import plain
from stanch.core.action import invalid_fields
from stanch.core.errors import Invalid, StanchError, TooLarge
from stanch.core.model import Model
from stanch.core.settings import GroupSettings, NewSettings
from stanch.core.types import describe
from stanch.derive.commands import NONE, OptionSpec, annotation_of, options_of, shape_of

MAX_BYTES = 1_048_576
"""The server takes no more."""

WIDTH = 100
ERROR = "#! "
"""In front of the lines that tell what was wrong with a text."""

Sections = Mapping[str, Mapping[str, Any]]
"""Section to its settings in plain JSON, without those that have their default."""

SECTIONS: Mapping[str, type[Model]] = {
    name: shape_of(annotation_of(info)).inner for name, info in GroupSettings.model_fields.items()
}

_INTRO = """\
A section is set if the line with its name in brackets is there: take the # off it, or put one before it.
A setting of it whose line begins with # has its default: that line shows it, or an example if it is nothing."""


def sections_of(settings: GroupSettings) -> Sections:
    """What a policy sets."""
    found: Sections = settings.model_dump(mode="json", exclude_defaults=True)
    return found


# --- writing ---------------------------------------------------------------------------------------------------------


def explained(sections: Sections, *, title: str) -> str:
    """The text to be edited: all sections and settings, each with what it means."""
    parts = ["\n".join([*_comment(title), "#", *_comment(_INTRO)])]
    for name, kind in SECTIONS.items():
        given = sections.get(name)
        meaning = GroupSettings.model_fields[name].description or ""
        parts.append("\n".join([*_comment(meaning), f"[{name}]" if given is not None else f"#[{name}]"]))
        parts += ["\n".join(_explained_setting(one, kind, given or {})) for one in options_of(kind)]
    return "\n\n".join(parts) + "\n"


def whole(name: str, given: Mapping[str, Any]) -> str:
    """One section with all its settings; those that have their default as comments, those that then say nothing not."""
    kind = SECTIONS[name]
    defaults = _defaults(kind)
    lines = [
        _set_line(one.name, given[one.name]) if one.name in given else f"#{one.name} = {_value(defaults[one.name])}"
        for one in options_of(kind)
        if one.name in given or one.nullable or defaults[one.name] is not None
    ]
    return "\n".join([f"[{name}]", *lines])


def brief(sections: Sections) -> str:
    """Only what is set."""
    parts = (
        "\n".join([f"[{name}]", *(_set_line(*one, spread=0) for one in given.items())])
        for name, given in sections.items()
    )
    return "\n\n".join(parts)


def difference(before: Sections, after: Sections) -> list[str]:
    """What a change does, in the manner of `diff -u`; nothing if it does nothing."""
    lines = difflib.unified_diff(
        brief(before).splitlines(), brief(after).splitlines(), "before", "after", lineterm="", n=2
    )
    return list(lines)


def with_error(text: str, error: StanchError) -> str:
    """A text that was wrong, with what was wrong with it at its top, in place of what was told there before."""
    sides = [f"got {error.got}" if error.got else "", f"expected {error.expected}" if error.expected else ""]
    said = filter(None, [error.message, *sides, error.hint])
    told = [ERROR + line for one in said for line in textwrap.wrap(plain(one), WIDTH - len(ERROR))]
    kept = [line for line in text.splitlines() if not line.startswith(ERROR.rstrip())]
    return "\n".join([*told, *kept]) + "\n"


def _explained_setting(one: OptionSpec, kind: type[Model], given: Mapping[str, Any]) -> Iterator[str]:
    yield from _comment(one.help)
    about = describe(annotation_of(kind.model_fields[one.name]))
    notes = [
        about.help if about else "",
        f"One of {', '.join(one.choices)}." if one.choices else "",
        "[] for none of them." if one.emptied else f'"{NONE}" for null.' if one.nullable else "",
    ]
    yield from _comment(" ".join(filter(None, notes)))
    yield _set_line(one.name, given[one.name]) if one.name in given else _default_line(one, kind)


def _default_line(one: OptionSpec, kind: type[Model]) -> str:
    """The default as a comment; where it says nothing, an example, so that one sees the form."""
    default = _defaults(kind).get(one.name)
    if one.multiple and not default:
        return f"#{one.name} = [{_quoted(one.example or '...')}]"
    if default is None and not one.nullable:
        return f"#{one.name} = {_quoted(one.example or '...')}"
    return f"#{one.name} = {_value(default)}"


def _defaults(kind: type[Model]) -> dict[str, Any]:
    plain_values: dict[str, Any] = kind.model_construct().model_dump(mode="json", warnings=False)
    return plain_values


def _set_line(name: str, value: Any, *, spread: int = 1) -> str:
    """A setting; a list of more than so many values has a line for each."""
    if isinstance(value, list | tuple) and len(value) > spread:
        return "\n".join([f"{name} = [", *(f"    {_value(one)}," for one in value), "]"])
    return f"{name} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _quoted(NONE if value is None else str(value))


def _quoted(text: str) -> str:
    """A basic string of TOML; what could speak to a terminal is escaped, as TOML has it."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if plain(character) == character:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - the two escapes of TOML


def _comment(text: str) -> list[str]:
    return [f"# {one}" for line in text.splitlines() for one in textwrap.wrap(plain(line), WIDTH - 2)]


# --- reading ---------------------------------------------------------------------------------------------------------


def parsed(text: str | bytes) -> NewSettings:
    """The policy that a text says; Invalid names what is wrong."""
    if len(text) > MAX_BYTES:
        raise TooLarge("The policy is too large", expected=f"at most {MAX_BYTES} bytes")
    try:
        raw = tomllib.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        raise Invalid("The policy is not written as it must be", got=error, expected="TOML in UTF-8") from None
    return validated(raw)


def validated(raw: Mapping[str, Any]) -> NewSettings:
    """The policy of plain values, with `none` where null is meant; Invalid names what is wrong."""
    try:
        return NewSettings.model_validate({name: _with_nulls(name, given) for name, given in raw.items()})
    except ValidationError as error:
        lost = sorted(set(raw) - set(SECTIONS))
        wrong = invalid_fields("The policy is wrong", error)
        hint = f"Sections are {', '.join(SECTIONS)}; settings stand below the name of their section in brackets."
        raise Invalid(wrong.message, got=wrong.got, expected=wrong.expected, hint=hint if lost else None) from None


def _with_nulls(section: str, given: Any) -> Any:
    if section not in SECTIONS or not isinstance(given, Mapping):
        return given
    nulls: dict[str, Any] = {
        one.name: [] if one.emptied else None for one in options_of(SECTIONS[section]) if one.nullable
    }
    return {name: nulls[name] if name in nulls and value == NONE else value for name, value in given.items()}


# --- changing single settings ----------------------------------------------------------------------------------------


def changed(before: Sections, settings: Sequence[str], unset: Sequence[str]) -> NewSettings:
    """The policy after `SECTION.SETTING=VALUE` and the removal of settings or whole sections; Invalid."""
    after: dict[str, dict[str, Any]] = {name: dict(given) for name, given in before.items()}
    for one in unset:
        section, setting = _place(one, whole_too=True)
        if setting:
            after.get(section, {}).pop(setting, None)
        else:
            after.pop(section, None)
    for one in settings:
        place, equals, value = one.partition("=")
        if not equals:
            raise Invalid("A setting has no value", got=one[:100], expected="SECTION.SETTING=VALUE")
        section, setting = _place(place)
        option = next(one for one in options_of(SECTIONS[section]) if one.name == setting)
        after.setdefault(section, {})[setting] = _typed(value.strip(), option)
    return validated(after)


def _place(text: str, *, whole_too: bool = False) -> tuple[str, str]:
    """Section and setting; Invalid says which there are."""
    section, _, setting = text.strip().partition(".")
    known = known_settings()
    if f"{section}.{setting}" not in known and not (whole_too and section in SECTIONS and not setting):
        names = [*SECTIONS, *known] if whole_too else known
        raise Invalid("There is no such setting", got=text[:100], expected=f"one of {', '.join(names)}")
    return section, setting


def known_settings() -> list[str]:
    """`SECTION.SETTING` of every setting."""
    return [f"{name}.{one.name}" for name, kind in SECTIONS.items() for one in options_of(kind)]


def _typed(text: str, option: OptionSpec) -> Any:
    """A list, a switch or a quoted text as TOML has them; anything else as it was typed. One value is a list of one."""
    value = _of_toml(text)
    if not option.multiple or isinstance(value, list) or (option.nullable and value == NONE):
        return value
    if text.startswith("["):
        example = f'["{option.example or (option.choices or ("...",))[0]}"]'
        raise Invalid(f"This is no list for {option.name}", got=text[:100], expected=f"texts in quotes: {example}")
    return [value]


def _of_toml(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = found["value"]
    return value if len(found) == 1 and isinstance(value, list | bool | str) else text
