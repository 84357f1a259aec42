"""What a failed command prints, and the number it ends with."""

import os
import sys
import traceback
from collections.abc import Sequence

import click

from stanch.cli.plain import json_text, plain
from stanch.core.errors import Cancelled, Denied, Invalid, StanchError, Unavailable

INTERRUPTED = 130
DEBUG = "STANCH_DEBUG"
"""Set it to see where an unexpected error comes from."""


def report(error: BaseException, arguments: Sequence[str]) -> int:
    """Tell people on standard error, programs on standard output; the exit code."""
    if isinstance(error, (KeyboardInterrupt, EOFError, click.Abort)):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return error.exit_code
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    known = as_known(error)
    if wants_json(arguments):
        click.echo(json_text({"error": known.body().model_dump(mode="json")}))
    else:
        _tell(known)
    return known.exit_code


def wants_json(arguments: Sequence[str]) -> bool:
    """Was `--json` given? Asked of the raw line, since a line that is wrong was never parsed."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


def as_known(error: BaseException) -> StanchError:
    """The error of our tree that this is."""
    if isinstance(error, StanchError):
        return error
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, PermissionError):
        return Denied("This user may not do that on this machine", got=error, hint="Try again as root: sudo stanch ...")
    if isinstance(error, OSError):
        return Unavailable(
            "This machine could not do it", got=error, hint="Look at the file, the rights or the space it names."
        )
    return StanchError(
        "Something unexpected happened",
        got=f"{type(error).__name__}: {error}",
        hint=f"Please report it, with the output of the same command under {DEBUG}=1.",
    )


def _of_click(error: click.ClickException) -> StanchError:
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "stanch"
    return Invalid(error.format_message().rstrip("."), hint=f"`{path} --help` shows how.")


def _tell(error: StanchError) -> None:
    sides = [
        f"got {error.got}" if error.got is not None else "",
        f"expected {error.expected}" if error.expected else "",
    ]
    facts = ", ".join(side for side in sides if side)
    click.echo(f"error[{error.code}]: {plain(error.message)}{f' ({plain(facts)})' if facts else ''}", err=True)
    if error.hint:
        click.echo(f"hint: {plain(error.hint)}", err=True)
    sys.stderr.flush()


def cancelled(what: str, hint: str) -> Cancelled:
    """A person said no."""
    return Cancelled(what, hint=hint)
