"""Options from parameters, and parameters from what was typed."""

import datetime as dt
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions import load
from stanch.core.action import Params, Undo
from stanch.core.errors import Invalid
from stanch.core.exclusion import Exclusion
from stanch.core.types import EndpointPath, Glob, Md5, Mode, Size, Upload, VaultId, parse_network
from stanch.derive.commands import OptionSpec, command_of, options_of, raw_params, undo_sentence
from tests.derive.synthetic import Colour, Everything, Rule, do_everything, do_nothing

OPTIONS = {one.name: one for one in options_of(Everything)}


def parsed(**typed) -> Everything:
    """The parameters that come of what was typed."""
    return do_everything.parse(raw_params(tuple(OPTIONS.values()), {"pid": "1", **typed}))


@pytest.mark.parametrize(
    ("name", "kind"),
    {
        "pid": "pid",
        "text": "text",
        "note": "text",
        "count": "integer",
        "ratio": "number",
        "on": "boolean",
        "maybe": "boolean",
        "colour": "choice",
        "level": "choice",
        "lasts": "duration",
        "at": "instant",
        "hashes": "sha256",
        "networks": "network",
        "ports": "port",
        "path": "path",
        "rules": "json",
        "table": "json",
        "pair": "json",
        "key": "secret",
    }.items(),
)
def test_the_kind_comes_from_the_type(name, kind):
    """A type that describes itself gives its name; structure is JSON whatever its parts are."""
    assert OPTIONS[name].kind == kind


def test_several_values_come_from_tuples_and_sets():
    """Only lists of one type may be given several times."""
    assert {one.name for one in OPTIONS.values() if one.multiple} == {"hashes", "networks", "ports", "rules"}


def test_only_what_has_no_default_is_required():
    """A parameter with a default need not be given."""
    assert [one.name for one in OPTIONS.values() if one.required] == ["pid"]


def test_none_is_offered_where_it_means_null():
    """Text that is missing by default keeps the word `none` for itself."""
    nullable = {one.name for one in OPTIONS.values() if one.nullable}
    assert nullable == {"title", "ratio", "maybe", "level", "lasts", "at", "networks", "path"}


class Defaulted(Params):
    """A list that is not empty by default."""

    colours: tuple[Colour, ...] = (Colour.RED,)
    """Some."""
    others: tuple[Colour, ...] = ()
    """None unless given."""


def test_none_empties_a_list_that_has_a_default():
    """Else nobody could type that it is to be empty; where it is empty anyway, `none` is no word."""
    colours, others = options_of(Defaulted)
    assert (colours.nullable, others.nullable) == (True, False)
    for typed, raw in ((("none",), []), (("blue", "red"), ["blue", "red"]), (("none", "red"), ["none", "red"])):
        assert raw_params((colours,), {"colours": typed}) == {"colours": raw}
    assert raw_params((colours,), {"colours": ()}) == {}


def test_an_exclusion_describes_itself():
    """The type of isolation's exclusions comes with its own name and example, and may be given several times."""

    class Cut(Params):
        """What stays open."""

        allow: tuple[Exclusion, ...] = ()
        """Exclusions."""

    (allow,) = options_of(Cut)
    assert (allow.kind, allow.multiple, allow.nullable) == ("exclusion", True, False)
    assert Cut(allow=raw_params((allow,), {"allow": (allow.example,)})["allow"]).allow == (
        Exclusion.parse("out tcp 192.0.2.7 remote 443"),
    )


def test_a_boolean_is_a_switch_unless_it_may_be_null():
    """On and off need no value; a third state does."""
    assert OPTIONS["on"].flags == ("--on/--no-on",)
    assert OPTIONS["on"].switch
    assert OPTIONS["maybe"].flags == ("--maybe",)
    assert not OPTIONS["maybe"].switch


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("pid", None),
        ("text", None),
        ("title", "a title"),
        ("count", "3"),
        ("ratio", "0.5"),
        ("on", "on"),
        ("off", "off"),
        ("colour", "red"),
        ("lasts", "5h"),
        ("level", "none"),
        ("hashes", None),
        ("key", None),
    ],
)
def test_defaults_read_as_people_type_them(name, default):
    """What the help shows as a default could be typed; secrets and emptiness are not shown."""
    assert OPTIONS[name].default == default


def test_choices_are_listed():
    """Enumerations and literals offer their values."""
    assert OPTIONS["colour"].choices == ("red", "blue")
    assert OPTIONS["level"].choices == ("low", "high")


def test_what_is_not_given_is_left_out():
    """Defaults stay with whoever runs the action."""
    assert raw_params(tuple(OPTIONS.values()), {"pid": "1", "hashes": (), "note": None}) == {"pid": "1"}


def test_none_becomes_null():
    """`none` removes a default, in any spelling; for free text that needs no null it is a word."""
    assert parsed(lasts="None", title="none", ratio="none").model_dump(include={"lasts", "title", "ratio"}) == {
        "lasts": None,
        "title": None,
        "ratio": None,
    }
    assert parsed(note="none").note == "none"
    assert parsed(networks=("none",)).networks is None


def test_structure_is_typed_as_json():
    """Objects, mappings and pairs are JSON, once for each element of a list."""
    some = parsed(rules=('{"path": "/a"}', '{"path": "/b", "strict": true}'), table='{"x": "/y"}', pair='[1, "a"]')
    assert some.rules == (Rule(path=EndpointPath("/a")), Rule(path=EndpointPath("/b"), strict=True))
    assert some.table == {"x": "/y"}
    assert some.pair == (1, "a")


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000])
def test_what_is_no_json_names_its_option(text):
    """The error says which option, and stays short."""
    with pytest.raises(Invalid, match="--table") as raised:
        parsed(table=text)
    assert len(str(raised.value)) < 500


def test_a_wrong_value_names_its_parameter():
    """The type itself says what it expected."""
    with pytest.raises(Invalid, match="pid"):
        parsed(pid="zero")


NETWORKS = st.ip_addresses().map(str).map(parse_network) | st.sampled_from(["10.0.0.0/8", "2001:db8::/32"]).map(
    parse_network
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATHS = st.binary(max_size=30).filter(lambda raw: b"\0" not in raw).map(lambda raw: EndpointPath.of(b"/" + raw))
MOMENTS = st.integers(0, 4_000_000_000).map(lambda second: dt.datetime.fromtimestamp(second, dt.UTC))

EVERYTHING = st.builds(
    Everything,
    pid=st.integers(1, 4_194_304),
    text=TEXTS,
    note=TEXTS | st.none(),
    title=TEXTS.filter(lambda text: text.strip().lower() != "none") | st.none(),
    count=st.integers(-5, 10),
    ratio=st.floats(0, 1) | st.none(),
    on=st.booleans(),
    off=st.booleans(),
    maybe=st.booleans() | st.none(),
    colour=st.sampled_from(Colour),
    level=st.sampled_from(["low", "high", None]),
    lasts=st.integers(1, 9999 * 3600).map(lambda n: dt.timedelta(seconds=n)) | st.none(),
    at=MOMENTS | st.none(),
    hashes=st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3).map(tuple),
    networks=st.lists(NETWORKS, min_size=1, max_size=3).map(tuple) | st.none(),
    ports=st.frozensets(st.integers(1, 65535), max_size=3),
    path=PATHS | st.none(),
)


def typed(option: OptionSpec, value):
    """A JSON value as one would type it."""
    if option.multiple:
        return ("none",) if value is None else tuple(str(one) for one in value)
    if option.switch:
        return value
    if value is None:
        return "none" if option.nullable else None
    return str(value)


@given(EVERYTHING)
def test_every_value_can_be_typed(value):
    """Whatever parameters there are, some command line gives exactly them."""
    raw = value.model_dump(mode="json", exclude={"rules", "table", "pair", "key"})
    line = {name: typed(OPTIONS[name], one) for name, one in raw.items()}
    assert do_everything.parse(raw_params(tuple(OPTIONS.values()), line)) == value


LINES = st.fixed_dictionaries(
    {},
    optional={
        one.name: st.booleans() if one.switch else st.lists(st.text()).map(tuple) if one.multiple else st.text()
        for one in OPTIONS.values()
    },
)


@given(LINES)
def test_no_text_is_more_than_invalid(line):
    """Any text for any option is parsed or refused as Invalid."""
    with suppress(Invalid):
        assert isinstance(do_everything.parse(raw_params(tuple(OPTIONS.values()), line)), Everything)


def test_a_command_says_how_it_is_undone():
    """Undo, no undo and nothing to undo read differently."""
    registry = load()
    assert "order undo" in undo_sentence(registry["isolate"])
    assert undo_sentence(do_everything) == "Cannot be undone: It was only a test | really."
    assert undo_sentence(do_nothing) is None


@pytest.mark.parametrize("action", load().values(), ids=lambda one: one.name)
def test_every_action_has_a_command(action):
    """Names, options and examples follow from the declaration alone."""
    spec = command_of(action)
    assert spec.name == action.command
    assert [one.name for one in spec.options] == list(action.params.model_fields)
    assert all(one.help for one in spec.options)
    assert all(line.startswith(f"{spec.name} ") for line in spec.examples)


# --- files -----------------------------------------------------------------------------------------------------------


class OnFiles(Params):
    """What actions on files ask for."""

    content: Upload
    """A file on the side of those who order."""
    more: tuple[Upload, ...] = ()
    """Several."""
    most: Size = Size(100 * 2**20)
    """Bytes."""
    mode: Mode = Mode(0o600)
    """Permission bits."""
    glob: Glob | None = None
    """A pattern."""
    md5: Md5 | None = None
    """A hash."""
    item: VaultId | None = None
    """An item in a vault."""


ON_FILES = {one.name: one for one in options_of(OnFiles)}


def test_types_of_files_describe_themselves():
    """A type with structure, too, if the whole has a description: its parts are not asked for one by one."""
    kinds = {name: one.kind for name, one in ON_FILES.items()}
    assert kinds == {
        "content": "upload",
        "more": "upload",
        "most": "size",
        "mode": "mode",
        "glob": "pattern",
        "md5": "md5",
        "item": "vault-item",
    }
    assert (ON_FILES["content"].multiple, ON_FILES["more"].multiple) == (False, True)


def test_defaults_of_sizes_and_modes_read_as_people_type_them():
    """And parse to themselves."""
    shown = {name: ON_FILES[name].default for name in ("most", "mode")}
    assert shown == {"most": "100MiB", "mode": "0600"}
    upload = {"id": "upl_1", "name": "x", "size": 1, "sha256": "0" * 64}
    raw = raw_params(tuple(ON_FILES.values()), {"content": upload, **shown})
    assert OnFiles.model_validate(raw) == OnFiles.model_validate({"content": upload})


def test_an_upload_is_what_it_became():
    """Its value is no text, but what the server knows it by; several stay in their order."""
    first, second = ({"id": f"upl_{n}", "name": "x", "size": n, "sha256": "0" * 64} for n in (1, 2))
    raw = raw_params(tuple(ON_FILES.values()), {"content": first, "more": (second, first)})
    parsed = OnFiles.model_validate(raw)
    assert (parsed.content.id, [one.id for one in parsed.more]) == ("upl_1", ["upl_2", "upl_1"])


def test_every_way_back_is_named():
    """An action that is taken back in one of several ways says so."""
    undo = Undo("release", lambda *_: None, otherwise=Undo("kill_process", lambda *_: None))
    sentence = undo_sentence(replace(load()["isolate"], undo=undo))
    assert sentence == "`stanch order undo` takes it back with release or kill-process."
