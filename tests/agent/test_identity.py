"""The identity on the disk: whole or not there, closed to others, and bound to where it was made."""

import json
import os
import ssl
from pathlib import Path

import pytest
from joserfc.jwk import ECKey, OKPKey

from stanch.agent.identity import Binding, Identity, check_private, make_private, read_signing_key, trusting
from stanch.core.errors import NotFound, VerificationFailed
from tests.fakes.gateway import ENDPOINT, Authority, FakeGateway

MACHINE = 0xEFFFFFFC
HERE = Binding(boot_id="one", net=1, pid=MACHINE)


def jwk(**changed: str) -> dict[str, str]:
    """A public Ed25519 key."""
    key = OKPKey.generate_key("Ed25519", {"kid": "k1"}).as_dict(private=False)
    return {name: str(value) for name, value in key.items() if isinstance(value, str)} | changed


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with an identity."""
    folder = tmp_path / "state"
    make_private(folder)
    authority = Authority()
    identity = Identity(endpoint=ENDPOINT, urls=("https://h:1",), ca=authority.pem, signing_keys=(jwk(),), binding=HERE)
    identity.save(folder, authority.credentials(ENDPOINT))
    return folder


def test_an_endpoint_that_was_never_enrolled_says_how(tmp_path):
    """No identity is an error with the command that makes one."""
    with pytest.raises(NotFound) as caught:
        Identity.load(tmp_path)
    assert "stanch agent enroll" in caught.value.hint


def test_what_was_saved_loads_again(state):
    """The identity, its TLS and its keys survive a restart."""
    identity = Identity.load(state)
    assert identity.binding == HERE
    assert identity.tls(state).minimum_version is ssl.TLSVersion.TLSv1_3
    assert list(identity.keys()) == ["k1"]


@pytest.mark.parametrize("name", [".", "identity.json", f"credentials-{ENDPOINT}.pem"])
@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602, 0o755])
def test_what_others_could_have_read_or_changed_is_refused(state, name, mode):
    """Loose permissions on any part of it are told with both modes and the command that repairs them."""
    (state / name).chmod(mode)
    with pytest.raises(VerificationFailed) as caught:
        Identity.load(state)
    assert f"{mode:04o}" in caught.value.got
    assert "chmod" in caught.value.hint


def test_a_link_is_not_followed(state):
    """A link where a private file should be is somebody's trick."""
    (state / "real").write_bytes((state / "identity.json").read_bytes())
    (state / "identity.json").unlink()
    (state / "identity.json").symlink_to(state / "real")
    with pytest.raises(VerificationFailed, match="open to others"):
        Identity.load(state)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"endpoint": "../../x"}', "[" * 100_000])
def test_a_damaged_identity_is_refused(state, content):
    """What is no identity is told as damaged, with what was wrong."""
    (state / "identity.json").write_text(content)
    with pytest.raises(VerificationFailed, match="damaged"):
        Identity.load(state)


def test_an_identity_without_its_credentials_is_refused(state):
    """Half an identity is none."""
    (state / f"credentials-{ENDPOINT}.pem").unlink()
    with pytest.raises(VerificationFailed, match="cannot be read"):
        Identity.load(state)


def test_a_crash_before_the_last_write_leaves_the_earlier_identity(state):
    """New credentials without the new identity file change nothing."""
    before = Identity.load(state)
    (state / "credentials-other.pem").write_bytes(b"half an enrolment")
    assert Identity.load(state) == before


@pytest.mark.parametrize(
    ("here", "allowed"),
    [
        (HERE, True),
        (Binding(boot_id="one", net=2, pid=MACHINE), False),
        (Binding(boot_id="one", net=1, pid=7), False),
        (Binding(boot_id="two", net=2, pid=MACHINE), True),
        (Binding(boot_id="two", net=1, pid=7), False),
    ],
    ids=["same", "other network", "other pids", "after a reboot", "after a reboot, in a container"],
)
def test_an_identity_acts_where_it_was_made(here, allowed):
    """Another namespace is refused; after a reboot the machine is still the machine, whatever its numbers are."""
    if allowed:
        HERE.check(here)
    else:
        with pytest.raises(VerificationFailed, match="other namespaces"):
            HERE.check(here)


def test_an_identity_of_a_container_does_not_act_on_the_machine():
    """What was enrolled in a container or a test cannot reach the machine that runs it, not even after a reboot."""
    inside = Binding(boot_id="one", net=5, pid=6)
    inside.check(Binding(boot_id="two", net=8, pid=9))
    for boot in ("one", "two"):
        with pytest.raises(VerificationFailed):
            inside.check(Binding(boot_id=boot, net=1, pid=MACHINE))


def test_the_binding_of_this_process_holds_for_this_process():
    """The namespaces are read from the kernel, the same ones each time."""
    Binding.here("one").check(Binding.here("one"))


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "!"},
        jwk(kid=""),
        jwk(d="secret"),
        {k: str(v) for k, v in ECKey.generate_key("P-256", {"kid": "e"}).as_dict(private=False).items()},
    ],
    ids=["empty", "no base64", "no kid", "private", "other curve"],
)
def test_only_public_ed25519_keys_are_signing_keys(bad):
    """Another algorithm must not slip in as a trusted key."""
    with pytest.raises(VerificationFailed, match="signing key"):
        read_signing_key(bad)


def test_a_folder_that_is_made_is_private(tmp_path):
    """The state folder is closed to others from its first moment."""
    make_private(tmp_path / "a" / "b")
    check_private(tmp_path / "a" / "b")


def test_what_is_roots_asks_for_root(tmp_path, monkeypatch):
    """A user who forgot sudo is not told to change the owner."""
    (tmp_path / "state").mkdir(mode=0o700)
    roots = os.stat_result((0o40700, 1, 1, 1, 0, 0, 0, 0, 0, 0))
    with monkeypatch.context() as patched:
        patched.setattr("os.lstat", lambda _: roots)
        patched.setattr("os.geteuid", lambda: 1000)
        with pytest.raises(VerificationFailed, match="sudo"):
            check_private(tmp_path / "state")


def test_only_the_given_ca_is_trusted():
    """The certificates of the machine are not asked."""
    authority = Authority()
    assert len(trusting(authority.pem).get_ca_certs()) == 1


def test_a_renewed_identity_has_credentials_of_another_name(tmp_path):
    """The ones in use are never overwritten; earlier ones of this endpoint alone are removed."""
    state = tmp_path / "state"
    identity = FakeGateway(tmp_path).identity(state)
    renewed = identity.renewed()
    assert renewed.credentials(state) != identity.credentials(state)
    renewed.save(state, identity.credentials(state).read_bytes())
    assert Identity.load(state) == renewed
    other = state / "credentials-somebody_else.pem"
    other.touch(mode=0o600)
    renewed.remove_earlier(state)
    assert set(state.glob("credentials-*")) == {renewed.credentials(state), other}
    Identity.load(state).tls(state)


@pytest.mark.parametrize(
    "name", ["../credentials-x.pem", "credentials-.pem", "/etc/shadow", "credentials-a/b.pem", "x"]
)
def test_credentials_stay_in_their_folder(tmp_path, name):
    """A name that is none of ours is no identity."""
    state = tmp_path / "state"
    FakeGateway(tmp_path).identity(state)
    path = state / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"credentials_file": name}))
    with pytest.raises(VerificationFailed, match="damaged"):
        Identity.load(state)
