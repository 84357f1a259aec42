"""The server is killed between commit and acknowledgement: the report comes again, and nothing is counted twice."""

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stanch.core.task import State
from stanch.demo.program import Program, wait_until
from stanch.demo.stage import pin_in
from tests.integration.stack import Api, live_agent, signed_in, until

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def free_port() -> int:
    """A port that a restarted server can have again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerProcess:
    """A server in a process of its own, that can be killed and started again at the same place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = folder / "password"
        self.password.write_text("correct horse battery staple")
        self.api, self.gateway = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"

    def start(self, program: Path | str, *, log: str, more: tuple[str, ...] = ()) -> Program:
        """Start it, as the dying one or as it is."""
        places = (str(self.folder / "server"), self.api, self.gateway, str(self.password))
        if isinstance(program, Path):
            argv = (sys.executable, str(program), *places, *more)
        else:
            options = ("--data", "--api-listen", "--gateway-listen", "--admin-password-file")
            pairs = (word for pair in zip(options, places, strict=True) for word in pair)
            argv = (sys.executable, "-m", program, "server", *pairs, "--name", "127.0.0.1")
        started = Program.start(argv, log=self.folder / log)
        started.wait_for_line("ready", within=30)
        return started

    @asynccontextmanager
    async def people(self, pin: str) -> AsyncIterator[Api]:
        """The administrator's view of it."""
        ca = (self.folder / "server" / "ca.pem").read_text()
        with await signed_in(f"https://{self.api}", ca, self.password.read_text()) as client:
            yield Api(client=client, gateway_url=f"https://{self.gateway}", pin=pin)


async def test_a_report_survives_the_servers_death_before_the_acknowledgement(tmp_path: Path):
    """Committed, never acknowledged, killed: after the restart the task is done once, and later orders run."""
    place = ServerProcess(tmp_path)
    with place.start(HERE / "dying_server.py", log="first.log") as dying:
        pin = pin_in(dying.said())
        async with place.people(pin) as api, live_agent(api, tmp_path) as agent:
            order = await api.submit("list_processes", agent.endpoint, {"match": "nobody"})
            assert await until(lambda: wait_until(lambda: dying.process.poll() is not None, within=0.1))
            assert dying.process.returncode == -signal.SIGKILL
            with place.start("stanch.cli.main", log="second.log"):
                async with place.people(pin) as again:
                    await again.online(agent.endpoint)
                    task = await again.finished(order)
                    assert task.state is State.DONE
                    later = await again.run("list_processes", agent.endpoint, {"match": "nobody"})
                    assert later.changed > task.changed
