"""Is apk's text read as apk means it?"""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.package_apk import PLACES, Apk, parse_checksum, parse_installed
from stanch.agent.host.package_database import Brought

SHA1 = bytes(range(20))
Q1 = b"Q1" + base64.b64encode(SHA1)

INSTALLED = b"""C:Q1xxxx
P:busybox
V:1.36
F:bin
R:busybox
a:0:0:755
Z:%s
F:etc
M:0:0:755
R:securetty
Z:%s
F:etc/network/if-up.d
R:dad
a:0:0:775

P:musl
F:
R:top
F:lib
R:libc.musl-x86_64.so.1
Z:Q1!!
""" % (Q1, Q1)


def test_packages_folders_and_files_are_read():
    """A file belongs to the folder and the package above it; a checksum to the file above it."""
    assert list(parse_installed(INSTALLED)) == [
        (b"busybox", b"/bin/busybox", Q1),
        (b"busybox", b"/etc/securetty", Q1),
        (b"busybox", b"/etc/network/if-up.d/dad", b""),
        (b"musl", b"/top", b""),
        (b"musl", b"/lib/libc.musl-x86_64.so.1", b"Q1!!"),
    ]


@given(st.binary(max_size=200))
def test_garbage_is_read_or_passed_over(raw):
    """No bytes make the parsers fail."""
    assert all(name.startswith(b"/") for _, name, _ in parse_installed(raw))
    found = parse_checksum(raw)
    assert found is None or len(found.digest) in {40, 64}


@given(st.binary(min_size=32, max_size=32))
def test_both_kinds_of_checksum_are_read(digest):
    """SHA-1 of today, SHA-256 of tomorrow."""
    assert parse_checksum(b"Q2" + base64.b64encode(digest)) == Brought("sha256", digest.hex())
    assert parse_checksum(b"Q1" + base64.b64encode(digest[:20])) == Brought("sha1", digest[:20].hex())
    assert parse_checksum(b"Q1" + base64.b64encode(digest[:19])) is None


@pytest.mark.parametrize("place", PLACES)
def test_the_database_is_found_at_either_place(tmp_path, place):
    """With and without a merged /usr."""
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_bytes(INSTALLED)
    apk = Apk(tmp_path)
    assert apk.owners([b"/bin/busybox", b"/lib/libc.musl-x86_64.so.1", b"/x"]) == {
        b"/bin/busybox": "busybox",
        b"/lib/libc.musl-x86_64.so.1": "musl",
    }
    assert apk.brought([b"/bin/busybox", b"/top", b"/lib/libc.musl-x86_64.so.1"]) == {
        b"/bin/busybox": Brought("sha1", SHA1.hex())
    }
