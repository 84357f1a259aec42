"""The account without root's rights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.demo import account
from stanch.demo.account import lowered, open_to_all

SHOW = "import os; print(os.getuid(), os.getgroups()); os.setuid(0)"


def test_a_folder_is_open_to_all_only_if_its_parents_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One parent that others may not enter closes it, and so does a folder that they may not read."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    folder = Path("home/src")  # so that what is above is left out
    folder.mkdir(parents=True)
    for one in (folder, folder.parent):
        one.chmod(0o755)
    assert open_to_all(folder)
    folder.chmod(0o711)
    assert not open_to_all(folder)
    folder.chmod(0o755)
    folder.parent.chmod(0o700)
    assert not open_to_all(folder)


@pytest.mark.parametrize("closed", [False, True])
def test_reading_is_lent_only_where_the_program_could_not_be_read(monkeypatch: pytest.MonkeyPatch, *, closed: bool):
    """No capability without need, and never another one than that to read."""
    monkeypatch.setattr(account, "open_to_all", lambda _folder: not closed)
    capabilities = [word for word in lowered(1000) if "caps" in word]
    assert all(word.endswith("=-all,+dac_read_search") for word in capabilities)
    assert bool(capabilities) == closed


@pytest.mark.root
@pytest.mark.parametrize("closed", [False, True])
def test_the_account_cannot_become_root(monkeypatch: pytest.MonkeyPatch, *, closed: bool):
    """It has its own uid and no group, and the way back is shut."""
    monkeypatch.setattr(account, "open_to_all", lambda _folder: not closed)
    python = os.path.realpath(sys.executable)
    done = subprocess.run([*lowered(1000), python, "-I", "-c", SHOW], capture_output=True, text=True, check=False)
    assert done.stdout == "1000 []\n"
    assert "PermissionError" in done.stderr
