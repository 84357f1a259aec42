"""Groups: which of an endpoint's groups decides what, and how they are read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from stanch.core.errors import NotFound
from stanch.core.rest import LAST_RANK, GroupCreate
from stanch.core.settings import GroupSettings, IsolationSettings
from stanch.server import groups
from stanch.server.groups import EVERY, MAX_NAMED, NOTHING, Decided, Group
from stanch.server.store import tables

LABELS = ["env=prod", "env=test", "role=web", "role=db"]
SECTIONS = ["isolation", "prevention", "limits"]

some_labels = st.frozensets(st.sampled_from(LABELS))
some_groups = st.lists(
    st.builds(
        Group,
        name=st.text("abcxyz", min_size=1, max_size=3),
        labels=some_labels,
        rank=st.integers(1, 4),
        settings=st.dictionaries(st.sampled_from(SECTIONS), st.fixed_dictionaries({"n": st.integers()})),
    ),
    max_size=8,
    unique_by=lambda one: one.name,
)


@given(some_groups, some_labels)
def test_an_endpoint_belongs_where_it_carries_every_label(every: list[Group], labels: frozenset[str]) -> None:
    """Its groups are exactly those whose labels it carries, by rank and then by name."""
    mine = groups.belonging(every, labels)
    assert {one.name for one in mine} == {one.name for one in every if all(label in labels for label in one.labels)}
    assert [(one.rank, one.name) for one in mine] == sorted((one.rank, one.name) for one in mine)


@given(some_groups, some_labels)
def test_the_first_group_that_sets_a_section_decides_it(every: list[Group], labels: frozenset[str]) -> None:
    """No group before it sets the section, and a section that none sets is not there."""
    mine = groups.belonging(every, labels)
    decided = groups.effective(mine)
    assert set(decided) == {section for one in mine for section in one.settings}
    for section, found in decided.items():
        at = next(n for n, one in enumerate(mine) if one.name == found.group)
        assert found == Decided(mine[at].name, mine[at].settings[section])
        assert not any(section in one.settings for one in mine[:at])


@given(some_groups, some_labels, st.randoms(use_true_random=False))
def test_the_order_in_which_groups_are_read_does_not_matter(every: list[Group], labels: frozenset[str], dice) -> None:
    """The same groups decide the same, however they come out of the database."""
    shuffled = list(every)
    dice.shuffle(shuffled)
    first = groups.effective(groups.belonging(every, labels))
    assert groups.effective(groups.belonging(shuffled, labels)) == first


@given(some_groups, some_labels)
def test_a_group_of_other_endpoints_changes_nothing(every: list[Group], labels: frozenset[str]) -> None:
    """Who does not carry its labels does not notice a group."""
    stranger = Group(name="stranger", labels=frozenset({"no=where"}), rank=1, settings={"isolation": {"n": 0}})
    both = [groups.effective(groups.belonging(some, labels)) for some in (every, [stranger, *every])]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({}, {}),
        ({"isolation": None}, {}),
        ({"isolation": {}}, {"isolation": {}}),
        ({"isolation": {"duration": None, "tell": False}}, {"isolation": {"duration": None}}),
        ({"isolation": {"allow": ["10.0.0.1/8"]}}, {"isolation": {"allow": ["10.0.0.0/8"]}}),
    ],
)
def test_settings_are_kept_without_defaults(settings: dict[str, Any], plain: dict[str, Any]) -> None:
    """A section of defaults only is still set; null is kept where it is no default; nothing is lost."""
    parsed = GroupSettings.model_validate(settings)
    assert groups.plain_sections(parsed) == plain
    assert GroupSettings.model_validate(plain) == parsed


def test_a_digest_is_of_what_is_said() -> None:
    """Order does not matter; anything else does."""
    assert groups.digest({"a": {"x": 1, "y": 2}}) == groups.digest({"a": {"y": 2, "x": 1}})
    different = [{}, {"isolation": {}}, {"isolation": {"tell": True}}, {"isolation": {"duration": None}}]
    assert len({groups.digest(one) for one in different}) == len(different)
    assert groups.digest(groups.plain_sections(GroupSettings())) == NOTHING
    assert groups.digest(groups.plain_sections(GroupSettings(isolation=IsolationSettings()))) != NOTHING


async def test_the_group_of_every_endpoint_is_always_there(parts) -> None:
    """A new database has it, without labels, and it decides last."""
    (every,) = await parts.database.read(groups.with_policies)
    assert every == await parts.database.read(lambda connection: groups.find(connection, EVERY))
    assert (every.name, every.labels, every.rank, every.settings, every.version) == (
        EVERY,
        frozenset(),
        LAST_RANK,
        {},
        0,
    )


async def test_a_group_that_is_not_there_says_which_are(parts) -> None:
    """Not more of them than one can read."""
    with pytest.raises(NotFound, match="all"):
        await parts.database.read(lambda connection: groups.find(connection, "wbe"))
    rows = [
        {
            "name": f"g{n:02}",
            "labels": [],
            "rank": n,
            "description": "",
            "settings": {},
            "version": 0,
            "changed_by": "",
        }
        for n in range(1, MAX_NAMED + 5)
    ]
    await parts.database.write(lambda connection: connection.execute(insert(tables.groups), rows))
    with pytest.raises(NotFound) as caught:
        await parts.database.read(lambda connection: groups.find(connection, "g99"))
    assert str(caught.value.expected).endswith("g20, ...")


async def test_selectors_come_without_policies(parts) -> None:
    """Whoever only needs the names does not load what may be large."""
    await parts.database.write(
        lambda connection: connection.execute(tables.groups.update().values(settings={"isolation": {}}))
    )
    assert [one.settings for one in await parts.database.read(groups.selectors)] == [{}]
    assert [one.settings for one in await parts.database.read(groups.with_policies)] == [{"isolation": {}}]


@pytest.mark.parametrize("name", ["WEB", "", "-web", "web prod", "w" * 64, "wéb", "web\n"])
def test_a_name_that_no_group_may_have_is_refused_in_words(name):
    """What is right is said in words, not as a pattern."""
    with pytest.raises(ValueError, match="small letters, digits"):
        GroupCreate(name=name, labels=())
