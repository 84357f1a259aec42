"""A test stand: a real server, and a real agent, as processes of their own on loopback."""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stanch.client.api import Client, fetch_ca
from stanch.core.rest import TokenCreate, TokenCreated

CLI = [sys.executable, "-m", "stanch.cli.main"]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    pid: int
    api: str
    gateway: str
    client: Client
    token_of_session: str
    ca: str
    folder: Path

    def token(self, *, uses: int, labels: tuple[str, ...] = ()) -> TokenCreated:
        """An enrolment token."""
        return self.client.create_token(TokenCreate(uses=uses, labels=labels))


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that goes away."""
    path = Path(tempfile.mkdtemp(prefix="stanch-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def process(command: list[str], log: Path, *, env: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:
    """A child with its output as text lines and its errors in a log; ended by SIGTERM, then SIGKILL."""
    with log.open("w") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **env}
        )
        try:
            yield child
        finally:
            end(child)


def end(child: subprocess.Popen[str]) -> None:
    """End it."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(15)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@contextmanager
def server(at: Path) -> Iterator[Server]:
    """A server with an empty database, and a client that is signed in as its administrator."""
    password = secrets.token_hex(16)
    secret = at / "password"
    secret.write_text(password)
    secret.chmod(0o600)
    command = [
        *CLI, "server", "--data", str(at / "server"), "--api-listen", "127.0.0.1:0",
        "--gateway-listen", "127.0.0.1:0", "--name", "127.0.0.1", "--admin-password-file", str(secret),
    ]  # fmt: skip
    with process(command, at / "server.log") as child:
        said = list(_until_ready(child, at / "server.log"))
        urls = dict(word.partition("=")[::2] for word in said[-1].split()[1:])
        pin = next(word for line in said for word in line.split() if _is_pin(word))
        ca = fetch_ca(urls["api"], pin)
        with Client(urls["api"], ca=ca) as anonymous:
            session = anonymous.login("admin", password)
        with Client(urls["api"], ca=ca, token=session.token) as client:
            yield Server(child.pid, urls["api"], urls["gateway"], client, session.token, ca, at)


def _is_pin(word: str) -> bool:
    return len(word) == 64 and all(char in "0123456789abcdef" for char in word)


def _until_ready(child: subprocess.Popen[str], log: Path) -> Iterator[str]:
    assert child.stdout is not None
    for line in child.stdout:
        yield line
        if line.startswith("ready "):
            return
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


@contextmanager
def agent(on: Server, at: Path) -> Iterator[subprocess.Popen[str]]:
    """A real supervisor and agent, enrolled, in a pid namespace of their own where root allows it."""
    token = on.token(uses=1)
    places = {"STANCH_AGENT_STATE": str(at / "state"), "STANCH_AGENT_SOCKET": str(at / "run" / "agent.sock")}
    places["STANCH_AGENT_CONFIG"] = str(at / "agent.toml")
    alone = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"] if os.geteuid() == 0 else []
    enrol = [
        *CLI, "agent", "enroll", "--server", token.gateway_url, "--token", token.token,
        "--ca-pin", token.ca_pin, "--state", str(at / "state"),
    ]  # fmt: skip
    # Enrolled and run in one shell, because the identity is bound to the namespaces in which it was made.
    script = f"{shlex.join(enrol)} >&2 && exec {shlex.join([sys.executable, '-m', 'stanch.agent.supervisor'])}"
    with process([*alone, "sh", "-c", script], at / "agent.log", env=places) as child:
        try:
            yield child
        finally:
            for inner in descendants(child.pid)[1:2] if alone else ():  # `unshare` hears no signal while it waits
                with contextlib.suppress(ProcessLookupError):
                    os.kill(inner, signal.SIGTERM)


def descendants(pid: int) -> list[int]:
    """A process and everything below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(after[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process; 0 if it may not be read."""
    return _of_memory(pid, "Pss:")


def rss_bytes(pid: int) -> int:
    """Resident set size of one process; 0 if it may not be read."""
    return _of_memory(pid, "Rss:")


def _of_memory(pid: int, key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


def tell(child: subprocess.Popen[str], **message: object) -> None:
    """A JSON line to a child."""
    assert child.stdin is not None
    child.stdin.write(json.dumps(message) + "\n")
    child.stdin.flush()


def hear(child: subprocess.Popen[str]) -> dict[str, object]:
    """The next JSON line of a child."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a part of the benchmark ended early; see its log")
    heard: dict[str, object] = json.loads(line)
    return heard


def number(heard: Mapping[str, object], key: str) -> float:
    """A number that a child told."""
    value = heard[key]
    if not isinstance(value, int | float):
        raise TypeError(f"{key} is {value!r}")
    return float(value)
