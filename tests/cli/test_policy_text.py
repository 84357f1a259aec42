"""A policy as TOML: what is written reads back, and what is wrong is named."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.cli import policy_text
from stanch.cli.plain import plain
from stanch.core.errors import Invalid, TooLarge
from stanch.core.settings import GroupSettings, IsolationSettings

EXCLUSIONS = ["10.0.0.0/8", "out tcp any user backup", "in tcp 192.0.2.0/24 local 22", "2001:db8::1"]

isolations = st.fixed_dictionaries(
    {},
    optional={
        "allow": st.lists(st.sampled_from(EXCLUSIONS), unique=True),
        "profiles": st.lists(st.sampled_from(["dhcp", "dns", "ntp", "updates"]), unique=True),
        "duration": st.one_of(st.none(), st.sampled_from(["90s", "2h", "5h", "30d"])),
        "tell": st.booleans(),
        "message": st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=50)),
        "unconfirmed": st.sampled_from(["roll-back", "hold"]),
    },
)
policies = st.fixed_dictionaries({}, optional={"isolation": isolations}).map(
    lambda raw: policy_text.sections_of(GroupSettings.model_validate(raw))
)


@given(policies)
def test_what_is_written_reads_back(sections: dict[str, Any]) -> None:
    """In every form: to be edited, to be looked at, and without the defaults."""
    forms = [
        policy_text.explained(sections, title="A policy"),
        "\n\n".join(policy_text.whole(*one) for one in sections.items()),
        policy_text.brief(sections),
    ]
    assert [policy_text.sections_of(policy_text.parsed(one)) for one in forms] == [sections] * 3


@given(policies)
def test_no_text_speaks_to_the_terminal(sections: dict[str, Any]) -> None:
    """Whatever somebody wrote into a policy, each line may be printed."""
    for line in policy_text.explained(sections, title="The policy of x\x1b[2J\u202e").splitlines():
        assert plain(line) == line


@given(policies, policies)
def test_a_difference_is_shown_when_there_is_one(before: dict[str, Any], after: dict[str, Any]) -> None:
    """And only then."""
    assert bool(policy_text.difference(before, after)) == (before != after)


def test_every_setting_is_explained() -> None:
    """A policy that sets nothing shows all there is, as comments that become valid when the # goes."""
    text = policy_text.explained({}, title="A policy")
    assert policy_text.sections_of(policy_text.parsed(text)) == {}
    bare = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#") and line[1:2] != " ")
    assert set(tomllib.loads(bare)["isolation"]) == set(IsolationSettings.model_fields)
    policy_text.parsed(bare.replace('"..."', '"Call 110"'))
    for info in IsolationSettings.model_fields.values():
        assert " ".join((info.description or "-").split())[:60] in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[isolation", "written"),
        ("[isolatoin]", "isolatoin"),
        ('duration = "2h"', "in brackets"),
        ("isolation = 5", "isolation"),
        ("[isolation]\ndurration = '2h'", "durration"),
        ("[isolation]\nduration = '5x'", "duration"),
        ("[isolation]\nallow = ['10.0.0.0/99']", "allow"),
        ("[isolation]\nduration = 1\nduration = 2", "written"),
        (b"\xff", "UTF-8"),
        ("x = " + "[" * 5000, "written"),
    ],
)
def test_what_is_wrong_is_named(text: str | bytes, said: str) -> None:
    """Form, section, setting or value."""
    with pytest.raises(Invalid, match=said):
        policy_text.parsed(text)


def test_a_policy_is_bounded() -> None:
    """Before anything of it is read."""
    with pytest.raises(TooLarge):
        policy_text.parsed("#" * (policy_text.MAX_BYTES + 1))


def test_an_error_stands_on_top_once() -> None:
    """The next one takes its place, and the text stays as it was."""
    text = "[isolation]\ntell = maybe\n"
    first = policy_text.with_error(text, Invalid("First", got="a\x1b[2J", expected="b", hint="c"))
    second = policy_text.with_error(first, Invalid("Second"))
    assert first.splitlines()[:4] == ["#! First", "#! got a\\x1b[2J", "#! expected b", "#! c"]
    assert second == "#! Second\n" + text


BEFORE = {"isolation": {"duration": "2h", "message": "Hello"}}


@pytest.mark.parametrize(
    ("settings", "unset", "after"),
    [
        (["isolation.duration=90m"], [], {"isolation": {"duration": "1h30m", "message": "Hello"}}),
        (["isolation.duration=none"], [], {"isolation": {"duration": None, "message": "Hello"}}),
        (["isolation.message=none"], [], {"isolation": {"duration": "2h", "message": "none"}}),
        (["isolation.message=a=b"], [], {"isolation": {"duration": "2h", "message": "a=b"}}),
        (['isolation.message="true"'], [], {"isolation": {"duration": "2h", "message": "true"}}),
        (["isolation.tell=true"], ["isolation"], {"isolation": {"tell": True}}),
        (['isolation.allow=["10.0.0.1", "any user x"]'], [], None),
        ([], ["isolation.message"], {"isolation": {"duration": "2h"}}),
        ([], ["isolation.message", "isolation.duration"], {"isolation": {}}),
        ([], ["isolation"], {}),
        ([], ["isolation.tell"], BEFORE),
    ],
)
def test_single_settings_are_changed(settings: list[str], unset: list[str], after: dict[str, Any] | None) -> None:
    """Values are typed by their setting; what is not named stays; None stands for a refusal."""
    if after is None:
        with pytest.raises(Invalid, match=r"allow\.1"):
            policy_text.changed(BEFORE, settings, unset)
    else:
        assert policy_text.sections_of(policy_text.changed(BEFORE, settings, unset)) == after


def test_a_list_is_set() -> None:
    """As TOML has it."""
    made = policy_text.changed({}, ['isolation.allow=["10.0.0.0/8", "out tcp any user backup"]'], [])
    assert policy_text.sections_of(made) == {"isolation": {"allow": ["10.0.0.0/8", "out tcp any user backup"]}}


def test_a_policy_that_is_shown_has_no_examples_in_it() -> None:
    """What is not set stands there as it is, or not at all: nobody must take an example for what is open."""
    lines = policy_text.whole("isolation", {"duration": "2h"}).splitlines()
    assert "#allow = []" in lines
    assert 'duration = "2h"' in lines
    assert not any("message" in line for line in lines)


@pytest.mark.parametrize(
    ("setting", "after"),
    [
        ("isolation.allow=10.0.0.0/8", {"allow": ["10.0.0.0/8"]}),
        ("isolation.allow='out tcp any user backup'", {"allow": ["out tcp any user backup"]}),
        ("isolation.profiles=dns", {"profiles": ["dns"]}),
        ("isolation.profiles=none", {"profiles": []}),
        ("isolation.profiles=[]", {"profiles": []}),
    ],
)
def test_one_value_is_a_list_of_one(setting: str, after: dict[str, Any]) -> None:
    """And none is a list of none, where a default would stand otherwise."""
    assert policy_text.sections_of(policy_text.changed({}, [setting], [])) == {"isolation": after}


def test_a_list_that_is_no_toml_is_shown_how() -> None:
    """Quotes are forgotten easily."""
    with pytest.raises(Invalid, match=r"no list for allow .*\[\"out tcp 192.0.2.7 remote 443\"\]"):
        policy_text.changed({}, ["isolation.allow=[10.0.0.0/8]"], [])


def test_no_profile_can_be_written_as_none() -> None:
    """In a file too, as on the command line."""
    made = policy_text.parsed('[isolation]\nprofiles = "none"\n')
    assert policy_text.sections_of(made) == {"isolation": {"profiles": []}}


@pytest.mark.parametrize(
    ("settings", "unset", "said"),
    [
        (["isolation.duration"], [], "no value"),
        (["isolation=x"], [], "isolation.duration"),
        (["nowhere.x=1"], [], "isolation.duration"),
        (["isolation.durration=1h"], [], "isolation.duration"),
        ([], ["nowhere"], "isolation"),
        ([], ["isolation.x"], "isolation.tell"),
        (["isolation.tell=maybe"], [], "tell"),
        (['isolation.allow="any"\nx=1'], [], "allow"),
    ],
)
def test_wrong_changes_are_refused(settings: list[str], unset: list[str], said: str) -> None:
    """Each says what there is, or what is wrong."""
    with pytest.raises(Invalid, match=said):
        policy_text.changed(BEFORE, settings, unset)
