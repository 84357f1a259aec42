"""Names of accounts and sessions: is what could be an option, a path or a second field refused before it is used?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stanch.core.accounts import Account, AccountName, Before, SessionId

ACCOUNT: TypeAdapter[str] = TypeAdapter(AccountName)
SESSION: TypeAdapter[str] = TypeAdapter(SessionId)


@pytest.mark.parametrize(
    "name", ["alice", "_apt", "a.b-c", "0day", "svc$", "alice@corp.example", "CORP\\alice", "two words"]
)
def test_names_of_accounts(name: str) -> None:
    """Those of a directory look otherwise than those of a machine."""
    assert ACCOUNT.validate_python(name) == name


@given(st.text(max_size=200))
def test_no_name_can_be_taken_for_something_else(text: str) -> None:
    """Neither for an option of a program, nor for two fields of a file, nor for a way to another one."""
    try:
        name = ACCOUNT.validate_python(text)
    except ValidationError:
        return
    assert not name.startswith(("-", " "))
    assert not set(name) & set(":/\n\r\0,;'\"`")
    assert name.isascii()


@pytest.mark.parametrize(
    ("session", "good"), [("c2", True), ("pts/3", True), (":0", True), ("", False), ("a b", False)]
)
def test_names_of_sessions(session: str, *, good: bool) -> None:
    """Logind's ids, terminals and displays."""
    if good:
        assert SESSION.validate_python(session) == session
    else:
        with pytest.raises(ValidationError):
            SESSION.validate_python(session)


@pytest.mark.parametrize(("locked", "expired"), [(True, True), (True, False), (False, True), (False, False)])
def test_an_account_is_closed_if_both_are(locked: bool, expired: bool) -> None:  # noqa: FBT001 - a table of both
    """A locked password alone leaves SSH keys open; an expiry alone is one `chage` away."""
    account = Account(name="alice", uid=1000, locked=locked, expired=expired)
    assert account.closed is (locked and expired)


def test_what_an_older_agent_kept_is_read() -> None:
    """A field that is not known any more does no harm."""
    assert Before.model_validate({"password_locked": True, "expires": "1", "more": 1}).expires == "1"
