"""Envelopes that replace settings: policy, content, addresses, keys; and the time that all of them carry."""

from pathlib import Path

import pytest

from stanch.core.content import ContentKind, PackRef
from stanch.core.envelope import AddressesBody, ContentBody, KeysBody, Kind, PolicyBody
from stanch.core.errors import ActionFailed
from stanch.core.task import State
from tests.fakes.agent import FakeSigner, Machine, Script, jwk, new_key, scripted


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def machine(tmp_path: Path, script: Script) -> Machine:
    return Machine(tmp_path, scripted(script))


# --- settings, keys, time --------------------------------------------------------------------------------------------


async def test_settings_are_stored_told_and_only_newer_ones_accepted(machine: Machine) -> None:
    """A newer version replaces, an equal or older one is refused, also after a restart."""
    told: list[object] = []

    async def listen(body: object) -> None:
        told.append(body)

    def policy(version: int) -> str:
        return machine.server.sign(PolicyBody(settings={"v": version}), version=version)

    async with machine.agent(on={Kind.POLICY: listen}) as agent:
        await agent.executor.accept(policy(2))
        await agent.executor.accept(policy(2))
        await agent.executor.accept(policy(1))
        content = ContentBody(packs=(PackRef(name="yara", kind=ContentKind.YARA, version=1, sha256="0" * 64, size=1),))
        await agent.executor.accept(machine.server.sign(content, version=1))
        codes = [one.detail["error"]["code"] for one in await agent.notices()]
        assert codes == ["replayed", "outdated"]
    async with machine.agent(on={Kind.POLICY: listen}) as agent:
        assert agent.journal.get("policy")["settings"] == {"v": 2}
        assert agent.journal.get("content")["packs"][0]["size"] == 1
        await agent.executor.accept(policy(2))
        await agent.executor.accept(policy(3))
    assert [body.settings for body in told if isinstance(body, PolicyBody)] == [{"v": 2}, {"v": 3}]


async def test_a_listener_that_fails_does_not_undo_the_settings(machine: Machine) -> None:
    """Settings that were accepted stay, whatever their listener does."""

    async def listen(_body: object) -> None:
        raise ActionFailed("no")

    async with machine.agent(on={Kind.ADDRESSES: listen}) as agent:
        await agent.executor.accept(machine.server.sign(AddressesBody(urls=("https://s:1",)), version=1))
        assert agent.journal.get("addresses")["urls"] == ["https://s:1"]
        assert await agent.notices() == []


async def test_keys_rotate_only_by_a_trusted_key(machine: Machine, script: Script) -> None:
    """After a rotation only the new key signs, also after a restart; rubbish keys change nothing."""
    newer = new_key("k2")
    async with machine.agent() as agent:
        await agent.executor.accept(
            FakeSigner(machine.endpoint.clock.now, key=newer).sign(KeysBody(keys=(jwk(newer),)), version=5)
        )
        await agent.executor.accept(machine.server.sign(KeysBody(keys=({"kty": "OKP", "kid": "k3"},)), version=6))
        await agent.executor.accept(machine.server.sign(KeysBody(keys=(newer.as_dict(private=True),)), version=7))
        assert len(await agent.notices("envelope-refused")) == 3
        await agent.executor.accept(machine.server.sign(KeysBody(keys=(jwk(newer),)), version=8))
        await agent.executor.accept(machine.server.order("tsk_old", "act"))
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_old", "act"))
        await agent.executor.accept(FakeSigner(machine.endpoint.clock.now, key=newer).order("tsk_new", "act"))
        assert await agent.state("tsk_new") is State.DONE
    assert script.begun == ["tsk_new"]


async def test_only_the_answer_to_our_own_hello_sets_the_time_back(machine: Machine) -> None:
    """A server that was a day ahead is believed when it answers our nonce with the right time, and we say so."""
    right = machine.endpoint.clock.now()
    async with machine.agent() as agent:
        ahead = machine.server.sign(AddressesBody(urls=()), version=1, ago=-86_400)
        await agent.executor.accept(ahead)
        held_back = machine.server.sign(AddressesBody(urls=(), nonce="other"), version=2, valid_for=60)
        await agent.executor.accept(held_back, nonce="mine")
        assert (agent.clock.stamp() - right).total_seconds() == 86_400
        answer = machine.server.sign(AddressesBody(urls=(), nonce="mine"), version=3, valid_for=60)
        await agent.executor.accept(answer, nonce="mine")
        assert agent.clock.now() == right
        (notice,) = await agent.notices("clock-changed")
        assert notice.detail["set_back_seconds"] == 86_400
