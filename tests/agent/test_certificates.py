"""What this endpoint asks its server to sign, and which answers it takes."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.certificates import check_certificate, new_key, private_pem, signing_request, validity
from stanch.core.errors import VerificationFailed
from tests.fakes.gateway import ENDPOINT, Authority

AUTHORITY = Authority()
KEY = new_key()


def test_a_request_proves_the_key_and_claims_nothing():
    """The server chooses the name."""
    request = x509.load_pem_x509_csr(signing_request(KEY).encode())
    assert request.is_signature_valid
    assert request.public_key() == KEY.public_key()
    assert [one.value for one in request.subject] == ["endpoint"]


def test_the_right_certificate_is_taken():
    """From our CA, for our key, in our name."""
    check_certificate(AUTHORITY.issue(ENDPOINT, KEY.public_key()), ca=AUTHORITY.pem, key=KEY, endpoint=ENDPOINT)


@pytest.mark.parametrize(
    "certificate",
    [
        Authority("test CA").issue(ENDPOINT, KEY.public_key()),
        AUTHORITY.issue("ep_other", KEY.public_key()),
        AUTHORITY.issue(ENDPOINT, new_key().public_key()),
        AUTHORITY.pem,
        "rubbish",
    ],
    ids=["another CA of the same name", "another endpoint", "another key", "the CA itself", "rubbish"],
)
def test_any_other_is_refused(certificate):
    """Whoever answered, it is not what was asked for."""
    with pytest.raises(VerificationFailed):
        check_certificate(certificate, ca=AUTHORITY.pem, key=KEY, endpoint=ENDPOINT)


def test_the_validity_is_read_from_credentials():
    """Beside the private key."""
    credentials = private_pem(KEY) + AUTHORITY.issue(ENDPOINT, KEY.public_key()).encode()
    since, until = validity(credentials)
    assert until - since == timedelta(days=2)
    assert since < datetime.now(UTC) < until


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data):
    """What holds no certificate is an error of ours."""
    with pytest.raises(VerificationFailed):
        validity(data)
