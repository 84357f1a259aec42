"""The world of one sequence: the lab's namespaces with a real server, a real supervisor and agent, and who looks on."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import uvloop

from stanch.agent.enroll import enroll
from stanch.cli.local.socket import ask
from stanch.client.api import Client, fetch_ca
from stanch.core.errors import StanchError
from stanch.core.rest import OrderCommon, OrderView, ServerAddresses, TaskView, TokenCreate
from stanch.demo.program import Program, children_of, wait_until
from stanch.demo.stage import AGENT_PLACES
from stanch.server import log as server_log
from stanch.server.clock import utc_now
from stanch.server.main import running
from stanch.server.settings import Settings, url_of
from tests.netns import netns
from tests.torture import lab as places
from tests.torture.lab import Lab
from tests.torture.processes import Forked, command_of, descendant, fork, inside

ROOT = Path(__file__).resolve().parents[2]
API, GATEWAY_PORT = "127.0.0.1:8443", 8444
URL = f"https://{API}"
HOSTNAME = "victim"
STATE = AGENT_PLACES["STANCH_AGENT_STATE"]
SERVER_SECONDS, AGENT_SECONDS, TASK_SECONDS = 30.0, 60.0, 100.0
TRIAL = "stanch_trial"
"""The agent tries with such a table; a test compares."""

FIRST_LOOK, LAST_LOOK = 0.01, 0.25
_PASSWORD = "torture-torture-torture"

T = TypeVar("T")


# --- the server ------------------------------------------------------------------------------------------------------


def serve(data: Path, *, names: tuple[str, ...] = places.SERVERS[0], ahead: timedelta = timedelta(0)) -> None:
    """A real server in this process until it is killed; its clock is this far ahead of everybody else's."""
    settings = Settings(
        data=data,
        api_listen=API,
        gateway_listen=f"[::]:{GATEWAY_PORT}",
        names=names,
        admin_password_file=data.with_name("password"),
    )

    async def live() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with running(settings, say=_to_stdout, now=lambda: utc_now() + ahead):
            await stop.wait()

    server_log.configure()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())


def _to_stdout(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - into its log


@dataclass(frozen=True, slots=True)
class Template:
    """A server's folder with its keys and its administrator: each sequence begins with a copy."""

    folder: Path
    ca: str
    pin: str
    token: str

    @classmethod
    def made(cls, folder: Path) -> "Template":
        """Start a server once, sign in, and stop it."""
        (folder / "password").write_text(_PASSWORD + "\n")
        log = folder / "server.log"
        with netns() as place:
            server = fork(lambda: serve(folder / "data"), netns=place.fd, log=log)
            try:
                _wait_for(log, "ready", SERVER_SECONDS)
                pin = next(word for word in log.read_text().split() if len(word) == 64 and word.isalnum())
                ca = place.call(fetch_ca, URL, pin)
                with Client(URL, ca=ca) as stranger:
                    session = place.call(stranger.login, "admin", _PASSWORD)
                os.kill(server.pid, signal.SIGTERM)
                server.wait()
            finally:
                server.kill()
        return cls(folder, ca, pin, session.token)

    def copy(self, to: Path) -> None:
        """A fresh server's folder."""
        shutil.copytree(self.folder / "data", to / "data")
        shutil.copy(self.folder / "password", to / "password")


def _wait_for(log: Path, word: str, within: float) -> None:
    def there() -> bool:
        return log.exists() and any(line.startswith(word) for line in log.read_text().splitlines())

    if not wait_until(there, within=within):
        raise RuntimeError(f"{log.name} does not say {word}: {log.read_text()[-2000:]}")


# --- helpers of the sequence -----------------------------------------------------------------------------------------


class Asked:
    """A program of ours that answers JSON lines, in a namespace."""

    def __init__(self, where: int, module: str, *arguments: str, keep: tuple[int, ...] = ()) -> None:
        enter = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{where}", "--")
        argv = (*enter, sys.executable, "-m", f"tests.torture.{module}", *arguments)
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(ROOT)},
            pass_fds=keep,
        )
        self._read()

    def ask(self, **question: Any) -> dict[str, Any]:
        """One question, one answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a program of the torture ended early")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                stream.close()


# --- the world -------------------------------------------------------------------------------------------------------


class World:
    """Everything that exists in a sequence, and what can be done to it."""

    def __init__(self, folder: Path, template: Template, *, plain: bool = False) -> None:
        """Make it with `with`. `plain`: the endpoint's tables cannot be owned, as with an older kernel."""
        self.folder, self._template, self.plain = folder, template, plain
        self._stack = ExitStack()
        self._server: Forked | None = None
        self._supervisor: Program | None = None
        self._lives = 0
        self.boots = 0
        self.booted = 0.0
        """When the last boot program had ended, CLOCK_MONOTONIC."""
        self._booted_at = 0.0
        self.ahead = timedelta(0)
        self.at = 0
        """Which of its addresses the server has."""

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        self._template.copy(self.folder)
        self.lab = Lab.made(self._stack)
        self._stack.callback(self.kill_server)
        self.start_server(wait=False)
        init = self._start_init()
        self.observer = self._asked(self.lab.outside.fd, "observer")
        self._wait_server()
        self.client = self._stack.enter_context(Client(URL, ca=self._template.ca, token=self._template.token))
        self.init = descendant(init.process.pid, ["stanch.demo.init", HOSTNAME])
        self._stack.callback(self._end_init, init)
        self.endpoint = self._enrol()
        self.start_supervisor()
        self.traffic = self._start_traffic()

    def _asked(self, where: int, module: str, *arguments: str, keep: tuple[int, ...] = ()) -> Asked:
        asked = Asked(where, module, *arguments, keep=keep)
        self._stack.callback(asked.close)
        return asked

    # --- the server ---

    def start_server(self, *, ahead: timedelta | None = None, wait: bool = True) -> None:
        """Start it on its data; `ahead` sets its clock."""
        self.ahead = self.ahead if ahead is None else ahead
        self._lives += 1
        self._server_log = self.folder / f"server-{self._lives}.log"
        data, names, now = self.folder / "data", places.SERVERS[self.at], self.ahead
        self._server = fork(lambda: serve(data, names=names, ahead=now), netns=self.lab.server.fd, log=self._server_log)
        if wait:
            self._wait_server()

    def _wait_server(self) -> None:
        _wait_for(self._server_log, "ready", SERVER_SECONDS)

    def kill_server(self) -> None:
        """kill -9."""
        if self._server is not None:
            self._server.kill()
        self._server = None

    def announce(self, number: int) -> None:
        """The server tells everybody the addresses that it is going to have; it has them from now on, too."""
        urls = tuple(url_of(address, GATEWAY_PORT) for address in places.SERVERS[number])
        self.lab.address_server(number)
        self.api(self.client.announce, ServerAddresses(urls=urls))

    def knows(self, number: int) -> bool:
        """Does the agent remember these addresses of the server, for good?"""
        with suppress(OSError):
            return places.SERVERS[number][0] in (self._root / STATE.lstrip("/") / "addresses.json").read_text()
        return False

    def release_code(self) -> str | None:
        """The code of the isolation that the server knows last."""
        codes = self.api(self.client.release_codes, self.endpoint).codes
        in_force = [one for one in codes if one.in_force]
        newest = sorted(codes, key=lambda one: one.created)[-1:]
        return next((one.code for one in (*in_force, *newest)), None)

    def api(self, function: Callable[..., T], *arguments: Any) -> T:
        """Ask the server, from its own network."""
        return self.lab.server.call(function, *arguments)

    def submit(self, action: str, params: Mapping[str, Any]) -> OrderView:
        """Order something of the endpoint."""
        common = OrderCommon(endpoints=(self.endpoint,), reason="torture")
        return self.api(self.client.submit, action, common, params)

    def finished(self, order: OrderView, *, within: float = TASK_SECONDS) -> TaskView | None:
        """Its task, once it is final; None if it is not in time."""
        (task,) = order.tasks
        end, wait = time.monotonic() + within, FIRST_LOOK
        while time.monotonic() < end:
            now = self.api(self.client.task, task.id)
            if now.state.final:
                return now
            time.sleep(wait)  # sleep: between two looks, the longer it takes the less often
            wait = min(wait * 1.3, LAST_LOOK)
        return None

    # --- the endpoint ---

    def _start_init(self) -> Program:
        enter = ("nsenter", f"--net={self.lab.endpoint.path}", "--")
        spaces = ("unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--mount-proc", "--")
        argv = (*enter, *spaces, sys.executable, "-m", "stanch.demo.init", HOSTNAME)
        return Program.start(argv, log=self.folder / "init.log", ends_on=signal.SIGKILL)

    def _end_init(self, init: Program) -> None:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.kill(self.init, signal.SIGKILL)
            init.process.wait(10)
        if self._supervisor is not None:
            self._supervisor.kill()

    def _enrol(self) -> str:
        _wait_for(self.folder / "init.log", "ready", SERVER_SECONDS)
        token = self.api(self.client.create_token, TokenCreate())
        server = f"https://{places.SERVERS[0][0]}:{GATEWAY_PORT}"

        def work() -> None:
            asyncio.run(enroll(server=server, token=token.token, ca_pin=token.ca_pin, state=Path(STATE)))

        log = self.folder / "enrol.log"
        if fork(lambda: inside(self.init, work), netns=self.lab.endpoint.fd, log=log).wait():
            raise RuntimeError(f"the enrolment failed: {log.read_text()[-2000:]}")
        return HOSTNAME

    @property
    def enter(self) -> tuple[str, ...]:
        """Before a command of the endpoint. After a reboot, its boot time begins anew."""
        inner = ("nsenter", f"--target={self.init}", "--mount", "--uts", "--pid", "--net", "--")
        if not self.boots:
            return inner
        return (*inner, "unshare", "--time", f"--boottime=-{int(self._booted_at)}", "--fork", "--kill-child", "--")

    def start_supervisor(self) -> None:
        """As systemd would."""
        self.hinder_ownership()
        argv = (*self.enter, sys.executable, "-m", "stanch.agent.supervisor")
        self._supervisor = Program.start(argv, log=self.agent_log, env=AGENT_PLACES, ends_on=signal.SIGKILL)

    @property
    def agent_log(self) -> Path:
        """What supervisor and agent say."""
        return self.folder / "agent.log"

    def supervisor_pid(self) -> int:
        """By its number out here."""
        assert self._supervisor is not None
        return descendant(self._supervisor.process.pid, ["-m stanch.agent.supervisor"])

    def agent_pids(self) -> list[int]:
        """The agent, if it runs; by its number out here."""
        return [pid for pid in children_of(self.supervisor_pid()) if "stanch.agent.main" in command_of(pid)]

    def kill_agent(self) -> None:
        """kill -9; its supervisor starts another."""
        for pid in self.agent_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_supervisor(self, *, agent_first: bool = False) -> None:
        """kill -9; the agent dies with it."""
        if self._supervisor is None:
            return
        pid = self.supervisor_pid()
        if agent_first:
            self.kill_agent()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._supervisor.process.wait(30)
        self._supervisor = None

    def status(self) -> dict[str, Any] | None:
        """The isolation as the agent tells it at its own socket; None if no agent answers."""
        return self._ask_agent("isolation-status")

    def local_off(self) -> dict[str, Any] | None:
        """`stanch local isolation off`, through the socket; None if no agent answers."""
        return self._ask_agent("isolation-off")

    def enter_code(self, code: str) -> bool:
        """Type a release code at the endpoint; was the isolation lifted?"""
        socket = Path(AGENT_PLACES["STANCH_AGENT_SOCKET"]).with_name("release.sock")
        try:
            if ask(self._root / os.fspath(socket).lstrip("/"), "release-code", code=code) is not None:
                return True
        except StanchError:
            return False
        argv = (sys.executable, "-m", "stanch.cli.main", "local", "isolation", "release-code", code, "--json")
        try:
            self.run_inside(*argv)
        except RuntimeError:
            return False
        return True

    @property
    def _root(self) -> Path:
        return Path(f"/proc/{self.init}/root")

    def _ask_agent(self, do: str) -> dict[str, Any] | None:
        path = self._root / AGENT_PLACES["STANCH_AGENT_SOCKET"].lstrip("/")
        try:
            return ask(path, do)
        except StanchError:
            return None

    def local_off_without_agent(self) -> str:
        """`stanch local isolation off` where no agent runs."""
        argv = (sys.executable, "-m", "stanch.cli.main", "local", "isolation", "off", "--yes", "--json")
        return self.run_inside(*argv)

    def run_inside(self, *argv: str) -> str:
        """A program of the endpoint; its output. RuntimeError if it fails."""
        log = self.folder / "program.log"
        log.unlink(missing_ok=True)
        program = Program.start((*self.enter, *argv), log=log, env=AGENT_PLACES, ends_on=signal.SIGKILL)
        program.process.wait(60)
        if program.process.returncode:
            raise RuntimeError(f"{' '.join(argv[:6])} failed: {log.read_text()[-1000:]}")
        return log.read_text()

    def nft(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`nft` by somebody else on the endpoint."""
        return self.lab.endpoint.call(
            lambda: subprocess.run(["nft", *arguments], capture_output=True, text=True, check=False, timeout=30)
        )

    def hinder_ownership(self) -> None:
        """In a plain world: be in the way of the table with which the agent finds out whether it can own any."""
        if self.plain:
            self.nft("add", "table", "inet", TRIAL)

    # --- a reboot ---

    def reboot(self) -> str:
        """Everything of the endpoint ends and its rules are gone; then the boot program, the network, the agent.

        What the boot program said. RuntimeError if it failed.
        """
        self.kill_supervisor(agent_first=True)
        devices = ["eth0", *self.lab.cables]
        places.batch(self.lab.endpoint, "".join(f"link set {one} down\n" for one in devices))
        self._lose_rules()
        self.boots += 1
        self._booted_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._new_boot_id()
        try:
            self.hinder_ownership()
            return self.run_inside(sys.executable, "-m", "stanch.agent.boot").strip()
        finally:
            self.booted = time.monotonic()
            places.batch(self.lab.endpoint, "".join(f"link set {one} up\n" for one in devices))
            places.batch(self.lab.endpoint, places.UPLINK)

    def _lose_rules(self) -> None:
        self.nft("flush", "ruleset")
        for line in self.nft("list", "tables").stdout.splitlines():
            self.nft("delete", *line.split())

    def _new_boot_id(self) -> None:
        number = f"{self.boots:08d}-0000-4000-8000-{os.getpid():012d}"
        (self._root / "run/boot_id").write_text(number + "\n")
        enter = ("nsenter", f"--target={self.init}", "--mount", "--")
        argv = (*enter, "mount", "--bind", "/run/boot_id", "/proc/sys/kernel/random/boot_id")
        subprocess.run(argv, check=True, capture_output=True, timeout=30)

    # --- who talks, and who looks on ---

    def _start_traffic(self) -> Asked:
        plan, kept = plan_of_traffic(self.lab)
        return self._asked(self.lab.outside.fd, "traffic", json.dumps(plan), keep=kept)

    def streams(self, since: float) -> Mapping[str, int]:
        """What left the endpoint since then, by who says what to whom."""
        return self.observer.ask(ask="seen", since=since)["streams"]

    def online(self) -> bool:
        """Has the server a link to the endpoint?"""
        return self.api(self.client.endpoint, self.endpoint).online


def plan_of_traffic(lab: Lab) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Who talks to whom, and the descriptors that the one who does it needs."""
    namespaces = {name: getattr(lab, name).fd for name in ("endpoint", "container", "macvlan", "outside")}
    inside = ["endpoint", "container", "macvlan"]
    plan = {
        "places": namespaces,
        "inside": inside,
        "targets": [*places.EVIL],
        "others": [*places.PARTNER, *places.NUISANCE],
        "lasting": [[name, target] for name in inside for target in places.EVIL],
        "inward": [*places.HOST, *places.CONTAINER, *places.MACVLAN],
        "raw": [["endpoint", "eth0", places.HOST[0], places.EVIL[0]]],
    }
    return plan, tuple(namespaces.values())
