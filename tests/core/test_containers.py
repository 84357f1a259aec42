"""Choosing a container by what a person says of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.containers import Container, Runtime, choose, chosen
from stanch.core.errors import Conflict, TargetGone, Unsupported
from tests.fakes.containers import FakeContainers

ONE, OTHER = "ab" * 32, "ab" * 10 + "cd" * 22


def container(**fields):
    return Container.model_validate({"id": ONE, "name": "shop", "runtime": "docker", "state": "running"} | fields)


BOTH = (container(), container(id=OTHER, name="blog"))


@pytest.mark.parametrize(("said", "found"), [
    (ONE, ONE),
    ("shop", ONE),
    ("blog", OTHER),
    (OTHER[:22], OTHER),
    (OTHER[:11], None),
    ("sho", None),
    ("", None),
])  # fmt: skip
def test_by_id_name_or_a_long_enough_beginning(said, found):
    """The beginning of a name, and a short one of an id, choose nothing."""
    one = choose(BOTH, said)
    assert (one and one.id) == found


@pytest.mark.parametrize("said", ["ab" * 10, "ab" * 6])
def test_a_beginning_of_two_is_a_conflict_that_lists_both(said):
    """Nobody is chosen by chance."""
    with pytest.raises(Conflict) as raised:
        choose(BOTH, said)
    assert ONE in raised.value.got
    assert OTHER in raised.value.got


def test_a_name_of_two_is_a_conflict_that_says_whose():
    """A user's container may bear the name of the machine's."""
    with pytest.raises(Conflict, match=f"podman {OTHER} of user 1000"):
        choose([container(), container(id=OTHER, runtime="podman", user=1000)], "shop")


def test_an_id_goes_before_a_name():
    """A container that is called like the id of another does not hide it."""
    assert choose([container(id=OTHER, name=ONE), container()], ONE).id == ONE


def test_a_name_does_not_hide_the_beginning_of_an_id():
    """Somebody's own container, called as people call one of the machine's, is not taken for it: it is a conflict."""
    decoy = container(id="cd" * 32, name=ONE[:12], user=1000)
    with pytest.raises(Conflict, match="of user 1000"):
        choose([decoy, container()], ONE[:12])
    assert choose([decoy], ONE[:12]) == decoy
    assert choose([container(name=ONE[:12])], ONE[:12]).id == ONE


@given(
    st.lists(st.tuples(st.text("ab", min_size=12, max_size=14), st.text("ab", max_size=14)), max_size=6), st.text("ab")
)
def test_whoever_is_chosen_fits(rows, said):
    """Of any containers, the chosen one bears the name or the id, and a whole id always chooses its own."""
    known = [container(id=number, name=name) for number, name in dict(rows).items()]
    try:
        one = choose(known, said)
    except Conflict:
        one = None
    assert one is None or said == one.name or one.id.startswith(said)
    for each in known:
        assert choose(known, each.id) == each


@pytest.mark.parametrize(("numbers", "same"), [((5, 5), True), ((5, 6), False), ((0, 6), True), ((5, 0), True)])
def test_a_new_control_group_is_a_new_run(numbers, same):
    """Where the number is not known, nothing is claimed."""
    one, other = (container(cgroup_number=number) for number in numbers)
    assert one.is_same_run(other) is same
    assert not one.is_same_run(other.model_copy(update={"id": OTHER}))


def test_it_is_shown_in_short():
    """The name and twelve characters of the id; the id alone where there is no name."""
    assert str(container()) == "shop (docker abababababab)"
    assert str(container(name="")) == f"docker {ONE}"


async def test_one_that_is_not_there_is_target_gone():
    """Where a runtime answers, or anything is found, the container is missing, not the means."""
    containers = FakeContainers()
    containers.add("shop")
    with pytest.raises(TargetGone, match="no container blog"):
        await chosen(containers, "blog")
    containers.table.clear()
    containers.ways = [
        Runtime(name="docker", place="/run/docker.sock", answers=True, detail="it tells of 0 containers")
    ]
    with pytest.raises(TargetGone):
        await chosen(containers, "blog")


async def test_without_any_runtime_it_is_unsupported_and_says_what_was_tried():
    """Each way with its reason."""
    containers = FakeContainers()
    containers.ways = [
        Runtime(name=name, place=f"/run/{name}.sock", answers=False, detail="it is not there")
        for name in ("docker", "podman")
    ]
    with pytest.raises(Unsupported) as raised:
        await chosen(containers, "shop")
    assert (
        raised.value.got == "docker at /run/docker.sock: it is not there; podman at /run/podman.sock: it is not there"
    )
