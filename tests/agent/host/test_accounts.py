"""Are accounts locked and put back exactly, by usermod, on files that are only copies?"""

import asyncio
import os
import shutil
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.actions.lock_account import LockAccount, UnlockAccount, lock_account, unlock_account
from stanch.agent.host import run as door
from stanch.agent.host.accounts import LONG_PAST, LinuxAccounts
from stanch.agent.host.sessions import Logins
from stanch.core.accounts import Before
from stanch.core.action import Verdict
from stanch.core.errors import ActionFailed, Protected, TargetGone, Unavailable, Unsupported
from stanch.core.types import seconds
from tests.fakes.host import FakeEndpoint

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("usermod") is None, reason="shadow-utils are not installed"),
]

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
www-data:x:33:33::/var/www:/usr/sbin/nologin
alice:x:1000:1000::/home/alice:/bin/bash
bob:x:1001:1001::/home/bob:/bin/bash
toor:x:0:0::/:/bin/sh
nobody:x:65534:65534::/:/usr/sbin/nologin
"""


@pytest.fixture
def root(tmp_path):
    """A root folder with accounts of its own."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(PASSWD)
    (etc / "group").write_text("root:x:0:\nalice:x:1000:\nbob:x:1001:\n")
    (etc / "login.defs").write_text("UID_MIN 1000\n")
    names = [one.split(":")[0] for one in PASSWD.splitlines()]
    write(tmp_path, dict.fromkeys(names, ("$6$salt$hash", "")))
    return tmp_path


def write(root, lines):
    """Account to its password field and its expiry field."""
    text = "".join(f"{name}:{password}:19000:0:99999:7::{day}:\n" for name, (password, day) in lines.items())
    (root / "etc" / "shadow").write_text(text)
    (root / "etc" / "shadow").chmod(0o640)


def field(root, name):
    """The password field and the expiry field of an account."""
    (line,) = [one for one in (root / "etc/shadow").read_text().splitlines() if one.startswith(f"{name}:")]
    fields = line.split(":")
    return fields[1], fields[7]


def accounts(root, **more):
    """The accounts of that folder, and a name service that knows nobody."""
    return LinuxAccounts(root=root, **{"known": lambda _name: None, **more})


async def test_locking_closes_the_password_and_everything_else(root):
    """One call of usermod does both; nobody else is touched, and repeating it changes nothing."""
    there, others = accounts(root), field(root, "bob")
    for _ in range(2):
        await there.lock("alice")
        assert field(root, "alice") == ("!$6$salt$hash", LONG_PAST)
        found = await there.find("alice")
        assert found is not None
        assert found.closed
    assert field(root, "bob") == others


@pytest.mark.parametrize(
    ("password", "expires"),
    [("$6$a$b", ""), ("$6$a$b", "20999"), ("!$6$a$b", ""), ("!$6$a$b", "19000"), ("*", ""), ("!!", "0"), ("!", "")],
)
async def test_unlocking_puts_back_exactly_what_was(root, password, expires):
    """A password that was locked stays locked, and the old date of expiry comes back, however odd."""
    write(root, {"alice": (password, expires)})
    there = accounts(root)
    before = await there.before("alice")
    await there.lock("alice")
    for _ in range(2):
        assert await there.unlock("alice", before) == ()
        assert field(root, "alice") == (password, expires)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    marks=st.integers(0, 3),
    rest=st.sampled_from(["", "*", "x", "$6$a$b"]),
    expires=st.one_of(st.just(""), st.integers(0, 99_999).map(str)),
)
def test_whatever_it_was_comes_back_or_is_told(root, marks, rest, expires):
    """And an account never comes out with an empty password that is open."""
    password = "!" * marks + rest
    write(root, {"alice": (password, expires)})
    there = accounts(root)

    async def there_and_back():
        before = await there.before("alice")
        await there.lock("alice")
        assert field(root, "alice")[0].startswith("!")
        return await there.unlock("alice", before)

    lost = asyncio.run(there_and_back())
    assert field(root, "alice")[0] != ""
    assert bool(lost) == (field(root, "alice") != (password, expires))
    assert bool(lost) == (password == "")


async def test_an_empty_password_is_never_opened_again(root):
    """What was open to everybody stays locked, and that is told."""
    write(root, {"alice": ("", "")})
    there = accounts(root)
    before = await there.before("alice")
    await there.lock("alice")
    (lost,) = await there.unlock("alice", before)
    assert "without" in lost or "open to everybody" in lost
    assert field(root, "alice") == ("!", "")


async def test_what_somebody_else_has_set_meanwhile_stays(root):
    """A second lock and a new date of expiry are theirs; both are told."""
    there = accounts(root)
    before = await there.before("alice")
    await there.lock("alice")
    write(root, {"alice": ("!!$6$a$b", "99999")})
    lost = await there.unlock("alice", before)
    assert field(root, "alice") == ("!$6$a$b", "99999")
    assert [("second time" in one, "99999" in one) for one in lost] == [(True, False), (False, True)]


async def test_an_account_is_described(root):
    """By the files of this machine alone; who is below the first user id of people is of the system."""
    there = accounts(root)
    alice, www = await there.find("alice"), await there.find("www-data")
    assert alice is not None
    assert www is not None
    assert (alice.uid, alice.shell, alice.locked, alice.expired, alice.system) == (
        1000,
        "/bin/bash",
        False,
        False,
        False,
    )
    assert www.system
    assert await there.find("ghost") is None


async def test_root_and_what_stanch_runs_as_are_protected(root):
    """Another account with the user id of root is not: an attacker may have left it."""
    there = accounts(root)
    assert await there.why_protected("root")
    assert await there.why_protected("nobody")
    assert await there.why_protected("toor") is None
    assert await there.why_protected("alice") is None


async def test_a_twin_of_root_is_not_protected_by_standing_above_it(root):
    """It is what an intruder leaves; where nobody is called root, the first one is root."""
    lines = (root / "etc/passwd").read_text()
    (root / "etc/passwd").write_text("evil:x:0:0::/:/bin/sh\n" + lines)
    there = accounts(root)
    assert await there.why_protected("evil") is None
    assert await there.why_protected("root") is not None
    (root / "etc/passwd").write_text("admin:x:0:0::/:/bin/sh\n" + lines.replace("root:x:0", "rooted:x:9"))
    assert await there.why_protected("admin") is not None


@pytest.mark.parametrize("password", ["$6$salt$hash", "", "*"])
async def test_a_password_in_etc_passwd_is_told_instead_of_called_locked(root, password):
    """PAM asks etc/shadow for nothing then, so that its expiry would keep no key out; nothing is changed."""
    (root / "etc/passwd").write_text(PASSWD.replace("alice:x:", f"alice:{password}:"))
    there, shadow = accounts(root), (root / "etc/shadow").read_text()
    for call in (there.find, there.before, there.lock):
        with pytest.raises(Unsupported, match="pwconv"):
            await call("alice")
    assert (root / "etc/shadow").read_text() == shadow
    assert password in (root / "etc/passwd").read_text()


@pytest.mark.parametrize("end", [":-1:", ":99999999999:", ":5 :", "::x", "::-1", "::99999999999999999999"])
async def test_a_line_that_usermod_does_not_see_is_left_alone(root, end):
    """It would add a second line, with which the account is as open as before, or run for ever."""
    shadow = f"alice:$6$a$b:19000:0:99999:7:{end}\n"
    (root / "etc/shadow").write_text(shadow)
    with pytest.raises(ActionFailed, match="broken"):
        await accounts(root).lock("alice")
    assert (root / "etc/shadow").read_text() == shadow


async def test_nothing_is_done_to_who_is_not_there(root):
    """The error says so, and no file is written."""
    there, before = accounts(root), (root / "etc/shadow").stat()
    for call in (
        there.before("ghost"),
        there.lock("ghost"),
        there.unlock("ghost", Before(password_locked=False, expires="")),
    ):
        with pytest.raises(TargetGone, match="ghost"):
            await call
    assert (root / "etc/shadow").stat() == before


async def test_a_broken_line_is_left_alone(root):
    """usermod would add a second line, and the first would go on to count."""
    (root / "etc/shadow").write_text("alice:x:1\n")
    with pytest.raises(ActionFailed, match="broken"):
        await accounts(root).lock("alice")
    assert (root / "etc/shadow").read_text() == "alice:x:1\n"


async def test_a_held_lock_is_waited_for_and_then_told(root):
    """Nothing is changed by halves, and the hint says whose lock it is."""
    (root / "etc/passwd.lock").write_text(str(os.getpid()))
    with pytest.raises(ActionFailed, match="holds the lock"):
        await accounts(root, patience=seconds(0.3)).lock("alice")
    assert field(root, "alice") == ("$6$salt$hash", "")
    (root / "etc/passwd.lock").unlink()
    await accounts(root).lock("alice")
    assert field(root, "alice") == ("!$6$salt$hash", LONG_PAST)


async def test_without_usermod_it_says_what_to_install(root, monkeypatch):
    """Alpine comes without it."""
    monkeypatch.setattr(door, "PATH", str(root))
    with pytest.raises(Unsupported, match="Alpine"):
        await accounts(root).lock("alice")


async def test_the_name_service_knows_more(root):
    """An account of a directory is known, and is none of this machine's files."""
    there = accounts(root, known={"carol": 5000}.get)
    assert await there.is_known("carol")
    assert await there.find("carol") is None
    assert not await there.is_known("ghost")


async def test_a_name_service_that_hangs_is_not_waited_for(root, monkeypatch):
    """An outage of the directory is told as one."""
    monkeypatch.setattr("stanch.agent.host.accounts.ASK_WITHIN_SECONDS", 0.05)
    reading, writing = os.pipe()
    try:
        there = accounts(root, known=lambda _name: int(os.read(reading, 1) == b""))
        with pytest.raises(Unavailable, match="name service"):
            await there.is_known("carol")
    finally:
        os.close(writing)


async def test_not_everything_of_root_is_ended(root):
    """Its processes are the machine; so are those of a second account with its user id."""
    for name in ("root", "toor"):
        with pytest.raises(Protected):
            await accounts(root).processes_of(name)
    assert await accounts(root).processes_of("ghost") == ()


async def test_an_account_is_locked_and_unlocked_by_the_actions(root, tmp_path):
    """On real files: every way in is closed, seen to be, and put back exactly; a dry run says so before."""
    write(root, {"alice": ("$6$a$b", "20999"), "bob": ("x", "")})
    nobody = Logins(logind=tmp_path / "none", utmp=tmp_path / "none")
    endpoint, there = FakeEndpoint(), accounts(root, logins=nobody)
    lock, unlock = LockAccount(name="alice"), UnlockAccount(name="alice")
    assert lock_account.plan is not None
    assert lock_account.verify is not None
    assert unlock_account.verify is not None

    def host():
        return replace(endpoint.host, accounts=there)

    assert (await lock_account.plan(host(), lock)).changes
    locked = await lock_account(host(), lock)
    assert field(root, "alice") == ("!$6$a$b", LONG_PAST)
    assert (await lock_account.verify(host(), lock, locked)).verdict is Verdict.IN_PLACE
    endpoint.next_task("tsk_2")
    opened = await unlock_account(host(), unlock)
    assert (opened.changed, opened.lost) == (True, ())
    assert field(root, "alice") == ("$6$a$b", "20999")
    assert (await unlock_account.verify(host(), unlock, opened)).verdict is Verdict.IN_PLACE
    assert field(root, "bob") == ("x", "")
