"""Does the unit that counts for systemd count here, and does what starts by itself show as such?"""

import pytest

from stanch.agent.host import autorun_units as module
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.autorun_units import Scope, folders_once, units_of
from tests.agent.host.autorun_root import new_root

SCOPE = Scope(
    "",
    ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"),
    "/etc/systemd/system",
    "root",
)
LIB, ETC = "/usr/lib/systemd/system", "/etc/systemd/system"


@pytest.fixture
def root(tmp_path):
    """A machine with a merged /usr."""
    root = new_root(tmp_path)
    root.at("/usr/lib").mkdir(parents=True)
    root.link("/lib", "usr/lib")
    return root


@pytest.fixture
def tree(root):
    """A look at it."""
    tree = Tree(root.folder)
    yield tree
    tree.close()


def starting(tree):
    found = units_of(tree, SCOPE)
    return {one for one in found.starting(tree) if one in found.files or one in found.wanted}


def test_a_folder_is_looked_at_once(root, tree):
    """With a merged /usr, one folder has two names."""
    root.write(f"{LIB}/a.service")
    assert list(folders_once(tree, SCOPE.folders)) == [LIB]


def test_the_first_folder_counts(root, tree):
    """A copy in /etc stands in front of the one of a package."""
    root.write(f"{LIB}/a.service", "ExecStart=/bin/old")
    root.write(f"{ETC}/a.service", "ExecStart=/bin/new")
    found = units_of(tree, SCOPE)
    assert found.files["a.service"] == [f"{ETC}/a.service", f"{LIB}/a.service"]
    assert found.settings(tree, "a.service")["ExecStart"] == ["/bin/new"]


def test_masks_are_links_to_null_and_empty_files(root, tree):
    """What would start is still known, by the file behind."""
    root.write(f"{LIB}/a.service", "ExecStart=/bin/a")
    root.link(f"{ETC}/a.service", "/dev/null")
    root.write(f"{ETC}/b.service", "")
    found = units_of(tree, SCOPE)
    assert found.masked == {"a.service", "b.service"}
    assert found.settings(tree, "a.service")["ExecStart"] == ["/bin/a"]


def test_aliases_and_linked_units_are_told_apart(root, tree):
    """Another name of a unit, and a unit whose file is elsewhere."""
    root.write(f"{LIB}/a.service", "ExecStart=/bin/a")
    root.link(f"{ETC}/other.service", f"{LIB}/a.service")
    root.link(f"{ETC}/evil.service", "/opt/evil.service")
    found = units_of(tree, SCOPE)
    assert found.aliases == {"other.service": "a.service"}
    assert found.links == {f"{ETC}/evil.service": "/opt/evil.service"}


def test_what_a_link_wants_starts_and_what_that_pulls_in(root, tree):
    """Wants and requires links, Wants= of what starts, the service of a timer, an alias in /etc; nothing else."""
    root.write(f"{LIB}/a.service", "Wants=b.service\nExecStart=/bin/a")
    for name in ("b", "c", "d", "e", "static"):
        root.write(f"{LIB}/{name}.service", "ExecStart=/bin/x")
    root.write(f"{LIB}/c.timer", "OnBootSec=1")
    root.write(f"{LIB}/multi-user.target", "Wants=e.service")
    root.link(f"{ETC}/multi-user.target.wants/a.service", f"{LIB}/a.service")
    root.link(f"{ETC}/timers.target.requires/c.timer", f"{LIB}/c.timer")
    root.link(f"{ETC}/d-alias.service", f"{LIB}/d.service")
    names = {"a.service", "b.service", "c.service", "c.timer", "d.service", "e.service", "multi-user.target"}
    assert starting(tree) == names


def test_a_packaged_alias_enables_nothing(root, tree):
    """It is only another name."""
    root.write(f"{LIB}/a.service", "ExecStart=/bin/a")
    root.link(f"{LIB}/dbus-a.service", "a.service")
    assert starting(tree) == set()


def test_what_is_masked_does_not_start(root, tree):
    """However many want it."""
    root.write(f"{LIB}/a.service", "ExecStart=/bin/a")
    root.link(f"{ETC}/a.service", "/dev/null")
    root.link(f"{ETC}/multi-user.target.wants/a.service", f"{LIB}/a.service")
    assert "a.service" not in starting(tree)


def test_a_drop_in_can_pull_in_a_unit(root, tree):
    """An attacker's way without a link."""
    root.write(f"{LIB}/multi-user.target", "[Unit]\n")
    root.write(f"{ETC}/multi-user.target.d/x.conf", "[Unit]\nWants=evil.service\n")
    root.write(f"{ETC}/evil.service", "ExecStart=/tmp/x")
    assert "evil.service" in starting(tree)


def test_units_that_want_one_another_end(root, tree):
    """A circle is walked once."""
    root.write(f"{LIB}/a.service", "Wants=b.service a.service")
    root.write(f"{LIB}/b.service", "Wants=a.service")
    root.link(f"{ETC}/x.target.wants/a.service", "nowhere")
    assert starting(tree) == {"a.service", "b.service"}


def test_drop_ins_of_one_name_count_once(root, tree):
    """The one in /etc, as with units."""
    root.write(f"{LIB}/a.service.d/x.conf")
    root.write(f"{ETC}/a.service.d/x.conf")
    root.write(f"{ETC}/a.service.d/no-conf")
    assert units_of(tree, SCOPE).drop_ins == {"a.service.d": [f"{ETC}/a.service.d/x.conf"]}


def test_what_units_say_is_remembered_within_a_bound(root, tree, monkeypatch):
    """Beyond it, it is read again: the answer is the same."""
    monkeypatch.setattr(module, "MAX_KNOWN", 100)
    for name in "abc":
        root.write(f"{LIB}/{name}.service", f"ExecStart=/bin/{name}")
    found = units_of(tree, SCOPE)
    for _ in range(2):
        assert [found.settings(tree, f"{one}.service")["ExecStart"] for one in "abc"] == [
            ["/bin/a"],
            ["/bin/b"],
            ["/bin/c"],
        ]
    assert len(found._said) < 3


def test_a_unit_is_read_to_a_bound(root, tree, monkeypatch):
    """And told to be larger."""
    monkeypatch.setattr(module, "MAX_UNIT", 30)
    root.write(f"{LIB}/a.service", "ExecStart=/bin/a\n" + "# x\n" * 100)
    assert units_of(tree, SCOPE).settings(tree, "a.service")["ExecStart"] == ["/bin/a"]
    assert [one.why for one in tree.unread] == ["only its first 30 bytes were read"]
