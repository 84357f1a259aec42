"""Is whatever runs anything recognised, by the name that it really has?"""

import os
import shutil
from pathlib import Path

import pytest

from stanch.agent.interpreters import loads_code, runs_anything
from stanch.core.types import EndpointPath


@pytest.mark.parametrize(
    "name",
    [
        *("sh", "bash", "dash", "zsh", "busybox", "ksh93", "python3", "python3.11", "python2.7-dbg", "pypy3", "perl"),
        *("perl5.36.0", "ruby3.1", "node", "php8.2", "lua5.4", "tclsh8.6", "gawk", "mawk", "awk", "env", "xargs"),
        *("sudo", "su", "nsenter", "systemd-run", "find", "ld-linux-x86-64.so.2", "ld-musl-x86_64.so.1", "ld-2.31.so"),
        *(
            "flock",
            "setarch",
            "run-parts",
            "start-stop-daemon",
            "pkexec",
            "tmux",
            "make",
            "sed",
            "tar",
            "rsync",
            "runc",
        ),
    ],
)
def test_shells_interpreters_loaders_and_starters(name):
    """Wherever they are."""
    assert runs_anything(EndpointPath(f"/opt/somewhere/{name}"), places=())


@pytest.mark.parametrize(
    "name", ["ls", "ss", "collect", "shred", "bashful", "pythonic", "cat", "perlite", "environ", "ld", "finder"]
)
def test_others_are_none(name):
    """A name that only begins like one is another name."""
    assert not runs_anything(EndpointPath(f"/usr/bin/{name}"), places=())


def test_a_hard_link_is_the_file(tmp_path):
    """Whatever it is called; a copy is another file."""
    shell = tmp_path / "sh"
    shutil.copy("/bin/true", shell)
    os.link(shell, tmp_path / "harmless")
    shutil.copy(shell, tmp_path / "copy")
    places = (str(shell), str(tmp_path / "none"))
    assert runs_anything(EndpointPath(f"{tmp_path}/harmless"), places)
    assert not runs_anything(EndpointPath(f"{tmp_path}/copy"), places)
    assert not runs_anything(EndpointPath(f"{tmp_path}/gone"), places)
    assert Path(shell).exists()


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "PYTHONPATH", "PERL5OPT", "PATH"])
def test_variables_that_load_code(name):
    """They make an allowed program run another."""
    assert loads_code(name)


@pytest.mark.parametrize("name", ["LANG", "DEPTH", "TZ", "BUILD_ENV", "MYPATH"])
def test_other_variables_are_harmless(name):
    """An order may set them."""
    assert not loads_code(name)
