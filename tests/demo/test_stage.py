"""How the demo reads what the server says."""

from pathlib import Path

import pytest

from stanch.core.errors import StanchError
from stanch.demo.stage import ServerPlace, each, pin_in, url_in

READY = "ready api=https://127.0.0.1:40001 gateway=https://127.0.0.1:40002"


def test_urls_are_read_from_the_ready_line():
    """Both URLs; a line without them is an error that shows the line."""
    assert url_in(READY, "api") == "https://127.0.0.1:40001"
    assert url_in(READY, "gateway") == "https://127.0.0.1:40002"
    with pytest.raises(StanchError) as caught:
        url_in("ready", "api")
    assert caught.value.got == "ready"


def test_the_pin_is_found_in_what_the_server_says():
    """64 hexadecimal digits standing alone, not part of something longer."""
    pin = "0f" * 32
    assert pin_in(f"made a CA\npin: {pin}\n") == pin
    with pytest.raises(StanchError):
        pin_in(f"blob {pin}00 and nothing else")


def test_the_password_file_is_private(tmp_path: Path):
    """Only its owner can read the administrator's password."""
    place = ServerPlace(data=tmp_path / "server", api="127.0.0.1:0", gateway="127.0.0.1:0", names=(), password="geheim")
    place.write_password()
    assert place.password_file.stat().st_mode & 0o777 == 0o600
    assert place.password_file.read_text() == "geheim\n"


def test_an_option_is_repeated_for_each_value():
    """One option, several values."""
    assert each("--c2", "a", "b") == ("--c2", "a", "--c2", "b")
