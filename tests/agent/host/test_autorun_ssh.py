"""Is every key told that opens a door, wherever the server looks for it?"""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.autorun_ssh import Key, SshReader, fingerprint, parse_key
from stanch.core.autoruns import Place, disabled_line
from tests.agent.host.autorun_root import new_root

RAW = b"\0\0\0\x0bssh-ed25519" + bytes(36)
KEY = base64.b64encode(RAW).decode()
PRINT = "SHA256:" + base64.b64encode(hashlib.sha256(RAW).digest()).decode().rstrip("=")


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"ssh-ed25519 {KEY} me@laptop", Key("", "ssh-ed25519", PRINT, "me@laptop")),
        (f"ecdsa-sha2-nistp256 {KEY}", Key("", "ecdsa-sha2-nistp256", PRINT, "")),
        (f"sk-ssh-ed25519@openssh.com {KEY} a b", Key("", "sk-ssh-ed25519@openssh.com", PRINT, "a b")),
        (f'no-pty,from="10.* x" ssh-rsa {KEY} c', Key('no-pty,from="10.* x"', "ssh-rsa", PRINT, "c")),
        (f"cert-authority  ssh-rsa {KEY}", Key("cert-authority", "ssh-rsa", PRINT, "")),
        ("ssh-rsa !!!", Key("", "ssh-rsa", "", "")),
        ("# ssh-rsa x", None),
        ("ssh-rsa", None),
        ("", None),
        ("hello world", None),
    ],
)
def test_a_line_of_authorized_keys_is_read(text, key):
    """Options with spaces in quotes, every kind of key, a comment of several words."""
    assert parse_key(text) == key


OPTION = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=30)


@given(OPTION, st.binary(min_size=1, max_size=100))
def test_a_command_in_the_options_is_read_back(command, raw):
    """Quotes in it are escaped, as sshd has them; the fingerprint is of the key."""
    escaped = command.replace("\\", "").replace('"', '\\"')
    key = parse_key(f'command="{escaped}",no-pty ssh-rsa {base64.b64encode(raw).decode()} x')
    assert key is not None
    assert key.command == command.replace("\\", "")
    assert key.fingerprint == "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


@given(st.text(max_size=300))
def test_any_text_is_a_key_or_none(text):
    """And its fingerprint is one, or empty."""
    found = parse_key(text)
    assert found is None or found.type
    assert fingerprint(text)[:7] in {"", "SHA256:"}


def test_keys_of_every_account_are_told(root):
    """With whose they are; a disabled one with its task; what they start is looked at."""
    root.write("/root/.ssh/authorized_keys", f"# c\nssh-ed25519 {KEY} admin\n")
    root.write("/home/alice/.ssh/authorized_keys2", disabled_line("tsk_1", f'command="/opt/x" ssh-rsa {KEY} evil'))
    found = [
        (one.path, one.line, one.name, one.command, one.starts, one.user, one.disabled_by)
        for one in root.items(SshReader(), Place.SSH_KEY)
    ]
    assert found == [
        ("/root/.ssh/authorized_keys", 2, "admin", f"ssh-ed25519 {PRINT} admin", "-", "root", ""),
        (
            *("/home/alice/.ssh/authorized_keys2", 1, "evil"),
            *(f'command="/opt/x" ssh-rsa {PRINT} evil', "/opt/x", "alice", "tsk_1"),
        ),
    ]


def test_keys_are_looked_for_where_the_server_looks(root):
    """Its settings may be in a file that is included, in a circle even."""
    root.write("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n")
    root.write(
        "/etc/ssh/sshd_config.d/x.conf", "AuthorizedKeysFile /etc/keys/%u .hidden\nInclude /etc/ssh/sshd_config\n"
    )
    root.write("/etc/keys/alice", f"ssh-rsa {KEY} one\n")
    root.write("/home/alice/.hidden", f"ssh-rsa {KEY} two\n")
    assert [(one.name, one.user) for one in root.items(SshReader(), Place.SSH_KEY)] == [
        ("one", "alice"),
        ("two", "alice"),
    ]


def test_what_a_session_starts_is_told(root):
    """rc files, and the commands of the server; what the server does itself is none."""
    root.write("/etc/ssh/sshrc", "/opt/rc\n")
    root.write("/home/alice/.ssh/rc", "/opt/own\n")
    config = [
        "Port 22",
        "ForceCommand /opt/force",
        "  AuthorizedKeysCommand = /opt/keys %u",
        "Subsystem sftp internal-sftp",
    ]
    root.write("/etc/ssh/sshd_config", "\n".join([*config, "AuthorizedKeysCommand none", "Subsystem x /opt/sub"]))
    rc = [(one.command, one.user) for one in root.items(SshReader(), Place.SSH_KEY)]
    assert rc == [("/opt/rc", ""), ("/opt/own", "alice")]
    other = [(one.line, one.name, one.starts) for one in root.items(SshReader(), Place.OTHER)]
    assert other == [
        (2, "sshd: forcecommand", "/opt/force"),
        (3, "sshd: authorizedkeyscommand", "/opt/keys %u"),
        (6, "sshd: subsystem", "/opt/sub"),
    ]


def test_hostile_keys_end(root):
    """A pipe in the place of the keys, a link out of the root, quotes without an end."""
    root.fifo("/root/.ssh/authorized_keys")
    root.link("/home/alice/.ssh/authorized_keys", "/../../../../etc/shadow")
    root.write("/home/alice/.ssh/authorized_keys2", 'command="' + "a" * 100_000 + "\n")
    items, unread = root.read(SshReader(), Place.SSH_KEY)
    assert items == []
    assert {one.path for one in unread} == {"/root/.ssh/authorized_keys", "/home/alice/.ssh/authorized_keys2"}
