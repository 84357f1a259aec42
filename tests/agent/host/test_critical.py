"""What the machine needs is recognised by the file, and nothing else is."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from stanch.agent.host.critical import FRESH_SECONDS, Critical
from stanch.core.types import EndpointPath


def ask(critical: Critical, path: str | Path) -> str | None:
    real = os.path.realpath(path)
    return critical.why(EndpointPath.of(os.fsencode(real)), os.lstat(real))


@pytest.mark.parametrize("path", ["/bin/sh", "/etc/passwd", "/etc", "/usr", "/"])
def test_what_every_machine_needs(path: str):
    """Shells, accounts, and the folders that they are in."""
    assert ask(Critical(), path)


def test_libraries_and_loader():
    """Whatever this very program could not run without."""
    maps = Path("/proc/self/maps").read_text().split()
    (libc,) = {one for one in maps if "/libc.so" in one or "/libc-" in one}
    (loader,) = {one for one in maps if "/ld-" in one}
    assert ask(Critical(), libc)
    assert ask(Critical(), loader)


def test_another_file_may_go(tmp_path: Path):
    """Also one that is a copy of a shell: its bytes are not what the machine runs."""
    (tmp_path / "file").write_text("x")
    shutil.copy("/bin/sh", tmp_path / "sh")
    for name in ("file", "sh", "."):
        assert ask(Critical(), tmp_path / name) is None


def test_the_preload_list_may_go(tmp_path: Path):
    """No machine needs it, and attackers plant it."""
    (tmp_path / "x").write_text("")
    assert Critical().why(EndpointPath("/etc/ld.so.preload"), os.lstat(tmp_path / "x")) is None


def test_a_hard_link_to_a_shell_is_that_shell():
    """By its inode, under any name."""
    status = Path("/bin/sh").stat()
    assert Critical().why(EndpointPath("/tmp/innocent"), status) == "it is a shell of this machine"


def test_a_hard_link_to_the_accounts_is_the_accounts():
    """What has to be at its place is known by its inode, too: a link elsewhere, or a bind mount, leads to it."""
    assert Critical().why(EndpointPath("/tmp/link"), Path("/etc/passwd").stat()) == "nobody could sign in without it"


def test_stanch_itself(tmp_path: Path):
    """Its installation, its state, its configuration, by real path."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.db").write_text("x")
    (tmp_path / "link").symlink_to("state")
    critical = Critical(own=(tmp_path / "link", Path(sys.prefix)))
    assert "Stanch" in str(ask(critical, tmp_path / "state" / "journal.db"))
    assert "Stanch" in str(ask(critical, Path(sys.prefix) / "pyvenv.cfg"))
    assert ask(critical, tmp_path) is None


def test_another_name_of_stanchs_own_is_its_own(tmp_path: Path):
    """Shredding a hard link to the vault's key would lose all that is in the vault."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "vault.key").write_text("key")
    (tmp_path / "link").hardlink_to(state / "vault.key")
    assert "Stanch" in (ask(Critical(own=(state,)), tmp_path / "link") or "")
    assert ask(Critical(), tmp_path / "link") is None


def test_what_the_owner_excepts_may_go():
    """Only the local policy says so."""
    real = os.path.realpath("/bin/sh")
    assert ask(Critical(excepted=lambda: (EndpointPath(real),)), real) is None


def test_programs_of_services_only_on_demand(tmp_path: Path):
    """By the control group that their process is in."""
    process = tmp_path / "proc" / "77"
    process.mkdir(parents=True)
    program = tmp_path / "daemon"
    program.write_text("x")
    (process / "exe").symlink_to(program)
    (process / "cgroup").write_text("0::/system.slice/web.service\n")
    wanted = [False]
    critical = Critical(services=lambda: wanted[0], proc=tmp_path / "proc")
    assert ask(critical, program) is None
    wanted[0] = True
    assert ask(critical, program) == "a running service is this program"
    (process / "cgroup").write_text("0::/user.slice/user-1000.slice/session-1.scope\n")
    assert ask(Critical(services=lambda: True, proc=tmp_path / "proc"), program) is None


def test_what_was_found_out_is_believed_for_a_while(tmp_path: Path):
    """A search over many files must not look at every process for each; later it looks again."""
    now = [0.0]
    process = tmp_path / "1"
    process.mkdir()
    program = tmp_path / "init"
    program.write_text("x")
    critical = Critical(proc=tmp_path, seconds=lambda: now[0])
    assert ask(critical, program) is None
    (process / "exe").symlink_to(program)
    assert ask(critical, program) is None
    now[0] = FRESH_SECONDS + 1
    assert ask(critical, program) == "it is the first program of this machine"


@pytest.mark.skipif(not Path("/var/lib/dpkg/info").is_dir(), reason="no dpkg here")
def test_boot_files_of_packages_and_no_others():
    """What a package or the boot loader put below /boot stays; what somebody else put there may go."""
    status = os.lstat("/etc/hostname")
    assert Critical().why(EndpointPath("/boot/implant.bin"), status) is None
    assert Critical().why(EndpointPath("/boot/initrd.img-6.1"), status)
