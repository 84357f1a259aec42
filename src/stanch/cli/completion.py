"""`stanch completion`: the script that makes a shell complete commands, options and host names."""

import click
from click.shell_completion import get_completion_class

from stanch.cli.command import Command

VARIABLE = "_STANCH_COMPLETE"


@click.command(
    cls=Command,
    examples=(
        "completion bash > /etc/bash_completion.d/stanch",
        'completion zsh > "${fpath[1]}/_stanch"',
        "completion fish > ~/.config/fish/completions/stanch.fish",
    ),
)
@click.argument("program", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, program: str) -> None:
    """Print the completion script of your shell."""
    kind = get_completion_class(program)
    if kind is None:
        raise click.UsageError(f"There is no completion for {program}")
    script = kind(ctx.find_root().command, {}, "stanch", VARIABLE)
    # Not `source()`: it starts the shell to ask for its version, and any that is in use today is new enough.
    click.echo(script.source_template % script.source_vars())
