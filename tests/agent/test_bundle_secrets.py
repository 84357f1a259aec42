"""What must not leave the machine is known, and taken out of every text in which it comes up."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.bundle_secrets import LEFT_OUT, Secrets, secrets_of, told_policy
from stanch.agent.journal_reading import read_journal
from tests.fakes.endpoint_state import CODE, ENROLLED_PASSWORD, PASSWORD, Used


@pytest.fixture
def used(tmp_path: Path) -> Used:
    return Used(tmp_path).enrol().limit().work().quarantine()


def known(used: Used) -> Secrets:
    effects = read_journal(used.settings.journal).effects.values()
    return secrets_of(used.settings, [one.effect.private for one in effects])


def test_every_secret_is_known(used):
    """Of the endpoint's key, its vault, both proxies and the release code; whatever it is written like."""
    secrets = known(used)
    pem = next(used.settings.state.glob("credentials-*.pem")).read_text()
    line = pem.splitlines()[1]
    vault_key = used.settings.vault_key.read_text().strip().splitlines()[-1]
    for one in (
        line,
        vault_key,
        PASSWORD,
        quote(PASSWORD),
        json.dumps(PASSWORD)[1:-1],
        ENROLLED_PASSWORD,
        CODE.key,
        CODE.salt,
    ):
        told = secrets.out_of(f"before {one} after".encode())
        assert told == f"before {LEFT_OUT} after".encode(), one


def test_the_certificate_is_no_secret(used):
    """Only what is between the lines of the private key."""
    pem = next(used.settings.state.glob("credentials-*.pem")).read_bytes()
    assert not known(used).left_in(pem[pem.index(b"-----BEGIN CERT") :])
    assert b"PRIVATE" not in known(used).out_of(pem)


@pytest.mark.parametrize(
    "text",
    [
        "proxy http://carol:S3CRET@192.0.2.9:3128/",
        "Proxy-Authorization: Basic S3CRET==",
        "AGE-SECRET-KEY-1S3CRET",
        "-----BEGIN PRIVATE KEY-----\nS3CRET\n-----END PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----\nS3CRET",
    ],
)
def test_forms_of_secrets_are_known_too(text):
    """Whoever they are of: a log tells of more than ours."""
    assert b"S3CRET" not in Secrets().out_of(text.encode())


def test_where_nothing_can_be_read_nothing_is_known(tmp_path):
    """No error: each part leaves its secrets out by itself."""
    assert secrets_of(Used(tmp_path).settings).known == ()


@given(st.binary(max_size=300))
def test_any_bytes_are_told(data):
    """Taking out never fails, and leaves nothing of what is known."""
    secrets = Secrets((b"\x00\xff\x01",))
    assert not secrets.left_in(secrets.out_of(data))


# --- the local policy ------------------------------------------------------------------------------------------------


def test_the_policy_is_told_without_its_password(used):
    """Its own words otherwise, but no comment: nobody knows what stands in one."""
    text = used.settings.config.read_text() + "# alice / hunter2\n[actions]\nforbid = ['a#b', \"c#d\"]  # hunter2\n"
    told = told_policy(text, known(used))
    assert "forbid = ['a#b', \"c#d\"]\n" in told
    assert "hunter2" not in told
    assert PASSWORD not in told
    assert "192.0.2.2:3128" in told


def test_a_password_that_is_written_otherwise(tmp_path):
    """TOML has many ways to write a text: an escape hides the @ from whoever only looks for one."""
    used = Used(tmp_path)
    used.settings.config.write_text('[link]\nproxy = "http://alice:hunter2\\u0040192.0.2.2:3128"\n')
    told = told_policy(used.settings.config.read_text(), secrets_of(used.settings))
    assert "hunter2" not in told


@pytest.mark.parametrize("text", ["[link\nproxy = hunter2", '[link]\nproxy = "http://a:x@192.0.2.2"\n'])
def test_what_cannot_be_told_apart_is_left_out(text):
    """No TOML, or a password so short that it is everywhere."""
    told = told_policy(text, Secrets())
    assert told.startswith("#")
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "text",
    [
        "stanch agent enroll --token S3CRETxxxxxxxxxxxxxxxxxxxxxxxxxx",
        '{"token": "S3CRETxxxxxxxxxxxxxxxxxxxxxxxxxx"}',
        "http://bob:pa/S3CRET@192.0.2.1:3128",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nS3CRET\n",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text):
    """Tokens, passwords with any letters, and keys of other programs, whether this machine knows them or not."""
    assert b"S3CRET" not in Secrets().out_of(text.encode())
