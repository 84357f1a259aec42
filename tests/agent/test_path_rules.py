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


def test_programs_may_be_allowed_from_some_folders_only(tmp_path: Path) -> None:
    """By whole components, and by what a link in the owner's list leads to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    rules = PathRules(programs=paths("/opt/incident", f"{tmp_path}/link"))
    rules.check_program(EndpointPath("/opt/incident/collect"))
    rules.check_program(EndpointPath(f"{tmp_path.resolve()}/real/tool"))
    for one in ("/opt/incidental/x", "/bin/sh", "/opt"):
        with pytest.raises(ForbiddenHere, match="forbids to run this program"):
            rules.check_program(EndpointPath(one))
    with pytest.raises(ForbiddenHere, match="no folder"):
        PathRules(programs=()).check_program(EndpointPath("/bin/true"))


def test_interpreters_may_be_forbidden() -> None:
    """And scripts with them, whatever runs those."""
    rules = PathRules(interpreters=False)
    rules.check_program(EndpointPath("/opt/incident/collect"))
    for one in ("/usr/bin/dash", "/usr/bin/env", "/usr/bin/python3.11"):
        with pytest.raises(ForbiddenHere, match="interpreters"):
            rules.check_program(EndpointPath(one))
    with pytest.raises(ForbiddenHere, match="scripts"):
        rules.check_interpreter(EndpointPath("/opt/tool"), EndpointPath("/opt/own-language"))


def test_where_programs_are_limited_no_variable_leads_around_it() -> None:
    """What loads code into an allowed program is refused; without limits, an order may set what it likes."""
    PathRules().check_environment(["LD_PRELOAD", "LANG"])
    for rules in (PathRules(interpreters=False), PathRules(programs=paths("/opt"))):
        rules.check_environment(["LANG", "DEPTH"])
        with pytest.raises(ForbiddenHere, match="LD_PRELOAD"):
            rules.check_environment(["LANG", "LD_PRELOAD"])
