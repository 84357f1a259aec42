"""Uninstalling: refused while anything is in force, complete, repeatable, and never the owner's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stanch.agent import uninstall as module
from stanch.agent.alone import run_alone
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.host.namespace import Namespace
from stanch.agent.journal import Journal
from stanch.agent.supervisor import locked
from stanch.agent.systemd import AGENT, Systemd
from stanch.agent.uninstall import Uninstall
from stanch.agent.uninstall_survey import OwnTables, Places
from stanch.core.errors import Conflict, StanchError, Unavailable
from stanch.disk.service_files import HEAD, UNITS
from tests.agent.test_local import isolate_and_die
from tests.fakes.endpoint_state import Used
from tests.netns import netns


@dataclass
class FakeKernel:
    """Tables, and what they enforce."""

    enforced: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=lambda: ["inet stanch"])

    async def in_force(self) -> Sequence[str]:
        return self.enforced

    async def tables(self) -> Sequence[str]:
        return self.there

    async def remove(self) -> None:
        assert not self.enforced
        self.there.clear()


class FakeSystemd(Systemd):
    """One that runs the agent, or does not run at all."""

    stopped = False

    async def units(self) -> Mapping[str, Mapping[str, str]]:
        return {AGENT: {"ActiveState": "active"}}

    async def stop(self) -> None:
        FakeSystemd.stopped = True


@dataclass
class World:
    """An endpoint, and who lifts its effects."""

    used: Used
    kernel: FakeKernel = field(default_factory=FakeKernel)
    ordered: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    systemd: Systemd | None = None
    lifts: bool = True

    @property
    def root(self) -> Path:
        return self.used.folder / "image"

    async def order(self, action: str, params: Mapping[str, Any]) -> None:
        """What the agent would do: lift it, and forget it."""
        self.ordered.append((action, params))
        if self.lifts:
            self.kernel.enforced.clear()
            journal = Journal(self.used.settings.journal)
            await Effects(journal, AgentClock(journal, boot_seconds, boot_id())).drop("account-alice")
            await journal.close()

    def uninstall(self, **more: bool) -> Uninstall:
        systemd = self.systemd or Systemd(root=self.root)
        places = Places(settings=self.used.settings, root=self.root, systemd=systemd, kernel=self.kernel)
        return Uninstall(places=places, order=self.order, **more)

    def left(self) -> list[str]:
        folder = self.used.folder
        return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if not one.is_dir())


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An endpoint that was enrolled, and has a unit of ours."""
    made = World(Used(tmp_path).enrol().limit())
    unit = made.root / UNITS / "stanch-agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(HEAD)
    return made


async def test_all_of_it_goes_but_the_policy(world):
    """Units, tables, identity, journal; and what was said is what was done."""
    world.used.work(effect=False)
    planned = await world.uninstall().plan()
    assert world.kernel.there == ["inet stanch"]
    done = await world.uninstall().carry_out()
    assert done == planned
    assert world.left() == ["agent.toml"]
    assert not world.used.settings.state.exists()
    assert world.kernel.there == []
    assert any("agent.toml" in one for one in done.stays)
    assert done.next[-1] == "stanch endpoint revoke ep_test"


async def test_a_plan_changes_nothing(world):
    """It may be asked for as often as one likes."""
    world.used.work(effect=False).quarantine()
    before = world.left()
    await world.uninstall(discard_vault=True).plan()
    assert world.left() == before


# --- what is in force ------------------------------------------------------------------------------------------------


async def test_an_effect_in_force_refuses(world):
    """With what it is, and the command that lifts it; nothing is changed."""
    world.used.work()
    before = world.left()
    for do in (world.uninstall().plan, world.uninstall().carry_out):
        with pytest.raises(Conflict) as caught:
            await do()
        assert "account-alice (stanch unlock-account ep_test)" in str(caught.value)
        assert "--lift" in str(caught.value)
    assert world.left() == before


async def test_lifting_comes_first(world):
    """By its own action and parameters; then all of it goes."""
    world.used.work()
    await world.uninstall(lift=True).carry_out()
    assert world.ordered == [("unlock_account", {"account": "alice"})]
    assert world.left() == ["agent.toml"]


async def test_what_cannot_be_lifted_stops_it(world):
    """Nothing is removed then."""
    world.used.work()
    world.lifts = False
    before = world.left()
    with pytest.raises(Conflict, match="in force"):
        await world.uninstall(lift=True).carry_out()
    assert world.left() == before


async def test_one_that_fails_is_told_with_its_reason(world):
    """And does not keep the others in force."""
    world.used.work()

    async def refuse(action: str, params: Mapping[str, Any]) -> None:
        world.ordered.append((action, params))
        raise Unavailable("usermod is busy")

    world.order = refuse
    with pytest.raises(Conflict, match="could not be lifted: usermod is busy"):
        await world.uninstall(lift=True).carry_out()
    assert len(world.ordered) == 1
    assert world.used.settings.state.exists()


async def test_an_isolation_that_only_the_kernel_knows(world):
    """It refuses too, and the release lifts it."""
    world.kernel.enforced.append("network isolation")
    with pytest.raises(Conflict, match="network isolation"):
        await world.uninstall().plan()
    await world.uninstall(lift=True).carry_out()
    assert world.ordered == [("release", {})]
    assert world.kernel.there == []


async def test_a_broken_journal_refuses(world):
    """Nobody can tell what was in force; --lift lets the machine back on the network, through a new journal."""
    world.used.settings.journal.write_bytes(b"rubbish" * 1000)
    with pytest.raises(Conflict, match="Nobody can tell"):
        await world.uninstall().plan()
    await world.uninstall(lift=True).carry_out()
    assert world.ordered == [("release", {})]
    assert world.left() == ["agent.toml"]


@pytest.mark.root
def test_a_real_isolation_is_lifted_without_an_agent(tmp_path):
    """By the agent's own executor, in the namespace of the test: the tables are gone, and so is everything else."""
    used = Used(tmp_path)
    settings = used.settings

    async def order(action: str, params: Mapping[str, Any]) -> object:
        return await run_alone(settings.config, settings.state, action, params)

    with netns() as inside:
        inside.run(lambda: isolate_and_die(tmp_path, settings.state))
        kernel = inside.call(lambda: OwnTables(Namespace.current("net")))
        root = tmp_path / "image"
        places = Places(settings=settings, root=root, systemd=Systemd(root=root), kernel=kernel)
        with pytest.raises(Conflict, match="isolation"):
            inside.run(Uninstall(places=places, order=order).carry_out)
        assert "table inet stanch" in inside.command("nft list ruleset")
        inside.run(Uninstall(places=places, order=order, lift=True).carry_out)
        assert inside.command("nft list ruleset") == ""
    assert not settings.state.exists()


# --- the vault -------------------------------------------------------------------------------------------------------


async def test_the_vault_stays_with_its_key(world):
    """Its items can be brought back by an agent that is enrolled here again."""
    world.used.quarantine()
    told = await world.uninstall().carry_out()
    assert any("1 items of the vault" in one for one in told.stays)
    assert "state/vault.key" in world.left()
    world.used.enrol()
    settings = world.used.settings
    (item,) = (await run_alone(settings.config, settings.state, "quarantine_list", {}))["items"]
    await run_alone(settings.config, settings.state, "restore", {"items": [item["id"]]})
    assert (world.used.folder / "dropper").read_bytes() == b"malware"


async def test_it_goes_only_when_that_is_said(world):
    """For good, and with its key."""
    world.used.quarantine()
    told = await world.uninstall(discard_vault=True).carry_out()
    assert any("for good" in one for one in told.steps)
    assert world.left() == ["agent.toml"]


async def test_a_vault_in_a_folder_of_the_owner(world):
    """Only what is the vault's goes: the folder was somebody's before."""
    place = world.used.folder / "place"
    place.mkdir(mode=0o700)
    (place / "theirs").write_text("x")
    world.used.limit(f'[vault]\nfolder = "{place}"\n').quarantine()
    await world.uninstall(discard_vault=True).carry_out()
    assert world.left() == ["agent.toml", "place/theirs"]


async def test_a_broken_policy_hides_the_vault(world):
    """Then its key must not go: it is refused."""
    world.used.settings.config.write_text("[vault\n")
    for lift in (False, True):
        with pytest.raises(Conflict, match="where the vault is"):
            await world.uninstall(lift=lift).plan()


# --- the agent -------------------------------------------------------------------------------------------------------


async def test_an_agent_that_nobody_manages_is_named(world):
    """Whoever started it ends it."""
    with locked(world.used.settings.state), pytest.raises(Conflict, match=r"process \d+") as caught:
        await world.uninstall().plan()
    assert "kill" in str(caught.value.hint)


async def test_systemd_stops_its_own(world):
    """If the agent is still there afterwards, nothing is removed."""
    world.systemd = FakeSystemd(root=world.root)
    before = world.left()
    with locked(world.used.settings.state), pytest.raises(Conflict, match="meanwhile"):
        await world.uninstall().carry_out()
    assert FakeSystemd.stopped
    assert set(before) <= set(world.left())
    await world.uninstall().carry_out()
    assert world.left() == ["agent.toml"]


# --- cut short -------------------------------------------------------------------------------------------------------


async def test_cut_short_anywhere_a_second_time_finishes_it(tmp_path, monkeypatch):
    """Each removal is its last act once; then all of it goes, and the server's name for it was told each time."""
    for most in range(1, 40):
        world = World(Used(tmp_path / str(most)))
        world.used.folder.mkdir()
        world.used.enrol().limit().work(effect=False)
        if await cut_after(world, most, monkeypatch):
            break
        told = await world.uninstall().carry_out()
        assert world.left() == ["agent.toml"], most
        assert told.next[-1] == "stanch endpoint revoke ep_test" or not told.steps[0].endswith("identity.json")
    assert most > 3


async def cut_after(world: World, most: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Die after so many removals; did it get to its end before?"""
    left, real = [most], module._removed

    def removed(path: Path) -> None:
        if not left[0]:
            raise Unavailable("killed here")
        left[0] -= 1
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_removed", removed)
        try:
            await world.uninstall().carry_out()
        except StanchError:
            return False
    return True


async def test_on_an_empty_machine_it_says_so(tmp_path):
    """It is no error: somebody may have been here before."""
    world = World(Used(tmp_path), kernel=FakeKernel(there=[]))
    told = await world.uninstall().carry_out()
    assert told.steps == ("nothing: there is no agent here",)
    assert world.left() == []
