"""The lab makes what it says, and leaves nothing behind, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import StanchError, Unsupported
from stanch.demo import lab as lab_module
from stanch.demo.lab import C2_V4, C2_V6, HOSTNAME, Lab, Owner, folder_name, read_folder_name, sweep
from stanch.demo.program import ENVIRONMENT, status_of, wait_until

ENDS = ("endpoint", "outside", "server")


def devices() -> list[str]:
    """The network devices of the namespace that the test runs in."""
    return sorted(entry.name for entry in Path("/sys/class/net").iterdir())


def mounts() -> list[str]:
    """Mount points; the one that `ip netns` itself makes and keeps is not ours."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(point for line in lines if not (point := line.split()[4]).startswith("/run/netns"))


def namespaces(lab: str) -> list[str]:
    """The named network namespaces that a lab has left."""
    return [end for end in ENDS if Path(f"/run/netns/{lab}-{end}").exists()]


@given(st.from_regex(r"st-[0-9a-f]{6}", fullmatch=True), st.integers(1, 4_194_304), st.integers(0, 2**62))
def test_a_folder_name_says_whose_it_is(name: str, pid: int, started: int):
    """What is written into the name is read from it."""
    assert read_folder_name(folder_name(name, Owner(pid, started))) == (name, Owner(pid, started))


@given(st.text(max_size=40))
def test_a_foreign_folder_name_is_not_ours(name: str):
    """Other names are never taken for a lab's, so never swept."""
    found = read_folder_name(name)
    assert found is None or folder_name(*found).split(".")[0] == name.split(".", maxsplit=1)[0]


def test_a_process_with_another_start_time_is_not_the_owner():
    """A later process with the same pid does not keep a dead lab alive."""
    me = Owner.me()
    assert me.alive()
    assert not Owner(me.pid, me.started + 1).alive()


def test_without_root_no_lab_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The reason is said, and nothing was touched."""
    monkeypatch.setattr(lab_module.os, "geteuid", lambda: 1000)
    with pytest.raises(Unsupported) as caught, Lab(labs=tmp_path / "labs"):
        pass
    assert "root" in str(caught.value.got)
    assert not (tmp_path / "labs").exists()


def test_a_lab_that_was_not_entered_has_no_endpoint(tmp_path: Path):
    """Asking too early is an error of the program, not an empty answer."""
    with pytest.raises(StanchError):
        _ = Lab(labs=tmp_path).endpoint


@pytest.mark.root
def test_a_lab_is_made_and_removed(tmp_path: Path):
    """Three namespaces that reach one another; afterwards no namespace, mount, device, folder or process is left."""
    before = devices(), mounts()
    with Lab(labs=tmp_path / "labs") as lab:
        assert namespaces(lab.name) == list(ENDS)
        script = f"hostname && ls /home /run && ping -qc1 -W5 {C2_V4} && ping -qc1 -W5 {C2_V6}"
        said = subprocess.run([*lab.endpoint.enter, "sh", "-ec", script], capture_output=True, text=True, check=True)
        assert said.stdout.startswith(f"{HOSTNAME}\n/home:\n\n/run:\n")
        assert (devices(), mounts()) == before
        assert lab.endpoint.running("stanch.demo.init") == (1,)
        assert lab.endpoint.running("stanch.demo") == ()
        refused = lab.endpoint.run("sh", "-c", "echo no >&2; exit 3")
        assert (refused.code, refused.printed, refused.complained) == (3, "", "no")
        init = lab.endpoint.init
        sleeper = lab.start(lab.endpoint, ("sleep", "600"), log="sleep.log")
        assert wait_until(lambda: lab.endpoint.alive(1) and sleeper.process.poll() is None, within=10)
    assert namespaces(lab.name) == []
    assert (devices(), mounts()) == before
    assert status_of(init) is None
    assert sleeper.process.poll() is not None
    assert not (tmp_path / "labs").exists()


@pytest.mark.root
def test_a_lab_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When the last step of the set-up fails, the earlier ones are taken back."""
    lab = Lab(labs=tmp_path / "labs")
    monkeypatch.setattr(lab, "_boot", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), lab:
        pass
    assert namespaces(lab.name) == []
    assert not (tmp_path / "labs").exists()


@pytest.mark.root
def test_a_killed_lab_is_swept_by_the_next(tmp_path: Path):
    """Its programs die with it; its names and folder go when the next lab is made; a living lab is left alone."""
    code = (
        "import sys, time; from pathlib import Path; from stanch.demo.lab import Lab\n"
        "with Lab(labs=Path(sys.argv[1])) as lab: print(lab.name, lab.endpoint.init, flush=True); time.sleep(600)"
    )
    labs = tmp_path / "labs"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(labs)], stdout=subprocess.PIPE, env={**os.environ, **ENVIRONMENT}
    )
    assert owner.stdout is not None
    with owner.stdout:
        name, init = owner.stdout.readline().decode().split()
    assert sweep(labs) == []
    assert namespaces(name) == list(ENDS)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert wait_until(lambda: (found := status_of(int(init))) is None or found.state == "Z", within=10)
    assert sweep(labs) == [name]
    assert namespaces(name) == []
    assert not labs.exists()
