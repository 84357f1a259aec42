"""What the kernel can do: asked of it really, and what is said where it cannot."""

import os
from pathlib import Path
from typing import Any

import pytest

from stanch.agent import selftest_kernel
from stanch.agent.host.cgroups import hierarchy
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.ruleset import render
from stanch.agent.host.run import Finished
from stanch.agent.selftest_kernel import (
    LOOPBACK,
    RULES,
    connections,
    control_groups,
    execution,
    firewall,
    processes,
    worker,
)
from stanch.agent.selftest_probe import Bench, Outcome
from stanch.core.errors import ActionFailed, Unsupported
from stanch.worker.ask import Answer
from tests.fakes.endpoint_state import Used
from tests.netns import netns


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(settings=Used(tmp_path).settings)


# --- firewall --------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_the_rules_are_taken_elsewhere(bench):
    """The rules of the namespace that we are in are not touched, whoever is in it."""
    with netns() as inside:
        found = inside.run(lambda: firewall(bench))
        assert found.state is Outcome.OK, found
        assert inside.command("nft list ruleset") == ""


def test_rules_for_kernels_without_hooks_for_what_leaves():
    """The second try: the same for the machine's own stack, and nothing for devices."""
    assert "netdev" in render(RULES, [LOOPBACK], lift_after=None)
    without = render(RULES, [LOOPBACK], lift_after=None, egress=False)
    assert ("table inet" in without, "netdev" in without) == (True, False)


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ({True: (1, "Error: Could not process rule: Not supported"), False: (0, "")}, Outcome.LIMITED),
        ({True: (1, "Error: nope"), False: (1, "Error: nope")}, Outcome.FAILED),
        ({True: (1, "unshare: unshare failed: Operation not permitted")}, Outcome.SKIPPED),
    ],
)
async def test_kernels_that_can_do_less(bench, monkeypatch, answers, state):
    """Without hooks for what leaves it is limited; without namespaces nothing was tried."""

    async def answer(*, egress: bool) -> Finished:
        code, said = answers[egress]
        return Finished(code, b"", said.encode())

    monkeypatch.setattr(selftest_kernel, "_in_a_namespace", answer)
    assert (await firewall(bench)).state is state


async def test_without_nft_the_package_is_named(bench, monkeypatch):
    """The error says what to install."""
    monkeypatch.setattr("stanch.agent.host.run.PATH", "/nonexistent")
    with pytest.raises(Unsupported) as caught:
        await firewall(bench)
    assert "nftables" in str(caught.value.hint)


@pytest.mark.root
async def test_connections_are_listed(bench, monkeypatch):
    """Where they could not be cut, that is the limit."""
    assert (await connections(bench)).state is Outcome.OK
    monkeypatch.setattr(selftest_kernel, "capabilities", lambda: {"sock-destroy": "no CONFIG_INET_DIAG_DESTROY"})
    found = await connections(bench)
    assert (found.state, "CONFIG" in found.seen) == (Outcome.LIMITED, True)


# --- processes -------------------------------------------------------------------------------------------------------


async def test_a_process_of_our_own_is_ended(bench):
    """Found, ended, and gone."""
    assert (await processes(bench)).state is Outcome.OK


async def test_another_pid_namespace_is_refused(bench, monkeypatch):
    """No process is touched where the namespace is not the one."""
    monkeypatch.setattr(Namespace, "check", lambda _self: (_ for _ in ()).throw(ActionFailed("elsewhere")))
    with pytest.raises(ActionFailed, match="elsewhere"):
        await processes(bench)


@pytest.mark.root
def test_a_control_group_is_made_and_removed(bench):
    """Of the name that was asked for, and nothing is left of it."""
    try:
        root = hierarchy().root
    except Unsupported as error:
        pytest.skip(str(error))
    prefix = f"stanch-test-{os.getpid()}-"
    found = selftest_kernel._control_groups(prefix, root)
    assert found.state in {Outcome.OK, Outcome.LIMITED}
    assert "made and removed" in found.seen
    assert not [*root.glob(f"{prefix}*")]


async def test_where_no_group_can_be_made(bench, monkeypatch, tmp_path):
    """Read-only, or no version 2 at all: limited, with the reason."""
    found = selftest_kernel._control_groups("stanch-test-", tmp_path / "nowhere")
    assert found.state is Outcome.LIMITED

    def none() -> None:
        raise Unsupported("No", got="no cgroup2 file system")

    monkeypatch.setattr(selftest_kernel, "hierarchy", none)
    assert (await control_groups(bench)).seen == "no cgroup2 file system"


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"cgroup.freeze", "cgroup.kill"}, Outcome.OK),
        ({"cgroup.freeze"}, Outcome.LIMITED),
    ],
)
def test_old_kernels_lack_files(tmp_path, files, state):
    """Made up: what is not there is named."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "group").mkdir()
    for name in files:
        (tmp_path / "group" / name).touch()
    assert selftest_kernel._told(tmp_path, tmp_path / "group").state is state


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


# --- confinement -----------------------------------------------------------------------------------------------------


@pytest.mark.root
async def test_only_a_descriptor_is_asked_for(bench):
    """It is closed again: as many are open as before."""
    before = descriptors()
    await execution(bench)
    assert descriptors() == before


async def test_a_kernel_that_refuses(bench, monkeypatch):
    """Without the right or the option, it is limited and says what it takes."""

    class Libc:
        @staticmethod
        def fanotify_init(*_arguments: object) -> int:
            return -1

    monkeypatch.setattr(selftest_kernel.ctypes, "CDLL", lambda *_args, **_options: Libc)
    found = await execution(bench)
    assert (found.state, "CAP_SYS_ADMIN" in (found.help or "")) == (Outcome.LIMITED, True)


async def test_the_worker_says_how_it_is_shut_in(bench, monkeypatch):
    """Each measure that it could not take is told."""
    assert (await worker(bench)).state in {Outcome.OK, Outcome.LIMITED}

    async def open_(*_arguments: Any, **_options: Any) -> Answer:
        return Answer(confined={"seccomp": "yes", "landlock": "Function not implemented"}, shown={})

    monkeypatch.setattr(selftest_kernel, "ask", open_)
    found = await worker(bench)
    assert (found.state, "landlock (Function not implemented)" in found.seen) == (Outcome.LIMITED, True)


async def test_a_worker_that_does_not_start_fails(bench, monkeypatch):
    """Evidence cannot be looked at then."""

    async def dead(*_arguments: Any, **_options: Any) -> Answer:
        raise ActionFailed("The evidence could not be rendered", got="signal 9")

    monkeypatch.setattr(selftest_kernel, "ask", dead)
    assert (await worker(bench)).state is Outcome.FAILED
