"""What there is to uninstall: what is in force, what is ours, and what is somebody else's."""

import os
import socket
from pathlib import Path

import pytest

from stanch.agent.host.clock import boot_id
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.identity import Binding, Identity
from stanch.agent.marker import mark_isolated
from stanch.agent.selftest_kernel import RULES
from stanch.agent.settings import Settings
from stanch.agent.supervisor import locked
from stanch.agent.uninstall_survey import OwnTables, Places, package_command, survey
from stanch.core.errors import Protected, VerificationFailed
from stanch.core.types import hours
from stanch.disk.service_files import HEAD, LINKS, PACKAGED, UNITS
from stanch.disk.service_files import RULES as UDEV
from tests.fakes.endpoint_state import Used
from tests.netns import netns


@pytest.fixture
def used(tmp_path: Path) -> Used:
    return Used(tmp_path)


def image(used: Used) -> Places:
    return Places.of(used.settings, used.folder / "image")


async def test_an_empty_machine_has_nothing(used):
    """Nothing is made to find that out."""
    found = await survey(image(used))
    assert found.nothing
    assert (found.endpoint, found.pid, found.items, found.unsure) == (None, None, 0, None)
    assert list(used.folder.iterdir()) == []


async def test_what_an_agent_left_is_found(used):
    """Effects, vault, state, sockets; the identity goes last, and what has another name is not ours."""
    used.enrol().limit().work().quarantine()
    state = used.settings.state
    (state / "notes.txt").write_text("the owner's")
    used.settings.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fspath(used.settings.socket))
        used.settings.code_socket.touch()
        found = await survey(image(used))
    assert found.endpoint == "ep_test"
    assert [one.name for one in found.effects] == ["account-alice"]
    assert found.items == 1
    assert found.sockets == (used.settings.socket,)
    assert found.others == (state / "notes.txt",)
    assert [one.name for one in found.state] == ["credentials-ep_test.pem", "journal.db", "identity.json"]


@pytest.mark.parametrize("damage", ["broken", "gone"])
async def test_without_its_journal_nobody_can_tell(used, damage):
    """A journal that cannot be read, or one that is gone while the mark of an isolation is there."""
    used.enrol()
    if damage == "broken":
        used.settings.journal.write_bytes(b"rubbish" * 1000)
    else:
        mark_isolated(used.settings.state)
    assert (await survey(image(used))).unsure


async def test_a_running_agent_is_seen(used):
    """By its pid."""
    used.enrol()
    with locked(used.settings.state):
        found = await survey(image(used))
    assert (found.pid, found.managed) == (os.getpid(), False)


async def test_units_of_others_are_told_apart(used):
    """Ours have our head; a package's, the owner's drop-ins and whatever else has the name stay."""
    root = used.folder / "image"
    for folder in (UNITS / "multi-user.target.wants", UNITS / "stanch-agent.service.d", UDEV, PACKAGED[UNITS]):
        (root / folder).mkdir(parents=True)
    ours = root / UNITS / "stanch-agent.service"
    ours.write_text(HEAD)
    theirs = root / UDEV / "90-stanch-isolation.rules"
    theirs.write_text("theirs")
    (root / UNITS / LINKS[1]).symlink_to(ours)
    (root / PACKAGED[UNITS] / "stanch-agent.service").write_text("of a package")
    found = await survey(image(used))
    assert set(found.units) == {ours, root / UNITS / LINKS[1]}
    assert set(found.foreign) == {
        theirs,
        root / UNITS / "stanch-agent.service.d",
        root / PACKAGED[UNITS] / "stanch-agent.service",
    }
    assert package_command(root) == "dnf remove stanch"
    assert package_command(used.folder).endswith("pip uninstall stanch")


async def test_a_folder_that_is_open_to_others_is_not_ours(used):
    """A slip in --state must not cost anybody a folder."""
    used.settings.state.mkdir(mode=0o755)
    with pytest.raises(VerificationFailed, match="open to others"):
        await survey(image(used))


@pytest.mark.root
def test_an_agent_of_other_namespaces_is_left_alone(used):
    """The tables of the namespace that we are in are not those of that agent."""
    used.enrol()
    identity = Identity.load(used.settings.state)
    elsewhere = identity.model_copy(update={"binding": Binding(boot_id=boot_id(), net=1, pid=1)})
    elsewhere.save(used.settings.state)
    with netns() as inside, pytest.raises(VerificationFailed, match="other namespaces"):
        inside.run(lambda: survey(Places.of(used.settings, Path("/"))))


# --- the kernel ------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_our_tables_are_seen_and_removed_and_others_stay():
    """In force as long as they are armed."""
    with netns() as inside:
        inside.command("nft add table inet theirs")
        own = inside.call(lambda: OwnTables(Namespace.current("net")))
        assert inside.run(own.tables) == ()
        inside.run(isolate)
        assert inside.run(own.tables) == ("inet stanch", "netdev stanch")
        assert inside.run(own.in_force) == ("network isolation",)
        inside.run(own.remove)
        assert inside.run(own.tables) == ()
        assert inside.run(own.in_force) == ()
        inside.run(own.remove)
        assert inside.command("nft list tables") == "table inet theirs\n"


@pytest.mark.root
def test_they_are_bound_to_their_namespace():
    """From elsewhere nothing is looked at or removed."""
    with netns() as inside:
        own = inside.call(lambda: OwnTables(Namespace.current("net")))
        inside.run(isolate)
        with netns() as other:
            for do in (own.tables, own.in_force, own.remove):
                with pytest.raises(Protected):
                    other.run(do)
        assert "table inet stanch" in inside.command("nft list tables")


async def test_without_nft_there_are_no_tables(monkeypatch):
    """A machine without it has never been isolated."""
    monkeypatch.setattr("stanch.agent.host.run.PATH", "/nonexistent")
    own = OwnTables(Namespace.current("net"))
    assert (await own.tables(), await own.in_force()) == ((), ())
    await own.remove()


async def isolate() -> None:
    firewall = NftFirewall(Namespace.current("net"))
    await firewall.isolate(RULES, lift_after=hours(1))
    await firewall.close()


def test_places_of_an_image_touch_no_kernel():
    """Only the machine itself has one."""
    settings = Settings()
    assert not isinstance(Places.of(settings, Path("/image")).kernel, OwnTables)
    assert isinstance(Places.of(settings, Path("/")).kernel, OwnTables)
