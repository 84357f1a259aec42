"""Do indicators find the process that has something open: a file, a folder, a socket, a port?"""

import hashlib
import os
import pwd
import secrets
import socket
from contextlib import closing

import pytest

from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.items_world import collect, found, only, pids, program_of

OPENS = "import sys; kept = open(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
LISTENS = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
kept = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("ready", flush=True)
sys.stdin.read()
"""
HANDLE = "ProcessItem/HandleList/Handle"
PORT = "ProcessItem/PortList/PortItem"


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody has."""
    with closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as one:
        one.bind((address, 0))
        return one.getsockname()[1]


@pytest.fixture
def file(tmp_path):
    """A file that nobody else has open, of its own content."""
    made = tmp_path / f"open-{secrets.token_hex(8)}"
    made.write_bytes(secrets.token_bytes(10_000))
    return made


async def test_an_open_file_is_found_by_name_and_facts(child, file):
    """Path, kind, number, size, device: all that its descriptor tells."""
    planted, status = child(OPENS, file), file.stat()
    (file.parent / "other").write_text("of somebody else")
    child(OPENS, file.parent / "other")
    name = (f"{HANDLE}/Name", "is", file)
    assert await pids(name) == {planted.pid}
    more = {
        "Type": "REG",
        "INode": status.st_ino,
        "Size": status.st_size,
        "Device": f"{os.major(status.st_dev)},{os.minor(status.st_dev)}",
        "FileDescriptor": 3,
        "User": pwd.getpwuid(os.geteuid()).pw_name,
    }
    for path, value in more.items():
        assert await pids(name, (f"{HANDLE}/{path}", "is", value)) == {planted.pid}, path


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256"])
async def test_an_open_file_is_found_by_its_hash_after_it_was_deleted(child, file, kind):
    """What is open is hashed, whatever has become of its name."""
    digest = hashlib.new(kind, file.read_bytes(), usedforsecurity=False).hexdigest()
    planted = child(OPENS, file)
    file.unlink()
    assert await pids((f"{HANDLE}/{kind.title()}sum", "is", digest)) == {planted.pid}
    assert await pids((f"{HANDLE}/Name", "is", file)) == {planted.pid}
    assert await pids((f"{HANDLE}/Name", "is", f"{file} (deleted)")) == {planted.pid}


async def test_a_working_folder_is_found(child, tmp_path):
    """Where a process works is among what it has open."""
    planted = child("import os, sys; os.chdir(sys.argv[1]); print('ready', flush=True); sys.stdin.read()", tmp_path)
    terms = (
        (f"{HANDLE}/Name", "is", tmp_path),
        (f"{HANDLE}/FileDescriptor", "is", "cwd"),
        (f"{HANDLE}/Type", "is", "DIR"),
    )
    assert await pids(*terms) == {planted.pid}


async def test_a_pipe_a_device_and_an_unnamed_thing_are_told_by_kind(child):
    """Whatever is open has a kind and a name."""
    code = (
        "import os, select, sys; kept = select.epoll(), open('/dev/null'); print('ready', flush=True); sys.stdin.read()"
    )
    planted = child(code)
    (item,) = [
        one for one in await collect("ProcessItem", {"HandleList/Handle/Type", "HandleList/Handle/Name"})
        if one.about["pid"] == planted.pid
    ]  # fmt: skip
    assert {"DIR", "FIFO", "CHR", "a_inode"} <= set(item.values["HandleList/Handle/Type"])
    assert {"/dev/null", "anon_inode:[eventpoll]"} <= set(item.values["HandleList/Handle/Name"])


async def test_a_unix_socket_is_found_by_its_path(child, tmp_path):
    """The path to which it is bound is its name."""
    path = f"{tmp_path}/s"
    code = """
import socket, sys
kept = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
kept.bind(sys.argv[1]); kept.listen()
print("ready", flush=True); sys.stdin.read()
"""
    planted = child(code, path)
    name = (f"{HANDLE}/Name", "is", path)
    assert await pids(name) == {planted.pid}
    for term, value in {
        "Type": "unix", "SocketType": "SEQPACKET", "SocketProtocol": "UNIX", "SocketState": "LISTEN",
    }.items():  # fmt: skip
        assert await pids(name, (f"{HANDLE}/{term}", "is", value)) == {planted.pid}, term


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_listener_is_found_among_handles_and_ports(child, address):
    """The same socket is a handle, and a port of its process."""
    port = free_port(address)
    planted = child(LISTENS, address, str(port))
    assert await pids(
        (f"{HANDLE}/SocketLocalPort", "is", port),
        (f"{HANDLE}/SocketLocalAddress", "is", address),
        (f"{HANDLE}/SocketState", "is", "LISTEN"),
        (f"{HANDLE}/Type", "is", "IPv6" if ":" in address else "IPv4"),
    ) == {planted.pid}
    assert await pids(
        (f"{PORT}/localPort", "is", port),
        (f"{PORT}/localIP", "is", address),
        (f"{PORT}/state", "is", "LISTENING"),
        (f"{PORT}/protocol", "is", "TCP"),
        (f"{PORT}/pid", "is", planted.pid),
        (f"{PORT}/path", "is", program_of(planted.pid)),
    ) == {planted.pid}
    assert await pids((f"{PORT}/localPort", "is", port), (f"{PORT}/protocol", "is", "UDP")) == set()


async def test_a_process_without_ports_is_known_to_have_none(child):
    """There is no port, and that is no question without an answer."""
    planted = child("import sys; print('ready', flush=True); sys.stdin.read()")
    paths = {path for path in DOCUMENTS["ProcessItem"] if path.startswith("PortList/")}
    (item,) = [one for one in await collect("ProcessItem", paths) if one.about["pid"] == planted.pid]
    assert item.values == dict.fromkeys(paths, ())


async def test_a_thousand_open_files_do_not_cost_a_process_its_name(child, tmp_path):
    """What is too much is cut, in the long lists only."""
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (3000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
kept = []
for number in range(2000):
    kept.append(open(f"{sys.argv[1]}/{number:0200}", "w"))
print("ready", flush=True); sys.stdin.read()
"""
    planted = child(code, tmp_path)
    (item,) = await found(("ProcessItem/pid", "is", planted.pid), (f"{HANDLE}/FileDescriptor", "is", "1999"))
    assert item.values["pid"] == (planted.pid,)
    (item,) = await collect("ProcessItem", parts=only(tmp_path / "proc", planted.pid))
    assert item.values["name"]
    assert 500 < len(item.values["HandleList/Handle/Name"]) < 2000
