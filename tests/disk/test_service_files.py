"""The files for systemd and udev: as they should be, as they are, and where a package has them."""

import pytest

from stanch.disk.service_files import FILES, HEAD, LINKS, PACKAGED, UNITS, File, files, links, packaged


def test_each_state_is_told_apart(tmp_path):
    """Absent, as it should be, of an older version, or of somebody else."""
    one = File(tmp_path / "unit", f"{HEAD}now\n")
    assert one.state == "absent"
    for text, state in ((f"{HEAD}now\n", "installed"), (f"{HEAD}before\n", "outdated"), ("theirs\n", "foreign")):
        one.path.write_text(text)
        assert one.state == state


def test_all_of_them_lie_below_the_root(tmp_path):
    """For this interpreter, each with our head."""
    made = files(tmp_path, "/opt/venv/bin/python")
    assert [one.path.name for one in made] == list(FILES)
    assert all(one.path.is_relative_to(tmp_path) and one.text.startswith(HEAD) for one in made)
    assert "ExecStart=/opt/venv/bin/python -I -m stanch.cli.main agent run\n" in made[2].text
    assert links(tmp_path) == tuple(tmp_path / UNITS / one for one in LINKS)


def test_an_interpreter_that_no_unit_can_name(tmp_path):
    """A space or a percent sign would mean something else there."""
    with pytest.raises(ValueError, match="plain path"):
        files(tmp_path, "/opt/my venv/python")


def test_those_of_a_package_are_found(tmp_path):
    """Where a package puts them, not where we do."""
    assert packaged(tmp_path) == ()
    theirs = tmp_path / PACKAGED[UNITS] / "stanch-agent.service"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[Unit]\n")
    assert packaged(tmp_path) == (theirs,)
