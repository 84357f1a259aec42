"""What comes back after a reboot: what was in force and is not due, and, where nobody can tell, the safe side."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.cgroups import Hierarchy
from stanch.agent.identity import Binding, Identity
from stanch.agent.journal import DAMAGE, MIGRATIONS, Journal
from stanch.agent.marker import mark_isolated
from stanch.agent.restore import BLIND_FOR, Restoration, _way_to_server, look, remember, without_absent_groups
from stanch.agent.settings import Settings
from stanch.core.errors import Unavailable, Unsupported
from stanch.core.exclusion import Direction, Opening
from stanch.core.isolation import Phase
from stanch.core.network import IsolationRules, Peer
from stanch.core.types import hours, seconds
from tests.fakes.written import Written

RULES = IsolationRules(
    servers=(Peer(address="192.0.2.1", port=8444),), allow=(Opening(network=ip_network("10.1.0.0/16")),)
)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(state=tmp_path / "state")


def after_reboot(written: Written, *, boot_seconds: float = 5.0) -> Restoration:
    """What the boot program finds in the next boot."""
    return look(Settings(state=written.state), boot_seconds=boot_seconds, boot_id="boot-2")


# --- what the journal tells ------------------------------------------------------------------------------------------


async def test_an_isolation_comes_back_with_its_rules(written):
    """The rest of its time counts from the start of the new boot."""
    await written.isolation(RULES, lasts=hours(1))
    found = after_reboot(written, boot_seconds=7.0)
    assert (found.isolate, found.rules, found.lift_after) == (True, RULES, hours(1) - seconds(7))
    assert (found.wrong, found.remarks) == (None, ())


async def test_within_one_boot_the_deadline_stays(written):
    """A program that runs again in the boot in which the isolation began does not prolong it."""
    await written.isolation(RULES, lasts=hours(1))
    found = look(Settings(state=written.state), boot_seconds=1600.0, boot_id=written.boot_id)
    assert found.lift_after == hours(1) - seconds(600)


async def test_an_isolation_for_ever_comes_back_for_ever(written):
    """No deadline stays no deadline."""
    await written.isolation(RULES, lasts=None)
    found = after_reboot(written)
    assert (found.isolate, found.lift_after) == (True, None)


async def test_what_is_due_does_not_come_back(written):
    """Its deadline passed while the program was waited for."""
    await written.isolation(RULES, lasts=seconds(3))
    found = after_reboot(written, boot_seconds=3.0)
    assert found.nothing
    assert "deadline" in found.remarks[0]


@pytest.mark.parametrize("phase", [Phase.UNCONFIRMED, Phase.RELEASING])
async def test_what_was_in_between_is_left_to_the_agent(written, phase):
    """The server may not be reachable under unconfirmed rules, and a release must not be taken back."""
    await written.isolation(RULES, phase=phase)
    mark_isolated(written.state)
    found = after_reboot(written)
    assert found.nothing
    assert phase in found.remarks[0]
    assert found.wrong is None


async def test_blocks_come_back_each_with_its_own_time(written):
    """Each way for itself; one that is due does not."""
    await written.block(ip_network("198.51.100.0/24"), Direction.OUT, lasts=hours(2))
    await written.block(ip_network("2001:db8::/32"), lasts=None)
    await written.block(ip_network("203.0.113.7/32"), lasts=seconds(1))
    found = after_reboot(written)
    ways = {(str(one.network), one.inward, one.outward, one.remaining) for one in found.blocks}
    assert ways == {
        ("198.51.100.0/24", False, True, hours(2) - seconds(5)),
        ("2001:db8::/32", True, False, None),
        ("2001:db8::/32", False, True, None),
    }
    assert not found.isolate


async def test_a_journal_without_effects_restores_nothing(written):
    """A mark that is left from before does not outweigh a sound journal, and is told."""
    await written.nothing()
    assert after_reboot(written) == Restoration()
    mark_isolated(written.state)
    found = after_reboot(written)
    assert found.nothing
    assert "mark" in found.remarks[0]


async def test_a_killed_agents_last_words_are_read(written, tmp_path):
    """What is only in the write-ahead log counts, and the files are as they were."""
    await written.nothing()
    with closing(sqlite3.connect(written.state / "journal.db")) as db:
        db.execute("SELECT * FROM entries").fetchall()  # so that the log outlives its writer
        await written.isolation(RULES)
        shutil.copytree(written.state, tmp_path / "killed")
    killed = Written(state=tmp_path / "killed")
    assert (killed.state / "journal.db-wal").stat().st_size > 0
    before = (killed.state / "journal.db").read_bytes()
    assert after_reboot(killed).rules == RULES
    assert (killed.state / "journal.db").read_bytes() == before


# --- what it does not tell -------------------------------------------------------------------------------------------


async def test_rules_that_cannot_be_read_leave_the_server(written):
    """An isolation is ordered, so it is not dropped; its own deadline holds."""
    await written.isolation({"servers": "everybody"})
    found = after_reboot(written)
    assert (found.isolate, found.rules, found.lift_after) == (True, None, hours(1) - seconds(5))
    assert "rules" in (found.wrong or "")


async def damaged(written: Written) -> None:
    await written.nothing()
    written.spoil()


async def empty(written: Written) -> None:
    await written.nothing()
    (written.state / "journal.db").write_bytes(b"")


async def of_a_newer_agent(written: Written) -> None:
    await written.nothing()
    with closing(sqlite3.connect(written.state / "journal.db")) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


async def with_a_strange_effect(written: Written) -> None:
    await written.isolation(RULES)
    with closing(sqlite3.connect(written.state / "journal.db")) as db:
        db.execute("UPDATE effects SET effect = '{}'")
        db.commit()


async def gone(written: Written) -> None:
    written.state.mkdir(mode=0o700)


@pytest.mark.parametrize("spoil", [damaged, empty, of_a_newer_agent, with_a_strange_effect, gone])
async def test_an_unreadable_journal_fails_closed_where_the_mark_is(written, spoil):
    """The mark decides; without it nothing is cut, and in both cases somebody is told to look."""
    await spoil(written)
    (written.state / "journal.db-wal").unlink(missing_ok=True)
    kept = set(written.state.iterdir())
    found = after_reboot(written)
    assert found.nothing
    assert "isolate it again" in (found.wrong or "")
    assert kept <= set(written.state.iterdir()), "the agent must still find what is damaged"
    mark_isolated(written.state)
    found = after_reboot(written)
    assert (found.isolate, found.rules, found.lift_after) == (True, None, BLIND_FOR)
    assert found.wrong


async def test_a_journal_begun_anew_does_not_outweigh_the_mark(written):
    """The agent set a damaged journal aside and died before it told anybody."""
    await written.block(ip_network("198.51.100.0/24"))
    journal = Journal(written.state / "journal.db")
    await journal.put({DAMAGE: "the file is empty"})
    await journal.close()
    assert not after_reboot(written).isolate
    mark_isolated(written.state)
    found = after_reboot(written)
    assert (found.isolate, found.lift_after, len(found.blocks)) == (True, BLIND_FOR, 2)


@given(content=st.binary(min_size=1, max_size=5000), at=st.integers(0, 100_000))
def test_no_content_of_the_file_is_an_error(content, at, tmp_path_factory):
    """Whatever bytes lie where the journal was, there is an answer, and with the mark it is never `released`."""
    state = tmp_path_factory.mktemp("state")
    with closing(sqlite3.connect(state / "journal.db")) as db:
        db.execute("CREATE TABLE effects (name)")
    whole = (state / "journal.db").read_bytes()
    at %= len(whole)
    (state / "journal.db").write_bytes(whole[:at] + content + whole[at + len(content) :])
    mark_isolated(state)
    found = look(Settings(state=state), boot_seconds=1.0, boot_id="b")
    assert found.isolate
    assert found.wrong


# --- deadlines without an agent ---------------------------------------------------------------------------------------


async def test_a_boot_without_an_agent_counts_if_it_is_shut_down(written):
    """What was left at the shutdown is left at the next boot; without a deadline nothing changes."""
    await written.isolation(RULES, lasts=hours(1))
    await written.block(ip_network("198.51.100.0/24"), Direction.OUT, lasts=None)
    assert remember(written.state / "journal.db", boot_seconds=600.0, boot_id="boot-2") == 1
    again = look(Settings(state=written.state), boot_seconds=660.0, boot_id="boot-2")
    assert again.lift_after == hours(1) - seconds(660)
    later = look(Settings(state=written.state), boot_seconds=5.0, boot_id="boot-3")
    assert later.lift_after == hours(1) - seconds(605)
    assert [one.remaining for one in later.blocks] == [None]


async def test_what_reached_its_deadline_without_an_agent_stays_lifted(written):
    """The kernel has lifted it in that boot: the next one must not begin anew."""
    await written.isolation(RULES, lasts=hours(1))
    remember(written.state / "journal.db", boot_seconds=4000.0, boot_id="boot-2")
    assert look(Settings(state=written.state), boot_seconds=1.0, boot_id="boot-3").nothing


async def test_a_damaged_journal_is_not_written(written):
    """There is nothing to be remembered in it."""
    await written.nothing()
    written.spoil()
    before = (written.state / "journal.db").read_bytes()
    with pytest.raises((sqlite3.Error, Unavailable)):
        remember(written.state / "journal.db", boot_seconds=1.0, boot_id="boot-2")
    assert (written.state / "journal.db").read_bytes() == before


# --- the way to the server -------------------------------------------------------------------------------------------


def way(written: Written, config: str) -> tuple[Restoration, IsolationRules]:
    """What stays open where the rules are not known."""
    written.enrol(Binding.here("boot-1"), "https://192.0.2.1:8444")
    (written.state / "agent.toml").write_text(config)
    settings = Settings(state=written.state, config=written.state / "agent.toml")
    return _way_to_server(Restoration(), settings, Identity.load(written.state))


def test_the_proxy_is_the_way_where_there_is_one(written):
    """Behind a proxy the server needs no direct way, at boot no more than later."""
    _, rules = way(written, "")
    assert (rules.servers, rules.proxies) == ((Peer(address="192.0.2.1", port=8444),), ())
    _, rules = way(written, '[link]\nproxy = "http://192.0.2.9:3128"\n')
    assert (rules.servers, rules.proxies) == ((), (Peer(address="192.0.2.9", port=3128),))


def test_a_proxy_that_cannot_be_used_prevents_nothing(written):
    """It is left out, and told."""
    found, rules = way(written, '[link]\nproxy = "socks5://192.0.2.9"\n')
    assert "proxy" in found.remarks[0]
    assert rules.servers


# --- openings that cannot be made yet --------------------------------------------------------------------------------


def test_units_that_do_not_run_yet_are_left_out(tmp_path):
    """The others stay open, and each absent one is told once."""
    (tmp_path / "system.slice" / "ssh.service").mkdir(parents=True)
    plain = Opening(network=ip_network("10.0.0.0/8"))
    runs = Opening(network=ip_network("10.0.0.0/8"), cgroup="system.slice/ssh.service")
    absent = [Opening(network=ip_network(f"10.{n}.0.0/16"), cgroup="system.slice/backup.service") for n in (1, 2)]
    kept, lines = without_absent_groups(
        IsolationRules(servers=(), allow=(plain, runs, *absent)), lambda: Hierarchy(tmp_path)
    )
    assert kept.allow == (plain, runs)
    assert len(lines) == 1
    assert "backup.service" in lines[0]


def test_without_control_groups_only_their_openings_are_left_out():
    """A machine that has none of version 2 is isolated all the same."""

    def none_here() -> Hierarchy:
        raise Unsupported("There is none")

    plain, bound = Opening(network=ip_network("10.0.0.0/8")), Opening(network=ip_network("::/0"), cgroup="a.slice")
    kept, lines = without_absent_groups(IsolationRules(servers=(), allow=(plain, bound)), none_here)
    assert kept.allow == (plain,)
    assert len(lines) == 1


@given(lasts=st.floats(1.0, 1e7), passed=st.floats(0.0, 1e7))
async def test_what_is_left_is_never_more_than_there_was(lasts, passed, tmp_path_factory):
    """In no boot and at no time does a restored isolation last longer than what was left."""
    written = Written(state=tmp_path_factory.mktemp("state"))
    written.state.chmod(0o700)
    await written.isolation(RULES, lasts=timedelta(seconds=lasts))
    found = after_reboot(written, boot_seconds=passed)
    assert found.nothing is (passed >= lasts)
    if found.lift_after is not None:
        assert found.lift_after.total_seconds() == pytest.approx(lasts - passed, abs=1e-3)
