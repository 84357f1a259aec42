"""Units and their processes, by what /proc tells of control groups."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.unit_processes import Owner, pids_of_units, unit_of


@pytest.mark.parametrize(
    ("groups", "owner"),
    [
        ("0::/system.slice/ssh.service\n", (None, "ssh.service")),
        ("0::/user.slice/user-7.slice/user@7.service/app.slice/x.service\n", (7, "x.service")),
        ("0::/user.slice/user-7.slice/user@7.service/init.scope\n", (7, "init.scope")),
        ("0::/user.slice/user-7.slice/user@7.service\n", (None, "user@7.service")),
        ("0::/user.slice/user-7.slice/session-1.scope\n", (None, "session-1.scope")),
        ("0::/system.slice/docker-a.scope/system.slice/ssh.service\n", (None, "docker-a.scope")),
        ("9:cpu:/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n", (None, "b.service")),
        ("0::/\n", None),
        ("0::/docker/abc\n", None),
        ("", None),
    ],
)
def test_the_unit_of_a_process(groups: str, owner: Owner | None) -> None:
    """That of its manager; what is inside of a unit belongs to that one."""
    assert unit_of(groups) == owner


def test_all_processes_of_a_unit(tmp_path: Path) -> None:
    """In ascending order; what is no process, or has gone, is left out."""
    for pid, unit in ((12, "a"), (7, "a"), (9, "b")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(f"0::/system.slice/{unit}.service\n")
    (tmp_path / "8").mkdir()
    (tmp_path / "self").mkdir()
    assert pids_of_units(tmp_path) == {(None, "a.service"): [7, 12], (None, "b.service"): [9]}
    assert pids_of_units(tmp_path / "none") == {}


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    """Control groups have the names that somebody gave them."""
    found = unit_of(f"0::/{text}")
    assert found is None or found[1]
