"""What the owner says of paths binds whatever leads to a file."""

from pathlib import Path

import pytest

from stanch.agent.path_rules import PathRules, components, is_below
from stanch.core.errors import ForbiddenHere
from stanch.core.types import EndpointPath


def paths(*names: str) -> tuple[EndpointPath, ...]:
    return tuple(map(EndpointPath, names))


def test_without_limits_everything_is_allowed() -> None:
    """No file, no limits."""
    PathRules().check(EndpointPath("/etc/shadow"))
    PathRules().check_write(EndpointPath("/etc/shadow"))


def test_forbidden_by_whole_components() -> None:
    """A folder covers what is below it, and not its namesakes."""
    rules = PathRules(forbid=paths("/root"))
    for one in ("/root", "/root/.ssh/id"):
        with pytest.raises(ForbiddenHere, match="/root"):
            rules.check(EndpointPath(one))
    rules.check(EndpointPath("/rooted"))


def test_a_forbidden_link_forbids_what_it_leads_to(tmp_path: Path) -> None:
    """The owner may have written a name that is a link: the real path of a descriptor is what is asked about."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    rules = PathRules(forbid=paths(f"{tmp_path}/link"))
    with pytest.raises(ForbiddenHere):
        rules.check(EndpointPath(f"{tmp_path.resolve()}/real/file"))


def test_writing_may_be_allowed_below_some_folders_only() -> None:
    """A list of folders limits where files are put; an empty one forbids it; what is forbidden stays so there."""
    rules = PathRules(forbid=paths("/opt/incident/secret"), write=paths("/opt/incident"))
    rules.check(EndpointPath("/usr/bin/tool"))
    rules.check_write(EndpointPath("/opt/incident/tool"))
    for one in ("/usr/bin/tool", "/opt/incident/secret/x", "/opt/incidents"):
        with pytest.raises(ForbiddenHere):
            rules.check_write(EndpointPath(one))
    with pytest.raises(ForbiddenHere, match="no folder"):
        PathRules(write=()).check_write(EndpointPath("/opt/incident/tool"))


def test_everything_is_below_the_root() -> None:
    """A policy that cannot be read forbids `/`, which is everything."""
    assert is_below(EndpointPath("/a/b"), paths("/")) == "/"
    assert is_below(EndpointPath("/"), paths("/a")) is None


def test_components_are_worked_out_by_name() -> None:
    """Dots and doubled slashes change nothing."""
    assert components(b"//a/./b/../c/") == [b"a", b"c"]
