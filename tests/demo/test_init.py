"""What the endpoint's pid 1 keeps visible; the mounts themselves are tested with the lab."""

from pathlib import Path

from stanch.demo.init import kept_below, needed_here


def test_only_the_folder_right_below_is_kept():
    """A checkout deep in a home keeps that home, whole, and nothing else."""
    needed = {Path("/home/ann/src/stanch/.venv"), Path("/home/ann/src/stanch/src"), Path("/usr"), Path("/home")}
    assert kept_below("/home", needed) == {Path("/home/ann")}
    assert kept_below("/run", needed) == set()
    assert kept_below("/var/lib", {Path("/var/lib/pyenv/versions/3.11"), Path("/var/library/x")}) == {
        Path("/var/lib/pyenv")
    }


def test_the_package_and_the_interpreter_are_needed():
    """Whatever is hidden, the running Python still finds itself and this package."""
    assert Path(__file__).parents[2] / "src" in needed_here() or any("site-packages" in str(p) for p in needed_here())
