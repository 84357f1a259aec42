"""`stanch`: the way in. Commands are imported when they are used, so that `stanch --help` answers at once."""

import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from stanch import __version__
from stanch.cli.command import WIDTH, Group, from_module, sections
from stanch.cli.outline import outlines

_OWN: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Orders and what came of them": {
        "actions": ("stanch.cli.fleet:actions", "List what can be ordered."),
        "orders": ("stanch.cli.orders:orders", "List orders."),
        "order": ("stanch.cli.orders:order", "Show, follow, cancel or take back one order."),
        "terminal": ("stanch.cli.terminal:terminal", "Join a terminal of an endpoint again."),
        "evidence": ("stanch.cli.evidence:evidence", "List, look into, fetch, verify and delete evidence."),
        "uploads": ("stanch.cli.uploads:uploads", "List and delete files that orders put on endpoints."),
        "detections": ("stanch.cli.detections:detections", "List what somebody should look at."),
        "audit": ("stanch.cli.audit:audit", "List who did what; verify that nobody changed it."),
    },
    "Endpoints": {
        "endpoints": ("stanch.cli.fleet:endpoints", "List and search endpoints."),
        "endpoint": ("stanch.cli.fleet:endpoint", "Show, label or revoke one endpoint."),
        "groups": ("stanch.cli.groups:groups", "List, make and change groups of endpoints."),
        "policy": ("stanch.cli.policy:policy", "Show and change what the endpoints of a group follow."),
        "content": ("stanch.cli.content:content", "Bring rules and indicators to the server, publish them."),
        "release-code": ("stanch.cli.release_code:release_code", "Show the code that lifts an isolation on the spot."),
        "token": ("stanch.cli.tokens:token", "Make and withdraw enrolment tokens."),
    },
    "Rules and indicators": {
        "ioc": ("stanch.cli.ioc:ioc", "Explain indicators of compromise; look for them on this machine."),
        "yara": ("stanch.cli.yara:yara", "Look for YARA rules on this machine."),
    },
    "Server": {
        "addresses": ("stanch.cli.addresses:addresses", "Show or announce where agents reach the server."),
    },
    "Yourself": {
        "login": ("stanch.cli.account:login", "Sign in to a server."),
        "logout": ("stanch.cli.account:logout", "Sign out."),
        "whoami": ("stanch.cli.account:whoami", "Show who you are, and what you may do."),
        "completion": ("stanch.cli.completion:completion", "Print the completion script of your shell."),
    },
    "Programs": {
        "server": ("stanch.cli.programs:server", "Run the server."),
        "agent": ("stanch.cli.programs:agent", "Enrol this machine as an endpoint; run its agent."),
        "local": ("stanch.cli.local.commands:local", "On an endpoint itself, as root."),
        "demo": ("stanch.cli.programs:demo", "Watch an attack being stopped, on this machine."),
    },
}
"""Heading to command to where it is and what it does. Actions are not listed: they come from the registry."""

_PLACES: Final = {name: place for commands in _OWN.values() for name, (place, _) in commands.items()}


class Root(Group):
    """All commands: our own, and one for each action."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Every name, without importing anything."""
        return [*outlines(), *_PLACES]

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none."""
        if cmd_name in _PLACES:
            return from_module(_PLACES[cmd_name])
        from stanch.cli.ordering import command_named

        return command_named(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; what is mistyped is answered with what is close to it."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=self.list_commands(ctx), ctx=ctx
            ) from None

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Actions first: they are why one is here in a hurry."""
        own = {heading: {name: what for name, (_, what) in some.items()} for heading, some in _OWN.items()}
        sections({"Actions": outlines(), **own}, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Names that begin so; the ordinary way would import every command for its help."""
        from click.shell_completion import CompletionItem

        help_of = {**outlines(), **{name: what for some in _OWN.values() for name, (_, what) in some.items()}}
        found = [CompletionItem(name, help=what) for name, what in help_of.items() if name.startswith(incomplete)]
        return found or click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    examples=("login https://server:8443 --ca-pin SHA256", "endpoints --search 10.0.0.5", "completion bash"),
)
@click.version_option(__version__, prog_name="stanch", message="%(prog)s %(version)s")
def root() -> None:
    """Stop attacks on Linux fleets: order actions on endpoints, and see what came of them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = root.main(arguments, prog_name="stanch", standalone_mode=False)
        _is_over(alone=argv is None)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last place that can tell people anything
        _is_over(alone=argv is None)
        from stanch.cli.failure import report

        return report(error, arguments)
    return code if isinstance(code, int) else 0


def _is_over(*, alone: bool) -> None:
    """It ends with the code that it has by now: who presses Ctrl-C in that moment shall not get another, or a trace."""
    if alone:  # else the process, and what interrupts it, is somebody else's
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
