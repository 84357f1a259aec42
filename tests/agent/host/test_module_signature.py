"""Signatures behind kernel modules: real ones, and whatever else stands there."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.host.module_signature import MARK, Signature, signature_of
from tests.agent.host.made_module import made, signed

KEY = "5a000000000000000000000000000000000000f1"
OPTIONS = (PKCS7Options.DetachedSignature, PKCS7Options.Binary, PKCS7Options.NoCerts, PKCS7Options.NoAttributes)


def message_of(algorithm: SHA256 | SHA512) -> bytes:
    """A signature as the kernel's build makes it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Org"), x509.NameAttribute(NameOID.COMMON_NAME, "Build key")]
    )
    builder = x509.CertificateBuilder(name, name, key.public_key(), int(KEY, 16))
    dated = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
    certificate = dated.sign(key, SHA256())
    made_message = PKCS7SignatureBuilder().set_data(b"module").add_signer(certificate, key, algorithm)
    return made_message.sign(Encoding.DER, list(OPTIONS))


MESSAGE = message_of(SHA256())
MODULE = made("license=GPL")


def test_a_signature_is_read() -> None:
    """Who, with which key, and how."""
    assert signature_of(signed(MODULE, MESSAGE)) == Signature("PKCS#7", "Build key", KEY, "sha256")
    other = signature_of(signed(MODULE, message_of(SHA512())))
    assert other is not None
    assert other.digest == "sha512"


def test_a_module_without_a_signature() -> None:
    """There is none; one that is cut off says nothing."""
    assert signature_of(MODULE) is None
    assert signature_of(b"") is None
    assert signature_of(MARK) == Signature("")


@pytest.mark.parametrize(("kind", "name"), [(0, "PGP"), (1, "X.509"), (9, "9")])
def test_other_kinds_are_only_named(kind: int, name: str) -> None:
    """They are not taken apart; what has no name is a number."""
    assert signature_of(signed(MODULE, MESSAGE, kind=kind)) == Signature(name)


@pytest.mark.parametrize("message", [b"", b"0", b"sig!", MESSAGE[:-1], MESSAGE[1:], bytes((0x30, 0x84)) + b"\xff" * 4])
def test_a_damaged_one_is_only_named(message: bytes) -> None:
    """It is there, and says nothing."""
    assert signature_of(signed(MODULE, message)) == Signature("PKCS#7")


def test_a_key_may_be_named_by_its_id() -> None:
    """Then who issued it is not said."""
    info = bytes.fromhex("02010380030102fd" + "300b0609608648016503040201")
    signers = b"\x31" + bytes((len(info) + 2,)) + b"\x30" + bytes((len(info),)) + info
    data = b"\x30" + bytes((len(signers),)) + signers
    message = b"\x30" + bytes((len(data) + 2,)) + b"\xa0" + bytes((len(data),)) + data
    assert signature_of(signed(MODULE, message)) == Signature("PKCS#7", "", "0102fd", "sha256")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=4)), max_size=6), st.integers(0, 500))
def test_no_damage_raises(changes: list[tuple[int, bytes]], cut: int) -> None:
    """A message that was changed in a few places and cut off."""
    raw = bytearray(MESSAGE)
    for where, what in changes:
        raw[where : where + len(what)] = what
    found = signature_of(signed(MODULE, bytes(raw[: len(raw) - cut])))
    assert found is not None
    assert found.signer.encode() is not None
