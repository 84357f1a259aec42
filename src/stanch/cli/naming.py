"""What the shell offers when a name is being typed: asked of the server, quickly or not at all."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

MOST = 50
PATIENCE = 1.0
"""Seconds that a person waits for the shell."""


def endpoint_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Host names that begin so; none when nobody is signed in or the server does not answer."""
    from itertools import islice

    from click.shell_completion import CompletionItem

    from stanch.cli.connect import connected
    from stanch.cli.plain import plain
    from stanch.core.errors import StanchError

    try:
        with connected(patience=PATIENCE) as client:
            found = list(islice(client.endpoints(search=incomplete), MOST))
    except (StanchError, OSError):
        return []
    # A name that a shell could misread is not offered.
    names = (one.hostname for one in found if one.hostname == plain(one.hostname) and _harmless(one.hostname))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _harmless(name: str) -> bool:
    return all(character.isalnum() or character in "-._" for character in name)
