"""ClamAV's daemon: found where its configuration says, believed only if it is its own."""

import os
import socket
import threading

import pytest

from stanch.agent.host.clamd import Clamd
from stanch.core.errors import Unavailable, Unsupported


class Daemon:
    """Listens on a socket, and answers once."""

    def __init__(self, path, answer: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._answer = answer
        self.asked = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        line, _ = self._socket.accept()
        with line:
            self.asked = line.recv(100)
            line.sendall(self._answer)

    def close(self) -> None:
        self._thread.join(10)
        self._socket.close()


async def test_the_socket_of_its_configuration_is_asked(tmp_path):
    """Its version is what it says of itself."""
    (tmp_path / "etc" / "clamav").mkdir(parents=True)
    (tmp_path / "etc" / "clamav" / "clamd.conf").write_text("# LocalSocket /no\nLocalSocket /s/clamd\n")
    daemon = Daemon(tmp_path / "s" / "clamd", b"ClamAV 1.0.3/27000/Mon\0")
    assert await Clamd(root=tmp_path).version() == "ClamAV 1.0.3/27000/Mon"
    daemon.close()
    assert daemon.asked == b"zVERSION\0"


async def test_the_usual_socket_is_asked_without_configuration(tmp_path):
    """An answer is cut, and odd bytes in it are harmless."""
    daemon = Daemon(tmp_path / "run" / "clamav" / "clamd.ctl", b"\xff" * 2000)
    assert len(await Clamd(root=tmp_path).version()) <= 4 * 300
    daemon.close()


async def test_no_daemon_is_unsupported(tmp_path):
    """And says what to do."""
    with pytest.raises(Unsupported, match="clamav-daemon"):
        await Clamd(root=tmp_path).version()


async def test_a_dead_socket_is_unavailable(tmp_path):
    """The daemon was there and is gone."""
    path = tmp_path / "run" / "clamav" / "clamd.ctl"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
    with pytest.raises(Unavailable):
        await Clamd(root=tmp_path).version()


@pytest.mark.root
@pytest.mark.parametrize("what", ["socket", "folder", "open", "file"])
async def test_nobody_else_is_asked(tmp_path, what):
    """Whoever sits there would be sent the content of every file."""
    path = tmp_path / "run" / "clamav" / "clamd.ctl"
    path.parent.mkdir(parents=True)
    if what == "file":
        path.write_text("")
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    match what:
        case "socket":
            os.chown(path, 12345, 12345)
        case "folder":
            os.chown(path.parent, 12345, 12345)
        case "open":
            path.parent.chmod(0o777)
    with pytest.raises(Unsupported):
        await Clamd(root=tmp_path).version()
