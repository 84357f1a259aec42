"""Control groups: where they are on machines of both kinds, and which numbers they have."""

import pytest

from stanch.agent.host.cgroups import Hierarchy, hierarchy
from stanch.core.errors import TargetGone, Unsupported

UNIFIED = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
MIXED = (
    "29 25 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
    "30 29 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
    "31 29 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
)


@pytest.mark.parametrize(("mounts", "root", "prefix"), [
    (UNIFIED, "/sys/fs/cgroup", ""),
    (MIXED, "/sys/fs/cgroup/unified", "unified/"),
])  # fmt: skip
def test_the_root_is_found(tmp_path, mounts, root, prefix):
    """Version 2 alone, or below version 1: nft wants another path then."""
    table = tmp_path / "mountinfo"
    table.write_text(mounts)
    found = hierarchy(table)
    assert (str(found.root), found.prefix) == (root, prefix)


@pytest.mark.parametrize("mounts", ["", "nonsense", "1 2 - cgroup2", UNIFIED.replace("/sys/fs/cgroup", "/elsewhere")])
def test_without_version_2_it_is_said(tmp_path, mounts):
    """A machine with version 1 only, or with version 2 where nft does not look, is unsupported."""
    table = tmp_path / "mountinfo"
    table.write_text(mounts)
    with pytest.raises(Unsupported):
        hierarchy(table)
    with pytest.raises(Unsupported):
        hierarchy(tmp_path / "absent")


def test_groups_have_numbers(tmp_path):
    """A group and those below it, each with the number of its folder; one that is not there has none."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    tree = Hierarchy(tmp_path)
    assert tree.numbers("a") == {(tmp_path / "a").stat().st_ino, (tmp_path / "a" / "b").stat().st_ino}
    assert tree.numbers("c") == frozenset()
    assert tree.number("c") == 0
    tree.check("a/b")
    with pytest.raises(TargetGone) as raised:
        tree.check("a/c")
    assert raised.value.got == "a/c"
