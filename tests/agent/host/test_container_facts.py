"""What the kernel says of a container's first process, from a /proc that the test makes, and from the real one."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stanch.agent.host.container_facts import Facts, ancestors, own_containers

ALL, FEW = "000001ffffffffff", "00000000a80425fb"
HOST = "25 1 8:1 / / rw - ext4 /dev/sda1 rw"
OVERLAY = "90 80 0:50 / / rw - overlay overlay rw"


def process(proc, pid, *, shared=(), capabilities=FEW, mounts=(OVERLAY,)):
    """A process whose namespaces are its own, but for the shared ones."""
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    for name in ("pid", "net", "mnt", "ipc", "user"):
        (folder / "ns" / name).symlink_to(f"{name}:[{1 if name in shared or pid == 'self' else 2}]")
    (folder / "status").write_text(f"Name:\tx\nPPid:\t1\nCapEff:\t{capabilities}\nCapBnd:\t{capabilities}\n")
    (folder / "mountinfo").write_text("\n".join(mounts) + "\n")


@pytest.fixture
def proc(tmp_path):
    process(tmp_path, "self", capabilities=ALL, mounts=(HOST,))
    return tmp_path


def of(proc, **fields):
    process(proc, 7, **fields)
    return " | ".join(Facts(proc).notes(7))


def test_an_ordinary_container_deserves_no_note(proc):
    """Its own namespaces, few capabilities, its own files."""
    assert of(proc, shared={"user"}) == ""


@pytest.mark.parametrize("name", ["pid", "net", "mnt", "ipc"])
def test_a_shared_namespace_is_noted(proc, name):
    """It is the machine's own."""
    assert f"shares the {name} namespace" in of(proc, shared={name})


@pytest.mark.parametrize(("shared", "capabilities", "privileged"), [
    ({"user"}, ALL, True),
    ({"user"}, FEW, False),
    (set(), ALL, False),
    ({"user"}, "nonsense", False),
])  # fmt: skip
def test_a_privileged_one_is_noted(proc, shared, capabilities, privileged):
    """All capabilities, in the user namespace of the machine: in another one they are worth nothing here."""
    assert of(proc, shared=shared, capabilities=capabilities).startswith("privileged") is privileged


@pytest.mark.parametrize("mount", [
    "91 90 0:24 /docker.sock /run/docker.sock rw - tmpfs tmpfs rw",
    "91 90 0:24 /docker.sock /somewhere rw - tmpfs tmpfs rw",
])  # fmt: skip
def test_a_runtimes_socket_in_it_is_noted(proc, mount):
    """Wherever it is mounted, and once."""
    assert of(proc, mounts=(OVERLAY, mount, mount)).count("docker.sock is mounted in it") == 1


def test_the_machines_files_in_it_are_noted(proc):
    """Its whole root file system; a folder of it is nothing special."""
    assert "mounted in it at /host" in of(proc, mounts=(OVERLAY, "91 90 8:1 / /host rw - ext4 /dev/sda1 rw"))
    process(proc, 8, mounts=(OVERLAY, "91 90 8:1 /srv/data /data rw - ext4 /dev/sda1 rw"))
    assert not list(Facts(proc).notes(8))


def test_one_that_has_gone_has_no_notes(proc):
    """Nothing is raised, and nothing is claimed."""
    assert list(Facts(proc).notes(9)) == []


@pytest.mark.parametrize("text", ["", "\0\n" * 5, "1 2 3\n", "- - - - - -\n"])
def test_odd_tables_of_mounts_are_read(proc, text):
    """Whatever they hold."""
    process(proc, 7)
    (proc / "7/mountinfo").write_text(text)
    assert list(Facts(proc).notes(7)) == []


def test_when_it_began(tmp_path):
    """Ticks after boot; unknown where /proc does not tell when that was."""
    assert Facts(tmp_path).began(100) is None
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1764000000\nprocesses 5\n")
    ticks = 90 * os.sysconf("SC_CLK_TCK")
    assert Facts(tmp_path).began(ticks) == datetime.fromtimestamp(1764000000, UTC) + timedelta(seconds=90)


@pytest.mark.parametrize(("source", "place", "found"), [
    ("/var/lib/docker/containers/{}/hostname", "/etc/hostname", True),
    ("/containers/storage/overlay-containers/{}/userdata/hosts", "/etc/hosts", True),
    ("/var/lib/docker/containers/{}/hostname", "/srv/hostname", False),
    ("/etc/hostname", "/etc/hostname", False),
])  # fmt: skip
def test_the_container_that_we_are_in(proc, source, place, found):
    """By the files that runtimes mount into each; what is mounted elsewhere says nothing."""
    number = "ab" * 32
    (proc / "self/mountinfo").write_text(f"91 90 8:1 {source.format(number)} {place} rw - ext4 /dev/sda1 rw\n")
    assert own_containers(proc) == ({number} if found else set())


def test_ancestors_end_at_the_first_process():
    """This process, its parent, and so on; of one that has gone, only itself."""
    real = Path("/proc")
    assert {os.getpid(), os.getppid(), 1} <= ancestors(real, os.getpid())
    assert 0 not in ancestors(real, os.getpid())
    assert ancestors(Path("/nonexistent"), 7) == {7}
