"""Accounts and sessions on a real database."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from stanch.core.errors import Conflict, Invalid, NotAuthenticated, TooManyRequests
from stanch.core.policy import Origin, Role
from stanch.core.rest import LoginRequest
from stanch.server import audit
from stanch.server.accounts import FAILURES_PER_NAME, Accounts, made_up_password, password_in
from stanch.server.store import tables
from tests.fakes.server_parts import Parts
from tests.server.live import PASSWORD, cheap_hasher


@pytest.fixture
def accounts(parts: Parts) -> Iterator[Accounts]:
    """No account yet."""
    made = Accounts(database=parts.database, now=parts.clock, monotonic=lambda: 0.0, hasher=cheap_hasher())
    yield made
    made.close()


def signing_in(name: str = "ada", password: str = PASSWORD) -> LoginRequest:
    return LoginRequest(name=name, password=password)


async def test_a_session_knows_its_account(accounts: Accounts) -> None:
    """Sign in, be recognised, sign out, be nobody."""
    await accounts.create("ada", PASSWORD, [Role.RESPONDER])
    session = await accounts.login(signing_in(), address="::1")
    principal = await accounts.authenticate(session.token, Origin.CLI)
    assert (principal.name, principal.roles, principal.origin) == ("ada", (Role.RESPONDER,), Origin.CLI)
    await accounts.logout(session.token)
    with pytest.raises(NotAuthenticated):
        await accounts.authenticate(session.token, Origin.CLI)


async def test_a_session_ends_by_itself(accounts: Accounts, parts: Parts) -> None:
    """After twelve hours."""
    await accounts.create("ada", PASSWORD, [Role.VIEWER])
    session = await accounts.login(signing_in(), address="::1")
    parts.clock.pass_(timedelta(hours=12))
    with pytest.raises(NotAuthenticated):
        await accounts.authenticate(session.token, Origin.API)


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("ADA", PASSWORD)])
async def test_wrong_names_and_passwords_get_one_answer(accounts: Accounts, name: str, password: str) -> None:
    """Nobody learns which of the two was wrong."""
    await accounts.create("ada", PASSWORD, [Role.VIEWER])
    with pytest.raises(NotAuthenticated, match=r"^The name or the password is wrong"):
        await accounts.login(signing_in(name, password), address="::1")


async def test_an_unknown_name_costs_a_hash_too(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time does not tell which names exist."""
    hashed = []
    monkeypatch.setattr(accounts, "_matches", lambda stored, _password: hashed.append(stored))
    with pytest.raises(NotAuthenticated):
        await accounts.login(signing_in("nobody"), address="::1")
    assert hashed == [accounts._nobody]


async def test_a_disabled_account_is_nobody(accounts: Accounts, parts: Parts) -> None:
    """Its open sessions end as well."""
    await accounts.create("ada", PASSWORD, [Role.VIEWER])
    session = await accounts.login(signing_in(), address="::1")
    disable = tables.accounts.update().values(disabled=True)
    await parts.database.write(lambda connection: connection.execute(disable))
    with pytest.raises(NotAuthenticated):
        await accounts.authenticate(session.token, Origin.API)
    with pytest.raises(NotAuthenticated):
        await accounts.login(signing_in(), address="::1")


@pytest.mark.parametrize("token", ["", "x", "x" * 100_000, "é\udc80", "' or 1=1"])
async def test_any_other_token_is_nobodys(accounts: Accounts, token: str) -> None:
    """Whatever it looks like."""
    with pytest.raises(NotAuthenticated):
        await accounts.authenticate(token, Origin.API)


async def test_guessing_is_slowed_down(accounts: Accounts) -> None:
    """From one address; somebody elsewhere still gets in."""
    await accounts.create("ada", PASSWORD, [Role.VIEWER])
    for _ in range(FAILURES_PER_NAME):
        with pytest.raises(NotAuthenticated):
            await accounts.login(signing_in(password="wrong"), address="10.0.0.1")
    with pytest.raises(TooManyRequests):
        await accounts.login(signing_in(), address="10.0.0.1")
    await accounts.login(signing_in(), address="10.0.0.2")


async def test_neither_password_nor_token_is_stored(accounts: Accounts, parts: Parts) -> None:
    """A stolen database signs nobody in."""
    await accounts.create("ada", PASSWORD, [Role.VIEWER])
    session = await accounts.login(signing_in(), address="::1")

    def everything(connection) -> str:
        return repr([connection.execute(select(table)).all() for table in tables.metadata.sorted_tables])

    stored = await parts.database.read(everything)
    assert PASSWORD not in stored
    assert session.token not in stored


async def test_sign_ins_stand_in_the_audit(accounts: Accounts, parts: Parts) -> None:
    """The failed ones too."""
    await accounts.create("ada", PASSWORD, [Role.VIEWER])
    await accounts.login(signing_in(), address="10.0.0.1")
    with pytest.raises(NotAuthenticated):
        await accounts.login(signing_in(password="wrong"), address="10.0.0.1")
    query = select(tables.audit.c.what).order_by(tables.audit.c.n)
    written = await parts.database.read(lambda connection: list(connection.execute(query).scalars()))
    assert written == ["account created", "login", "login failed"]
    assert (await parts.database.read(audit.verify)).entries == 3


async def test_old_sessions_are_removed(accounts: Accounts, parts: Parts) -> None:
    """The next sign-in takes them away."""
    await accounts.create("ada", PASSWORD, [Role.VIEWER])
    await accounts.login(signing_in(), address="::1")
    parts.clock.pass_(timedelta(days=1))
    await accounts.login(signing_in(), address="::1")
    rows = await parts.database.read(lambda connection: connection.execute(select(tables.sessions)).all())
    assert len(rows) == 1


async def test_a_name_is_taken_once(accounts: Accounts) -> None:
    """Conflict."""
    assert not await accounts.any()
    await accounts.create("ada", PASSWORD, [Role.VIEWER])
    assert await accounts.any()
    with pytest.raises(Conflict):
        await accounts.create("ada", PASSWORD, [Role.VIEWER])


async def test_too_many_hashes_at_once_are_refused(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of sign-ins cannot fill the queue."""
    monkeypatch.setattr("stanch.server.accounts.MAX_WAITING", 0)
    with pytest.raises(TooManyRequests):
        await accounts.login(signing_in(), address="::1")


@pytest.mark.parametrize("text", ["", "short\n", "x" * 1001, "\n" + PASSWORD])
def test_a_password_file_needs_a_password(text: str) -> None:
    """Of some length, on its first line."""
    with pytest.raises(Invalid, match="12 to 1000"):
        password_in(text)


def test_the_first_line_of_the_file_is_the_password() -> None:
    """Without the line's end."""
    assert password_in(f"{PASSWORD}\r\nand more") == PASSWORD


def test_a_made_up_password_is_long_and_new() -> None:
    """It is accepted as any other."""
    assert password_in(made_up_password()) != made_up_password()
