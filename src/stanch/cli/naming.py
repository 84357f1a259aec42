"""What the shell offers when a name is being typed: asked of the server, quickly or not at all."""

from itertools import islice
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from click.shell_completion import CompletionItem

    from stanch.client.api import Client

MOST = 50
PATIENCE = 1.0
"""Seconds that a person waits for the shell."""


def endpoint_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Host names that begin so; none when nobody is signed in or the server does not answer."""
    return _offered(
        lambda client: (one.hostname for one in islice(client.endpoints(search=incomplete), MOST)), incomplete
    )


def group_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Names of groups that begin so; none when nobody is signed in or the server does not answer."""
    return _offered(lambda client: (one.name for one in client.groups()), incomplete)


def content_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Names of content that begin so; none when nobody is signed in or the server does not answer."""
    return _offered(lambda client: (one.name for one in client.content()), incomplete)


def _offered(names: "Callable[[Client], Iterable[str]]", incomplete: str) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    from stanch.cli.connect import connected
    from stanch.cli.plain import plain
    from stanch.core.errors import StanchError

    try:
        with connected(patience=PATIENCE) as client:
            found = [one for one in names(client) if one.startswith(incomplete)][:MOST]
    except (StanchError, OSError):
        return []
    # A name that a shell could misread is not offered.
    return [CompletionItem(name) for name in found if name == plain(name) and _harmless(name)]


def _harmless(name: str) -> bool:
    return all(character.isalnum() or character in "-._" for character in name)
