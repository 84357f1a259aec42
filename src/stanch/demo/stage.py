"""What runs in the demo: the outside world, the attack, the client, the server, the agent; and a responder."""

import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from stanch.core.errors import StanchError, Unavailable
from stanch.core.rest import TokenCreated
from stanch.demo.account import lowered
from stanch.demo.attack import USER_ID
from stanch.demo.lab import C2_V4, C2_V6, SERVER_V4, SERVER_V6, SHOP_V4, SHOP_V6, WIRE, Endpoint, Lab, Place, output_of
from stanch.demo.program import Program, wait_until
from stanch.demo.questions import OutsideWorld
from stanch.demo.responder import STANCH, Responder

API_PORT, GATEWAY_PORT = 8443, 8444
AGENT_MODULES = ("stanch.agent.supervisor", "stanch.agent.main")
STOLEN = "/home/alice/Downloads/invoice.bin"
START_SECONDS = 30.0
AGENT_PLACES: Mapping[str, str] = {
    "STANCH_AGENT_CONFIG": "/var/lib/stanch/agent.toml",
    "STANCH_AGENT_STATE": "/var/lib/stanch/agent",
    "STANCH_AGENT_SOCKET": "/run/stanch/agent.sock",
}
"""On file systems of the endpoint's own; /etc is the machine's."""

_DIAL = """\
import socket, sys
for address in sys.argv[2:]:
    try:
        socket.create_connection((address, int(sys.argv[1])), timeout=5).close()
    except OSError:
        continue
    print(address)
"""


def each(option: str, *values: str) -> tuple[str, ...]:
    """The option once for each value."""
    return tuple(word for value in values for word in (option, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlace:
    """Where a server runs, and how people get to it."""

    data: Path
    api: str
    gateway: str
    names: tuple[str, ...]
    password: str

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line of `stanch server`."""
        return (
            *(*STANCH, "server", "--data", str(self.data), "--api-listen", self.api, "--gateway-listen", self.gateway),
            *("--admin-password-file", str(self.password_file), *each("--name", *self.names)),
        )

    @property
    def password_file(self) -> Path:
        """The administrator's password for the first start."""
        return self.data.with_name("admin-password")

    def write_password(self) -> None:
        """Put the password where the first start reads it."""
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(self.password + "\n")


def enrol_command(token: TokenCreated, *, state: str) -> tuple[str, ...]:
    """What `stanch` is told on the new endpoint; the state folder by name, so that the machine's own is never meant."""
    whom = ("--server", token.gateway_url, "--ca-pin", token.ca_pin)
    return ("agent", "enroll", *whom, "--token", token.token, "--state", state)


def url_in(ready: str, name: str) -> str:
    """`https://...` from the server's line `ready api=... gateway=...`."""
    fields = dict(part.split("=", 1) for part in ready.split() if "=" in part)
    if name not in fields:
        raise StanchError("The server's ready line is not understood", got=ready, expected=f"ready ... {name}=URL")
    return fields[name]


def pin_in(said: str) -> str:
    """The pin of the CA from what the server said at its first start."""
    found = re.search(r"\b[0-9a-f]{64}\b", said)
    if found is None:
        raise StanchError("The server did not say the pin of its CA", got=said[-1000:])
    return found[0]


def sign_in(responder: Responder, *, url: str, pin: str, password: str) -> str:
    """`stanch login` as the administrator; the account's name."""
    responder.stanch("login", url, "--ca-pin", pin, "--name", "admin", "--password-file", "-", say=f"{password}\n")
    return str(responder.stanch("whoami")["name"])


class Stage:
    """Everything that runs in a lab, started step by step by the story."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.server_place = ServerPlace(
            data=lab.folder / "server",
            api=f"{SERVER_V4}:{API_PORT}",
            gateway=f"[::]:{GATEWAY_PORT}",
            names=(SERVER_V4, SERVER_V6),
            password=secrets.token_urlsafe(12),
        )
        self.responder = Responder(lab.server.enter, lab.folder)
        self._stack = ExitStack()
        self._programs: dict[str, Program] = {}
        self._world: OutsideWorld | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def world(self) -> OutsideWorld:
        """The outside world's witness."""
        if self._world is None:
            raise StanchError("The outside world was not opened")
        return self._world

    def program(self, name: str) -> Program:
        """A program that was started."""
        return self._programs[name]

    def open_world(self) -> None:
        """Start the listeners and the observer on the cable."""
        control = self.lab.folder / "outside.sock"
        self._module(
            *("outside", self.lab.outside, "--wire", WIRE, "--control", str(control)),
            *each("--c2", C2_V4, C2_V6),
            *each("--shop", SHOP_V4, SHOP_V6),
            *each("--server", SERVER_V4, SERVER_V6),
        ).wait_for_line("ready", within=START_SECONDS)
        self._world = self._stack.enter_context(OutsideWorld(control))

    def start_attack(self) -> None:
        """Let the attack loose on the endpoint."""
        attack = self._module("attack", self.lab.endpoint, "--file", STOLEN, *each("--c2", C2_V4, C2_V6))
        attack.wait_for_line('{"idle": "open"', within=START_SECONDS)

    def start_client(self) -> None:
        """Let a harmless client work on the endpoint."""
        self._module("client", self.lab.endpoint, *each("--shop", SHOP_V4, SHOP_V6))

    def start_cron(self, crontab: str) -> None:
        """Let the demo's own cron follow a crontab on the endpoint."""
        self._module("persistence", self.lab.endpoint, "--crontab", crontab).wait_for_line(
            "ready", within=START_SECONDS
        )

    def start_server(self) -> str:
        """Start `stanch server`, on the same data as before if there was one; its ready line."""
        if not self.server_place.data.exists():
            self.server_place.write_password()
        log = f"server-{sum(name.startswith('server') for name in self._programs)}.log"
        server = self.lab.start(self.lab.server, self.server_place.argv, log=log)
        self._programs[log.removesuffix(".log")] = self._programs["server"] = server
        return server.wait_for_line("ready", within=START_SECONDS)

    def ruleset(self) -> str:
        """What packet filter rules the endpoint's kernel has, by its own tool; empty for none."""
        return output_of(*self.lab.endpoint.enter, "nft", "list", "ruleset").strip()

    def reached(self, port: int, *addresses: str) -> tuple[str, ...]:
        """Those of the addresses to which the endpoint can open a TCP connection."""
        done = output_of(*self.lab.endpoint.enter, sys.executable, "-c", _DIAL, str(port), *addresses)
        return tuple(done.split())

    def kill_server(self) -> None:
        """End the server at once; it finds the same data when it is started again."""
        self._programs["server"].kill()

    @property
    def server_runs(self) -> bool:
        """Is there a server?"""
        return self._programs["server"].process.poll() is None

    def enrol(self, token: TokenCreated) -> str:
        """`stanch agent enroll` on the endpoint; what it said."""
        argv = (*STANCH, *enrol_command(token, state=AGENT_PLACES["STANCH_AGENT_STATE"]))
        enrolling = self.lab.start(self.lab.endpoint, argv, log="enroll.log", env=AGENT_PLACES)
        if enrolling.process.wait(START_SECONDS) != 0:
            raise StanchError("The enrolment failed", got=enrolling.said()[-1000:])
        return enrolling.said().strip()

    def start_agent(self) -> None:
        """`stanch agent run` on the endpoint: the supervisor, and the agent below it."""
        self._programs["agent"] = self.lab.start(
            self.lab.endpoint, (*STANCH, "agent", "run"), log="agent.log", env=AGENT_PLACES
        )

    @property
    def links(self) -> int:
        """How often an agent has said that it reached its server: when to look, and no evidence of anything."""
        agent = self._programs.get("agent")
        return 0 if agent is None else agent.said().count('"event": "link-up"')

    def kill_agent(self) -> tuple[int, ...]:
        """End the supervisor and the agent by SIGKILL, from another process there; their pids on the endpoint."""
        endpoint = self.lab.endpoint
        pids = tuple(pid for module in AGENT_MODULES for pid in endpoint.running(module))
        # The supervisor first: it cannot start another agent.
        done = endpoint.run("sh", "-c", 'for pid; do kill -9 "$pid" || :; done', "sh", *map(str, pids))
        gone = wait_until(lambda: not any(map(endpoint.alive, pids)), within=START_SECONDS)
        if not (pids and gone):
            raise Unavailable("The agent cannot be killed", got=f"pids {pids}: {done.complained}")
        return pids

    def user(self) -> Responder:
        """Somebody at the endpoint, without root's rights."""
        enter = (*self.lab.endpoint.enter, *lowered(USER_ID))
        return Responder(enter, Path("/home"), places=AGENT_PLACES)

    def _module(self, name: str, place: Place | Endpoint, *arguments: str) -> Program:
        argv = (sys.executable, "-m", f"stanch.demo.{name}", *arguments)
        program = self.lab.start(place, argv, log=f"{name}.log")
        self._programs[name] = program
        return program
