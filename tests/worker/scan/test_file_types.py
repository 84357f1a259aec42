"""What a file is by its first bytes."""

import pytest

from stanch.worker.scan.file_types import file_type


@pytest.mark.parametrize(("first", "what"), [(b"\x7fELF\x02", "ELF"), (b"#!/bin/sh", "SCRIPT"), (b"", ""), (b"x", "")])
def test_it_is_told_by_its_first_bytes(first: bytes, what: str) -> None:
    """With the names that public rules use; nothing for what is not known."""
    assert file_type(first) == what
