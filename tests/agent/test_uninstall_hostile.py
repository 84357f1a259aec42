"""What a hostile or odd machine must not make of uninstall and self-test: each was a defect once."""

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stanch.agent import uninstall_survey
from stanch.agent.journal_reading import read_journal
from stanch.agent.own_folders import remove_tree
from stanch.agent.selftest_kernel import _sweep
from stanch.agent.selftest_own import clock
from stanch.agent.selftest_probe import Bench
from stanch.agent.settings import Settings
from stanch.agent.supervisor import locked
from stanch.agent.systemd import Systemd
from stanch.agent.uninstall_survey import Places, _managed, root_of, survey
from stanch.core.errors import Conflict, NotFound, Unavailable, VerificationFailed
from tests import mounts
from tests.agent.test_uninstall import World
from tests.fakes.endpoint_state import Used


@pytest.fixture
def world(tmp_path):
    """A machine with a used endpoint on it."""
    return World(Used(tmp_path).enrol().limit())


def settings_in(image, config):
    """The agent's places in an image."""
    return Settings(state=image / "var/lib/stanch/agent", config=config, socket=image / "run/stanch/agent.sock")


def begin(used):
    """A task is begun, and has no end."""
    used.work(effect=False)
    with closing(sqlite3.connect(used.settings.journal, isolation_level=None)) as db:
        db.execute("UPDATE tasks SET phase = 'begun', outcome = NULL, finished_at = NULL")


async def test_key_stays_while_old_place_has_items(world):
    """The owner moved the vault: what is in its usual place can still be opened."""
    world.used.quarantine()
    place = world.used.folder / "place"
    place.mkdir(mode=448)
    world.used.limit(f'[vault]\nfolder = "{place}"\n')
    told = await world.uninstall().carry_out()
    assert world.used.settings.vault_key.exists()
    assert any("1 items" in one for one in told.stays)
    assert place.exists()


async def test_an_empty_folder_of_the_owner_stays(world):
    """It was there before the vault."""
    place = world.used.folder / "place"
    place.mkdir(mode=448)
    world.used.limit(f'[vault]\nfolder = "{place}"\n')
    await world.uninstall(discard_vault=True).carry_out()
    assert place.is_dir()


async def test_linked_vault_is_refused(world):
    """Nothing goes through a link, and the key of what stays does not go either."""
    world.used.quarantine()
    s = world.used.settings
    s.vault.rename(world.used.folder / "big")
    s.vault.symlink_to(world.used.folder / "big")
    with pytest.raises(Conflict, match="link"):
        await world.uninstall(discard_vault=True).carry_out()
    assert s.vault_key.exists()


async def test_nothing_is_not_said_beside_something(tmp_path):
    """One or the other."""
    w = World(Used(tmp_path))
    w.kernel.there.clear()
    w.used.settings.state.mkdir(mode=448)
    w.used.settings.vault_key.write_text("k")
    assert (await w.uninstall().plan()).steps == (f"remove {w.used.settings.vault_key}",)


async def test_begun_work_refuses(world):
    """What it has touched only the journal knows."""
    begin(world.used)
    before = world.left()
    with pytest.raises(Conflict, match="has begun"):
        await world.uninstall().carry_out()
    assert world.left() == before
    told = await world.uninstall(lift=True).carry_out()
    assert any("forget what was begun" in one for one in told.steps)


async def test_waiting_messages_are_told(world):
    """They are lost."""
    world.used.work(effect=False)
    assert any("messages that the server has not got" in one for one in (await world.uninstall().plan()).steps)


@pytest.mark.parametrize("named", ["etc/systemd/system", "var/lib", "etc"])
async def test_a_link_of_an_image_leads_nowhere(tmp_path, named):
    """What it leads to is this machine's."""
    image, outside = (tmp_path / "image", tmp_path / "outside")
    outside.mkdir()
    (image / named).parent.mkdir(parents=True, exist_ok=True)
    (image / named).symlink_to(outside)
    s = Settings(
        state=image / "var/lib/stanch/agent",
        config=image / "etc/stanch/agent.toml",
        socket=image / "run/stanch/agent.sock",
    )
    with pytest.raises(VerificationFailed, match="link"):
        await survey(Places.of(s, image))


def test_vault_of_an_image_is_inside(tmp_path):
    """Its policy means its own folders."""
    image = tmp_path / "image"
    (image / "etc/stanch").mkdir(parents=True)
    c = image / "etc/stanch/agent.toml"
    c.write_text('[vault]\nfolder = "/srv/vault"\n')
    c.chmod(384)
    s = Settings(state=image / "var/lib/stanch/agent", config=c, socket=image / "run/stanch/agent.sock")
    assert Places.of(s, image).vaults[0] == image / "srv/vault"


def test_names_of_the_machine(tmp_path):
    """However it is called."""
    (tmp_path / "l").symlink_to("/")
    for one in ("/", "//", "/../", "/proc/self/root", str(tmp_path / "l")):
        assert root_of(Path(one)) == Path("/")
    with pytest.raises(NotFound):
        root_of(tmp_path / "none")


def test_another_agent_of_systemd():
    """It must not be stopped in the place of ours."""
    unit = {"ActiveState": "active", "MainPID": str(os.getppid())}
    assert _managed(unit, os.getpid()) == (True, None)
    assert _managed(unit, 1) == (False, os.getppid())
    assert _managed(unit, None) == (False, os.getppid())


@pytest.mark.root
@mounts.inside
def test_a_mount_is_not_emptied(tmp_path):
    """Not even a folder of the same disk that is bound there."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("x")
    (tmp_path / "tree/in/bound").mkdir(parents=True)
    mounts.bind(theirs, tmp_path / "tree/in/bound")
    with pytest.raises(OSError, match="mounted"):
        remove_tree(tmp_path / "tree")
    assert (theirs / "file").exists()


@pytest.mark.parametrize(
    "sql", ["UPDATE tasks SET begun_at = 1e300", "INSERT INTO entries VALUES ('x', '" + "[" * 100000 + "')"]
)
def test_a_journal_of_nonsense_is_unavailable(tmp_path, sql):
    """Numbers out of range, and nesting without end."""
    j = Used(tmp_path).enrol().work().settings.journal
    with closing(sqlite3.connect(j, isolation_level=None)) as db:
        db.execute(sql)
    with pytest.raises(Unavailable):
        read_journal(j)


def test_no_scratch_where_others_may_write(tmp_path):
    """They could turn our paths elsewhere."""
    s = Used(tmp_path).settings
    s.state.mkdir(mode=511)
    s.state.chmod(511)
    with pytest.raises(VerificationFailed), Bench(settings=s).scratch():
        pass


async def test_the_direction_of_a_wrong_clock_is_told(tmp_path):
    """With fractions of a second, too."""
    u = Used(tmp_path).enrol().work()
    now = datetime.fromtimestamp(1800000000, UTC) - timedelta(hours=2, microseconds=123456)
    assert "behind it" in (await clock(Bench(settings=u.settings, now=lambda: now))).seen


def test_killed_groups_are_swept(tmp_path):
    """Not those of a test that runs."""
    for n in ("p-4194999-00000000", f"p-{os.getpid()}-00000000", "p-other"):
        (tmp_path / n).mkdir()
    _sweep(tmp_path, "p-")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted((f"p-{os.getpid()}-00000000", "p-other"))


async def test_free_folder_is_checked_before_anything(world, monkeypatch):
    """A holder in another pid namespace is noticed before systemd is asked."""
    stopped = []

    class Recorded(Systemd):
        async def stop(self):
            stopped.append(1)

    world.systemd = Recorded(root=world.root)
    monkeypatch.setattr(uninstall_survey, "agent_pid", lambda _state: None)
    with locked(world.used.settings.state), pytest.raises(Conflict):
        await world.uninstall().carry_out()
    assert not stopped
