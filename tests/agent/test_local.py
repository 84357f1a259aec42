"""What `stanch local` does where no agent runs: on real nftables, in a network namespace of the test."""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from stanch.actions.isolate import EFFECT
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.identity import Binding
from stanch.agent.journal import Journal
from stanch.agent.local import isolation_off, isolation_release_code, isolation_status, show_isolation
from stanch.agent.settings import Settings
from stanch.agent.spool import Spool
from stanch.core.envelope import OrderBody
from stanch.core.errors import Denied, NotFound, TooManyRequests, Unavailable, VerificationFailed
from stanch.core.isolation import IsolationStatus, ReleaseCode
from stanch.core.network import IsolationRules, IsolationState, KernelIsolation, Peer
from tests.fakes.gateway import FakeGateway
from tests.netns import netns

RULES = IsolationRules(servers=(Peer(address=ip_address("192.0.2.1"), port=8444),))
NOTHING = KernelIsolation(state=IsolationState.RELEASED, rules=None, remaining=None)
CODE = "7KQ29XTRM4WB0ZHD"


def test_no_isolation_is_shown_as_such():
    """The state, and that nothing is left open or pending."""
    shown = show_isolation(IsolationStatus(state=IsolationState.RELEASED), NOTHING)
    assert shown["state"] == "released"
    assert (shown["remaining_seconds"], shown["servers"]) == (None, [])


async def test_a_machine_that_was_never_enrolled_has_nothing_to_lift(tmp_path):
    """Without an identity there is no agent, and the error says so."""
    with pytest.raises(NotFound, match="not enrolled"):
        await isolation_off(tmp_path)


async def test_another_namespace_than_the_identitys_is_not_touched(tmp_path):
    """What was enrolled elsewhere changes nothing here."""
    state = tmp_path / "state"
    identity = FakeGateway(tmp_path).identity(state)
    identity.model_copy(update={"binding": Binding(boot_id=boot_id(), net=1, pid=1)}).save(state)
    with pytest.raises(VerificationFailed, match="other namespaces"):
        await isolation_status(state)


@pytest.mark.root
def test_an_isolation_that_its_agent_left_behind_can_be_lifted(tmp_path):
    """The tables go, the effect is forgotten, and a notice waits for the next agent."""
    state = tmp_path / "state"
    with netns() as inside:
        inside.run(lambda: isolate_and_die(tmp_path, state))
        seen = inside.run(lambda: isolation_status(state))
        assert (seen["state"], seen["servers"]) == ("isolated", ["192.0.2.1 port 8444"])
        assert 0 < seen["remaining_seconds"] <= 3600
        lifted = inside.run(lambda: isolation_off(state))
        assert (lifted["changed"], lifted["state"]) == (True, "released")
        assert inside.run(lambda: isolation_off(state))["changed"] is False
        assert inside.command("nft list ruleset") == ""
        effect, notices = inside.run(lambda: left_in_the_journal(state))
    assert effect is None
    assert [one.detail["changed"] for one in notices] == [True, False]


@pytest.mark.root
def test_what_is_printed_is_left_to_the_answer(tmp_path, capsys):
    """A line of the log on standard output would make `--json` no JSON."""
    state = tmp_path / "state"
    with netns() as inside:
        inside.run(lambda: isolate_and_die(tmp_path, state))
        capsys.readouterr()
        assert inside.run(lambda: isolation_off(state))["changed"]
    printed = capsys.readouterr()
    assert (printed.out, "isolation-lifted" in printed.err) == ("", True)


@pytest.mark.root
def test_a_disk_that_takes_nothing_keeps_nobody_isolated(tmp_path, monkeypatch):
    """Root lifts it all the same, and is told that an agent would put it back."""
    state = tmp_path / "state"

    async def full(*_arguments: object) -> None:
        raise Unavailable("The agent's journal cannot be written", got="database or disk is full")

    with netns() as inside:
        inside.run(lambda: isolate_and_die(tmp_path, state))
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "write", full)
            with pytest.raises(Unavailable, match="is lifted, but that cannot be written"):
                inside.run(lambda: isolation_off(state))
        assert inside.command("nft list ruleset") == ""
        effect, _notices = inside.run(lambda: left_in_the_journal(state))
    assert effect is not None


@pytest.mark.root
def test_root_may_use_the_release_code_without_an_agent(tmp_path):
    """The right code lifts, and is told; wrong ones are counted where the agent counts them."""
    state = tmp_path / "state"
    with netns() as inside:
        inside.run(lambda: isolate_and_die(tmp_path, state))
        with pytest.raises(Denied):
            inside.run(lambda: isolation_release_code(state, "0" * 16))
        lifted = inside.run(lambda: isolation_release_code(state, CODE))
        assert (lifted["changed"], lifted["state"]) == (True, "released")
        assert inside.command("nft list ruleset") == ""
        effect, notices = inside.run(lambda: left_in_the_journal(state))
    assert effect is None
    assert [one.kind for one in notices] == ["release-code-refused", "release-code-used"]


@pytest.mark.root
def test_guessing_without_an_agent_is_limited(tmp_path):
    """Each call is a process of its own, and the journal counts them all."""
    state = tmp_path / "state"
    with netns() as inside:
        inside.run(lambda: isolate_and_die(tmp_path, state))
        for _ in range(5):
            with pytest.raises(Denied):
                inside.run(lambda: isolation_release_code(state, "0" * 16))
        with pytest.raises(TooManyRequests):
            inside.run(lambda: isolation_release_code(state, CODE))
        assert inside.run(lambda: isolation_status(state))["state"] == "isolated"


async def isolate_and_die(folder: Path, state: Path) -> None:
    """What an agent that isolated and was killed leaves behind."""
    identity = FakeGateway(folder).identity(state)
    identity.model_copy(update={"binding": Binding.here(boot_id())}).save(state)
    journal, firewall = Journal(Settings(state=state).journal), NftFirewall(Namespace.current("net"))
    effects = Effects(journal, AgentClock(journal, boot_seconds, boot_id()))
    order = OrderBody(
        task="tsk_1",
        order="ord_1",
        action="isolate",
        action_version=1,
        params={},
        origin="api",
        requested_by="alice",
        release_code=ReleaseCode.of(CODE, bytes(16)),
    )
    await effects.hold(order, EFFECT, lift_action="release", lift_params={}, detail={}, lasts=timedelta(hours=1))
    await firewall.isolate(RULES, lift_after=timedelta(hours=1))
    await firewall.close()
    await journal.close()


async def left_in_the_journal(state: Path) -> Any:
    """The isolation as the next agent finds it, and what it will tell the server."""
    journal = Journal(Settings(state=state).journal)
    clock = AgentClock(journal, boot_seconds, boot_id())
    try:
        return Effects(journal, clock).current(EFFECT), await Spool(journal, clock).pending(10)
    finally:
        await journal.close()
