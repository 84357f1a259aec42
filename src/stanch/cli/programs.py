"""`stanch server`, `agent`, `demo`: start the other parts of Stanch, each imported only when it is started."""

import asyncio
import inspect
import os
import sys
from pathlib import Path
from typing import Any

import click

from stanch.cli.command import Command, Group, json_option
from stanch.cli.places import (
    CONFIG_VARIABLE,
    SOCKET_VARIABLE,
    STATE,
    STATE_VARIABLE,
    config_option,
    socket_option,
    state_option,
)
from stanch.cli.selftest import selftest
from stanch.cli.service import service
from stanch.cli.support_bundle import support_bundle
from stanch.cli.uninstall import uninstall
from stanch.core.errors import Invalid

MAX_TOKEN_FILE = 1000

_folder = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)


def completed(value: Any) -> Any:
    """The value of an entry function, which may be a coroutine."""
    return asyncio.run(value) if inspect.iscoroutine(value) else value


@click.command(
    cls=Command,
    examples=(
        "server --data ./data",
        "server --name stanch.example.org --name 10.0.0.2 --api-listen 0.0.0.0:8443",
    ),
)
@click.option(
    "--data", type=_folder, default=Path("/var/lib/stanch/server"), show_default=True, help="Where it keeps everything."
)
@click.option(
    "--api-listen", default="127.0.0.1:8443", show_default=True, metavar="HOST:PORT", help="For people and programs."
)
@click.option("--gateway-listen", default="0.0.0.0:8444", show_default=True, metavar="HOST:PORT", help="For agents.")
@click.option(
    "--name", "names", multiple=True, metavar="HOST", help="A name or address by which it is reached; several times."
)
@click.option(
    "--admin-password-file", type=_file, metavar="FILE", help="First line: the administrator's first password."
)
@click.option(
    "--evidence-days",
    type=click.IntRange(0, 36_500),
    metavar="DAYS",
    help="Delete evidence that is so old.  [default: keep it for ever]",
)
@click.option(
    "--max-upload", type=click.IntRange(0), default=2**30, metavar="BYTES", help="Of one upload.  [default: 1 GiB]"
)
@click.option(
    "--upload-days",
    type=click.IntRange(1, 36_500),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Delete uploads that no order has named for so long.",
)
def server(
    *,
    data: Path,
    api_listen: str,
    gateway_listen: str,
    names: tuple[str, ...],
    admin_password_file: Path | None,
    evidence_days: int | None,
    max_upload: int,
    upload_days: int,
) -> None:
    """Run the server.

    The first start makes the CA, the signing key and the administrator, and prints the pin and the password.
    """
    from stanch.server.main import serve
    from stanch.server.settings import Settings

    settings = Settings(
        data=data,
        api_listen=api_listen,
        gateway_listen=gateway_listen,
        names=names,
        admin_password_file=admin_password_file,
        evidence_days=evidence_days,
        max_upload=max_upload,
        upload_days=upload_days,
    )
    serve(settings)


@click.group(
    cls=Group, examples=("agent enroll --server https://server:8444 --token-file t --ca-pin 5f1d…c0", "agent run")
)
def agent() -> None:
    """Enrol this machine as an endpoint; run its agent."""


for _command in (service, selftest, support_bundle, uninstall):
    agent.add_command(_command)


@agent.command(
    examples=(
        "agent enroll --server https://server:8444 --token-file token.txt --ca-pin 5f1d…c0",
        "agent enroll --server https://server:8444 --token T --ca-pin 5f1d…c0 --state /var/lib/stanch/agent",
    )
)
@click.option("--server", "url", required=True, metavar="URL", help="The server's address for agents.")
@click.option("--token", metavar="TOKEN", help="The enrolment token; other users of this machine may see it meanwhile.")
@click.option("--token-file", type=click.File("r"), metavar="FILE", help="Read the token there; - for standard input.")
@click.option("--ca-pin", required=True, metavar="SHA256", help="SHA-256 of the server's CA.")
@state_option
@click.option("--proxy", metavar="URL", help="HTTP proxy on the way there; the agent keeps it, its password too.")
@click.option("--again", is_flag=True, help="Replace an identity that is here already, and begin a new journal.")
@json_option
def enroll(
    *,
    url: str,
    token: str | None,
    token_file: Any,
    ca_pin: str,
    state: Path,
    proxy: str | None,
    again: bool,
    as_json: bool,
) -> None:
    """Enrol this machine as an endpoint, with a token from `stanch token create`."""
    from stanch.agent.enroll import enroll as enter
    from stanch.cli.render import Note, show
    from stanch.cli.screen import print_json, show_blocks

    secret = _token(token, token_file)
    identity = completed(enter(server=url, token=secret, ca_pin=ca_pin, state=state, proxy=proxy, again=again))
    if as_json:
        print_json({"endpoint": identity.endpoint, "state": str(state)})
    else:
        run_it = "stanch agent run" if state == STATE else f"stanch agent run --state {state}"
        show_blocks([Note(f"Enrolled as {show(identity.endpoint)}. Start the agent: {run_it}")])


def _token(token: str | None, file: Any) -> str:
    if (token is None) == (file is None):
        raise Invalid("One token is needed", expected="--token TOKEN or --token-file FILE, not both")
    return token if token is not None else next(iter(file.read(MAX_TOKEN_FILE).split()), "")


@agent.command(examples=("agent run", "agent run --state ./state --socket ./agent.sock --config ./agent.toml"))
@config_option
@state_option
@socket_option
def run(*, config: Path, state: Path, socket: Path) -> None:
    """Run the agent under its supervisor, in this process's place."""
    places = {CONFIG_VARIABLE: config, STATE_VARIABLE: state, SOCKET_VARIABLE: socket}
    environment = {**os.environ, **{name: os.fspath(path.absolute()) for name, path in places.items()}}
    # -I: neither the folder in which root happens to stand nor PYTHONPATH may lend its modules to a root daemon.
    line = [sys.executable, "-I", "-m", "stanch.agent.supervisor"]
    os.execve(sys.executable, line, environment)  # noqa: S606 - our own interpreter, no shell


@click.command(cls=Command, examples=("demo", "demo --json", "demo --keep"))
@json_option
@click.option("--keep", is_flag=True, help="Leave it running, and say how to use it.")
def demo(*, as_json: bool, keep: bool) -> int:
    """Watch an attack being stopped: a server, an endpoint and an outside world in namespaces of this machine."""
    from stanch.demo.main import run as play

    return completed(play(json=as_json, keep=keep)) or 0
