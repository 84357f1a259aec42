"""`stanch uploads list|delete`."""

from itertools import islice

import click

from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.plain import plain
from stanch.cli.render import Note, human_size, table
from stanch.cli.screen import print_json, show_blocks


@click.group(cls=Group, examples=("uploads list", "uploads delete UPLOAD"))
def uploads() -> None:
    """List and delete files on the server that orders have put, or may put, on endpoints.

    A file is uploaded by the order that puts it somewhere, and kept for some time after the last order that named it.
    """


@uploads.command("list", examples=("uploads list", "uploads list --mine --json"))
@click.option("--mine", is_flag=True, help="Only what you have uploaded.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@json_option
def list_uploads(*, mine: bool, limit: int, as_json: bool) -> None:
    """List uploads, the newest first."""
    with connected() as client:
        found = list(islice(client.uploads(mine=mine), limit))
    if as_json:
        print_json(found)
        return
    rows = ((one.id, one.name, human_size(one.size), one.by, one.orders, one.used) for one in found)
    show_blocks([table(("upload", "name", "size", "by", "orders", "last used"), rows)])


@uploads.command(examples=("uploads delete UPLOAD",))
@click.argument("key", metavar="UPLOAD")
@json_option
def delete(*, key: str, as_json: bool) -> None:
    """Delete an upload from the server, for good. What was put on endpoints stays there."""
    with connected() as client:
        client.delete_upload(key)
    if as_json:
        print_json({"upload": key, "deleted": True})
    else:
        show_blocks([Note(f"Upload {plain(key)} is deleted.")])
