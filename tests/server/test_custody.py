"""Custody: a key that is made once, kept for the server alone, and the only thing that opens evidence."""

import stat
from io import BytesIO
from pathlib import Path

import pyrage
import pytest
from pyrage import x25519

from stanch.core.errors import Unavailable, VerificationFailed
from stanch.server.custody import KEY_FILE, KeyFileCustody, seal


def sealed(data: bytes, recipient: str) -> bytes:
    into = BytesIO()
    seal(BytesIO(data), into, recipient)
    return into.getvalue()


def test_the_key_is_made_once(tmp_path: Path) -> None:
    """Readable by its owner only, and the same at every start."""
    first = KeyFileCustody.in_folder(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert first.recipient.startswith("age1")
    assert KeyFileCustody.in_folder(tmp_path).recipient == first.recipient
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_the_key_shows_itself_nowhere(tmp_path: Path) -> None:
    """Not in what a log or a traceback would print."""
    custody = KeyFileCustody.in_folder(tmp_path)
    assert "SECRET" not in repr(custody)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"AGE-SECRET-KEY-1QQQ", b"x" * 10_000])
def test_a_damaged_key_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    """A new one could not open what is here: somebody must bring the old one back."""
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(Unavailable, match="evidence key") as error:
        KeyFileCustody.in_folder(tmp_path)
    assert "backup" in str(error.value.hint)
    assert (tmp_path / KEY_FILE).read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_000])
async def test_what_is_sealed_can_be_opened(tmp_path: Path, size: int) -> None:
    """With the key of another start too."""
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    file = sealed(data, KeyFileCustody.in_folder(tmp_path).recipient)
    assert await KeyFileCustody.in_folder(tmp_path).open(file) == data


async def test_what_is_sealed_for_another_key_stays_closed(tmp_path: Path) -> None:
    """It says so."""
    file = sealed(b"secret", str(x25519.Identity.generate().to_public()))
    with pytest.raises(VerificationFailed, match="cannot be opened"):
        await KeyFileCustody.in_folder(tmp_path).open(file)


@pytest.mark.parametrize("region", ["nothing", "no age file", "header", "content", "cut", "more behind", "passphrase"])
async def test_what_is_damaged_stays_closed(tmp_path: Path, region: str) -> None:
    """Whatever was changed, and whatever else lies there."""
    custody = KeyFileCustody.in_folder(tmp_path)
    file = sealed(b"x" * 100_000, custody.recipient)
    with pytest.raises(VerificationFailed):
        await custody.open(_damaged(file, region))


def _damaged(file: bytes, region: str) -> bytes:
    """Something else in its place; a file for a passphrase takes seconds to make, and only the test of it pays."""
    if region == "passphrase":
        return pyrage.passphrase.encrypt(b"x", "y")
    return {
        "nothing": b"",
        "no age file": b"hello",
        "header": file[:60] + bytes([file[60] ^ 1]) + file[61:],
        "content": file[:-5] + bytes([file[-5] ^ 1]) + file[-4:],
        "cut": file[:-20_000],
        "more behind": file + b"x",
    }[region]
