"""`stanch login`, `logout`, `whoami`."""

import sys
from pathlib import Path
from typing import TextIO

import click

from stanch.cli.command import Command, json_option
from stanch.cli.connect import connected
from stanch.cli.render import Note, fields, show
from stanch.cli.screen import print_json, show_blocks
from stanch.client.api import Client, fetch_ca
from stanch.client.session import SavedSession, default_path, known, save
from stanch.client.trust import normal_url
from stanch.core.errors import Invalid, NotAuthenticated, StanchError
from stanch.core.policy import Origin

MAX_PASSWORD_FILE = 10_000


@click.command(
    cls=Command,
    examples=(
        "login https://server:8443 --ca-pin 5f1d…c0",
        "login server:8443 --name alice                      (the CA is known from the last time)",
        "login server:8443 --ca-pin 5f1d…c0 --password-file -  < password",
    ),
)
@click.argument("url")
@click.option("--ca-pin", metavar="SHA256", help="SHA-256 of the server's CA, as its first start printed it.")
@click.option("--name", default="admin", show_default=True, help="Account.")
@click.option("--password-file", type=click.File("r"), metavar="FILE", help="Read the password there; - for input.")
@json_option
def login(*, url: str, ca_pin: str | None, name: str, password_file: TextIO | None, as_json: bool) -> None:
    """Sign in to a server.

    The pin names the server's CA: whoever answers with another one is not your server, and is not asked for
    anything. The session is kept in ~/.config/stanch/session.json, readable by you only.
    """
    place, address = default_path(), normal_url(url)
    ca = fetch_ca(address, ca_pin) if ca_pin else _known_ca(place, address)
    password = _password(password_file)
    with Client(address, ca=ca, origin=Origin.CLI) as client:
        session = client.login(name, password)
    save(place, SavedSession(url=address, ca=ca, token=session.token, name=session.name))
    if as_json:
        print_json(session.model_dump(mode="json", exclude={"token"}) | {"url": address})
    else:
        show_blocks([Note(f"Signed in to {address} as {show(session.name)}, until {show(session.expires)}.")])


def _known_ca(place: Path, address: str) -> str:
    """The CA of the last sign-in at the same address."""
    last = known(place)
    if last is None or last.url != address:
        raise Invalid(
            "This server is not known yet",
            got=address,
            expected="--ca-pin SHA256",
            hint="The server's first start printed the pin.",
        )
    return last.ca


def _password(file: TextIO | None) -> str:
    if file is not None:
        return next(iter(file.read(MAX_PASSWORD_FILE).splitlines()), "")
    if not sys.stdin.isatty():
        raise Invalid("There is nobody to ask for the password", expected="--password-file FILE, or - for input")
    answer: str = click.prompt("Password", hide_input=True, err=True)
    return answer


@click.command(cls=Command, examples=("logout",))
@json_option
def logout(*, as_json: bool) -> None:
    """Sign out: end the session on the server, and forget its token here. The server stays known."""
    place = default_path()
    session = known(place)
    if session is None or not session.token:
        raise NotAuthenticated("Nobody is signed in here")
    ended = _end(session)
    save(place, session.model_copy(update={"token": ""}))
    if as_json:
        print_json({"url": session.url, "ended": ended})
    else:
        there = "" if ended else " The server did not answer: its session ends by itself."
        show_blocks([Note(f"Signed out of {session.url}.{there}")])


def _end(session: SavedSession) -> bool:
    """Tell the server; whatever it says, or if it is gone, nobody stays signed in here."""
    try:
        with Client.of(session, origin=Origin.CLI) as client:
            client.logout()
    except StanchError:
        return False
    return True


@click.command(cls=Command, examples=("whoami", "whoami --json"))
@json_option
def whoami(*, as_json: bool) -> None:
    """Show who you are, and what you may do."""
    with connected() as client:
        me = client.whoami()
    if as_json:
        print_json(me)
    else:
        show_blocks([fields(name=me.name, roles=me.roles, may=me.permissions, may_order_up_to=me.up_to)])
