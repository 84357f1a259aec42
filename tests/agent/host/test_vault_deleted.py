"""Programs that were deleted and still run are found by their old path or their process, and nothing else is."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.agent.host.pinned import pin
from stanch.agent.host.vault_deleted import named_by_process, refuse_another_view, running_deleted
from stanch.agent.host.vault_parts import path_of
from stanch.core.errors import TargetGone, Unsupported
from stanch.core.types import EndpointPath


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of ours that runs."""
    path = tmp_path / "program"
    path.write_bytes(Path("/bin/sleep").read_bytes())
    path.chmod(0o755)
    running = subprocess.Popen([path, "600"])
    yield running
    running.kill()
    running.wait()


def of(process: subprocess.Popen[bytes]) -> EndpointPath:
    """What the kernel calls its program."""
    return EndpointPath(f"/proc/{process.pid}/exe")


def test_it_is_found_by_its_path_and_by_its_process(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Once its name is gone, both lead to its content, and to what it was called."""
    path = tmp_path / "program"
    assert running_deleted(path_of(path)) is None
    assert running_deleted(of(process)) is None
    assert named_by_process(of(process)) == path_of(path)
    path.unlink()
    for name in (path_of(path), of(process)):
        found = running_deleted(name)
        assert found is not None
        assert found.path == path_of(path)
        assert os.pread(found.descriptor, 4, 0) == b"\x7fELF"
        os.close(found.descriptor)


def test_a_new_file_of_that_name_is_what_is_meant(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """What is there now goes before what was there."""
    (tmp_path / "program").unlink()
    (tmp_path / "program").write_bytes(b"new")
    assert running_deleted(path_of(tmp_path / "program")) is None


def test_a_name_that_only_looks_deleted_is_an_ordinary_one(tmp_path: Path) -> None:
    """A program may be called `x (deleted)`: it has a name, and is no deleted `x`."""
    path = tmp_path / "x (deleted)"
    path.write_bytes(Path("/bin/sleep").read_bytes())
    path.chmod(0o755)
    running = subprocess.Popen([path, "600"])
    assert running_deleted(path_of(tmp_path / "x")) is None
    running.kill()
    running.wait()


def test_a_process_that_is_gone_has_no_program() -> None:
    """Told as gone, whatever asks; other paths stay as they are."""
    gone = EndpointPath("/proc/4194304/exe")
    assert running_deleted(gone) is None
    with pytest.raises(TargetGone):
        named_by_process(gone)
    assert named_by_process(EndpointPath("/proc/4194304/cwd")) == EndpointPath("/proc/4194304/cwd")


def test_a_program_of_another_view_is_not_the_file_of_its_name_here(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """What a container runs has a name that means another file on this machine."""
    path = tmp_path / "program"
    with pin(path_of(path)) as pinned:
        refuse_another_view(of(process), pinned)
    path.rename(tmp_path / "moved")
    path.write_bytes(b"a file of this machine")
    with pin(path_of(path)) as pinned:
        refuse_another_view(path_of(path), pinned)
        with pytest.raises(Unsupported, match="another name"):
            refuse_another_view(of(process), pinned)
