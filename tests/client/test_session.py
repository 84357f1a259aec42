"""The session file."""

import pytest

from stanch.client.session import SavedSession, default_path, known, load, save
from stanch.core.errors import Invalid, NotAuthenticated

SESSION = SavedSession(url="https://server:8443", ca="pem", token="secret", name="alice")


def test_a_session_comes_back_as_it_was_saved(tmp_path):
    """Save and load are inverse, also when a file is there already."""
    path = tmp_path / "a" / "session.json"
    save(path, SESSION)
    save(path, SESSION)
    assert load(path) == SESSION


def test_only_the_owner_can_read_it(tmp_path):
    """File and folder are closed to others."""
    path = tmp_path / "a" / "session.json"
    save(path, SESSION)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_token_is_not_in_the_representation():
    """A log line or traceback does not show it."""
    assert "secret" not in repr(SESSION)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path, mode):
    """The token may be known to others then."""
    path = tmp_path / "session.json"
    save(path, SESSION)
    path.chmod(mode)
    with pytest.raises(Invalid, match="chmod"):
        load(path)


def test_no_file_means_nobody_is_signed_in(tmp_path):
    """A missing file is told as what it means."""
    with pytest.raises(NotAuthenticated, match="login"):
        load(tmp_path / "session.json")
    assert known(tmp_path / "session.json") is None


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense", b"\xff", b'{"url": 1}', b"[" * 200_000])
def test_a_damaged_file_says_what_to_do(tmp_path, content):
    """Whatever stands in the file, the answer is an error of ours."""
    path = tmp_path / "session.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Invalid, match="login"):
        load(path)


def test_the_environment_may_name_another_place(tmp_path):
    """STANCH_SESSION goes before XDG_CONFIG_HOME, which goes before the home folder."""
    assert default_path({"STANCH_SESSION": "/x/y"}).as_posix() == "/x/y"
    assert default_path({"XDG_CONFIG_HOME": "/c"}).as_posix() == "/c/stanch/session.json"
    assert default_path({}).as_posix().endswith("/.config/stanch/session.json")
