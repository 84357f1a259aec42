"""The guard: each namespace knows itself and no other."""

import pytest

from stanch.agent.host.namespace import Namespace
from stanch.core.errors import Protected
from tests.netns import netns


@pytest.mark.parametrize("kind", ["net", "pid"])
def test_our_own_namespace_passes(kind):
    """The namespace that was recorded is the one we are in."""
    own = Namespace.current(kind)
    own.check()
    assert own == Namespace.current(kind)


@pytest.mark.root
def test_another_network_namespace_is_refused():
    """A thread that moved elsewhere is refused, and the message names both."""
    own = Namespace.current("net")
    with netns() as other:
        there = other.call(Namespace.current, "net")
        assert there.inode != own.inode
        with pytest.raises(Protected, match=f"got net:.{there.inode}.*expected net:.{own.inode}"):
            other.call(own.check)


def test_a_kind_that_does_not_exist_is_refused():
    """What cannot be told is not allowed."""
    with pytest.raises(Protected, match="Cannot tell"):
        Namespace.current("nonsense")
