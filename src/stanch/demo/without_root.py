"""What the demo can show without root: a server and an agent on loopback, and the two actions that only read."""

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stanch.core.errors import StanchError, Unavailable
from stanch.core.rest import EndpointView, TokenCreated
from stanch.core.rest_evidence import EvidenceView
from stanch.demo.ending import undisturbed
from stanch.demo.program import Program, wait_until
from stanch.demo.report import Report, Step, expect
from stanch.demo.responder import STANCH, Responder
from stanch.demo.stage import START_SECONDS, ServerPlace, enrol_command, pin_in, sign_in, url_in

LEFT_OUT = "isolation, ending a process tree, the outage, and every check from outside the agent"
FILE_BYTES = 1_048_576


class SmallStory:
    """Server, agent and responder, all of one user, in one folder."""

    def __init__(self, folder: Path, stack: ExitStack, report: Report) -> None:
        self._folder, self._stack, self._report = folder, stack, report
        self.server_place = ServerPlace(
            data=folder / "server",
            api="127.0.0.1:0",
            gateway="127.0.0.1:0",
            names=("127.0.0.1",),
            password=secrets.token_urlsafe(12),
        )
        self.responder = Responder((), folder)
        self._endpoint = ""

    def tell(self) -> bool:
        """Run the steps; did every check hold?"""
        chapters = {
            "server-first-start": self.server_first_start,
            "enrol": self.enrol,
            "look": self.look,
            "get-file": self.get_file,
        }
        for name, do in chapters.items():
            if not self._report.run(name, do):
                break
        return self._report.all_held

    def server_first_start(self) -> str:
        """A new server makes its keys and its administrator, and lets them in."""
        self.server_place.write_password()
        server = self._start("server", *self.server_place.argv[len(STANCH) :])
        url = url_in(server.wait_for_line("ready", within=START_SECONDS), "api")
        pin = pin_in(server.said())
        who = sign_in(self.responder, url=url, pin=pin, password=self.server_place.password)
        return f"{url} answers under the pinned CA {pin[:12]}…; signed in as {who}"

    def enrol(self) -> str:
        """This machine enrols, and its agent comes online."""
        token = self.responder.one(TokenCreated, "token", "create")
        enrolling = self._start("enroll", *enrol_command(token, state=str(self._folder / "agent")))
        if enrolling.process.wait(START_SECONDS) != 0:
            raise StanchError("The enrolment failed", got=enrolling.said()[-1000:])
        agent = self._start("agent", "agent", "run")
        if not wait_until(self._online, within=START_SECONDS):
            raise Unavailable("The agent does not come online", got=agent.said()[-1000:])
        return f"this machine is {self._endpoint}, and online"

    def look(self) -> str:
        """The process list shows us."""
        task = self.responder.order("list-processes", self._endpoint)
        pids = {row["pid"] for row in (task.result or {}).get("processes", ())}
        expect(os.getpid() in pids, "This program is not in the process list", got=sorted(pids)[-10:])
        return f"{len(pids)} processes, this program (pid {os.getpid()}) among them"

    def get_file(self) -> str:
        """A file arrives as it is."""
        content = secrets.token_bytes(FILE_BYTES)
        original, copy = self._folder / "report.bin", self._folder / "fetched.bin"
        original.write_bytes(content)
        task = self.responder.order("get-file", self._endpoint, "--path", str(original))
        (found,) = self.responder.listed(EvidenceView, "evidence", "list", "--task", task.id)
        self.responder.stanch("evidence", "get", found.id, "--output", str(copy))
        expected, got = hashlib.sha256(content).hexdigest(), hashlib.sha256(copy.read_bytes()).hexdigest()
        expect(got == expected, "The file is another one", got=got, expected=expected)
        return f"{len(content)} bytes, SHA-256 {got[:16]}… as expected"

    def how_to_use(self) -> tuple[str, ...]:
        """Lines for someone who wants to look around."""
        session = f"STANCH_SESSION={self.responder.home / 'session.json'}"
        return (
            f"Everything stays until you press Ctrl-C here (or: kill {os.getpid()}).",
            f"order      {session} {' '.join(STANCH)} list-processes {self._endpoint} --wait",
            f"account    admin / {self.server_place.password}",
            f"logs       {self._folder}",
        )

    def _online(self) -> bool:
        try:
            found = self.responder.listed(EndpointView, "endpoints")
        except StanchError:
            return False
        self._endpoint = found[0].id if found else ""
        return bool(found) and found[0].online

    def _places(self) -> Mapping[str, str]:
        return {
            "STANCH_AGENT_CONFIG": str(self._folder / "agent.toml"),
            "STANCH_AGENT_STATE": str(self._folder / "agent"),
            "STANCH_AGENT_SOCKET": str(self._folder / "agent.sock"),
        }

    def _start(self, name: str, *arguments: str) -> Program:
        env = {**self.responder.environment, **self._places()}
        with undisturbed():
            program = Program.start((*STANCH, *arguments), log=self._folder / f"{name}.log", env=env)
            return self._stack.enter_context(program)


@contextmanager
def small_stage(report: Report) -> Iterator[SmallStory]:
    """A folder and programs that are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="stanch-demo-") as folder, ExitStack() as stack:
        yield SmallStory(Path(folder), stack, report)


def tell_what_is_left_out(report: Report, reason: str) -> None:
    """Name what was not shown, and why."""
    report.tell(Step("left-out", ok=True, ms=0, evidence=f"{LEFT_OUT}: {reason}"))
