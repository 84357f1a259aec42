"""`stanch policy show|edit`."""

import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import click

from stanch.cli import policy_text
from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.naming import endpoint_names, group_names
from stanch.cli.plain import plain
from stanch.cli.render import Note, show
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import Cancelled, Invalid, StanchError, Unavailable
from stanch.core.rest import EffectivePolicy, PolicyChange, PolicyView
from stanch.core.settings import NewSettings
from stanch.disk.atomic import atomic_write

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Wanted(NamedTuple):
    """A policy that somebody wants, and the text that they wrote in an editor."""

    settings: NewSettings
    text: str | None


@click.group(cls=Group, examples=("policy show web", "policy edit web"))
def policy() -> None:
    """Show and change what the endpoints of a group follow.

    A policy is live: endpoints follow it as long as they belong to the group, and are told of a change at once.
    """


@policy.command("show", examples=("policy show web", "policy show web > web.toml", "policy show --endpoint web-01"))
@click.argument("group", metavar="[GROUP]", required=False, shell_complete=group_names)
@click.option("--endpoint", metavar="ENDPOINT", shell_complete=endpoint_names, help="What this one follows, and why.")
@json_option
def show_policy(*, group: str | None, endpoint: str | None, as_json: bool) -> None:
    """Show the policy of a group, or what one endpoint follows by all its groups together."""
    if (group is None) == (endpoint is None):
        raise Invalid(
            "It is not clear whose policy to show",
            expected="GROUP or --endpoint ENDPOINT",
            hint="`stanch groups` lists groups.",
        )
    with connected() as client:
        found = client.policy(group) if group is not None else client.effective_policy(endpoint or "")
    if as_json:
        print_json(found)
    else:
        show_blocks([Note(_effective(found) if isinstance(found, EffectivePolicy) else _of_group(found))])


def _of_group(found: PolicyView) -> str:
    sections = policy_text.sections_of(found.settings)
    about = [f"# {_title(found)}", *([] if sections else ["# It sets nothing."])]
    return "\n\n".join(["\n".join(about), *(policy_text.whole(name, given) for name, given in sections.items())])


def _effective(found: EffectivePolicy) -> str:
    sections = policy_text.sections_of(found.settings)
    groups = ", ".join(map(plain, found.groups)) or "none"
    about = [f"# What {plain(found.hostname)} follows. Its groups, the one that decides first: {groups}."]
    about += [] if sections else ["# None of them sets anything."]
    parts = (
        f"# decided by {plain(found.decided_by.get(name, '?'))}\n{policy_text.whole(name, given)}"
        for name, given in sections.items()
    )
    return "\n\n".join(["\n".join(about), *parts])


def _title(found: PolicyView) -> str:
    by = f", changed {show(found.changed)} by {plain(found.changed_by)}" if found.changed else ""
    return f"The policy of the group {plain(found.group)}, version {found.version}{by}."


# --- edit ------------------------------------------------------------------------------------------------------------


def _setting_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in policy_text.known_settings() if name.startswith(incomplete)]


@policy.command(
    examples=(
        "policy edit web",
        "policy edit web --set isolation.duration=2h --unset isolation.message",
        """policy edit web --set isolation.allow='["10.0.0.0/8", "out tcp any user backup"]'""",
        "policy edit web --file web.toml --dry-run",
        "policy edit web --unset isolation --yes",
    ),
)
@click.argument("group", metavar="GROUP", shell_complete=group_names)
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.SETTING=VALUE", shell_complete=_setting_names,
    help="Set this one; several times. Lists as in TOML, or their one value; none for null.",
)  # fmt: skip
@click.option(
    "--unset", multiple=True, metavar="SECTION[.SETTING]", shell_complete=_setting_names,
    help="Give it its default, or leave the whole section to other groups; several times.",
)  # fmt: skip
@click.option("--file", type=click.File("rb"), metavar="FILE", help="The whole policy as TOML; - for standard input.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def edit(
    *,
    group: str,
    settings: tuple[str, ...],
    unset: tuple[str, ...],
    file: IO[bytes] | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Change the policy of a group, in your editor ($VISUAL, $EDITOR) or by options. Its endpoints follow at once."""
    if file is not None and (settings or unset):
        raise Invalid("A file is the whole policy", expected="--file, or --set and --unset")
    with connected() as client:
        present = client.policy(group)
    wanted = _wanted(present, settings, unset, file)
    try:
        saved = _save(present, wanted.settings, dry_run=dry_run, yes=yes, quiet=as_json)
    except StanchError:
        if wanted.text is not None:
            click.echo(f"Your text is kept: stanch policy edit {plain(group)} --file {_keep(wanted.text)}", err=True)
        raise
    if as_json:
        print_json(saved)


def _wanted(present: PolicyView, settings: tuple[str, ...], unset: tuple[str, ...], file: IO[bytes] | None) -> _Wanted:
    if file is not None:
        return _Wanted(policy_text.parsed(file.read(policy_text.MAX_BYTES + 1)), None)
    before = policy_text.sections_of(present.settings)
    if settings or unset:
        return _Wanted(policy_text.changed(before, settings, unset), None)
    if not sys.stdin.isatty():
        raise Invalid("There is no terminal for an editor", expected="--set, --unset or --file")
    return _edited(policy_text.explained(before, title=_title(present)))


def _edited(text: str) -> _Wanted:
    """What somebody makes of a text, asked again until it can be read; what was wrong with it when they give up."""
    wrong: StanchError | None = None
    while True:
        try:
            edited = click.edit(text, extension=".toml")
        except click.ClickException as error:
            raise _given_up(text, _no_editor(error), touched=wrong is not None) from None
        if edited is None and wrong is not None:
            raise _given_up(text, wrong, touched=True)
        text = text if edited is None else edited
        try:
            return _Wanted(policy_text.parsed(text), edited)
        except Invalid as error:
            wrong, text = error, policy_text.with_error(text, error)


def _given_up(text: str, why: StanchError, *, touched: bool) -> StanchError:
    if touched:
        click.echo(f"Your text is kept: {_keep(text)}", err=True)
    return why


def _no_editor(error: click.ClickException) -> StanchError:
    return Unavailable(
        "The editor did not work",
        got=error.format_message(),
        hint="Name another one in $EDITOR, or use --set, --unset or --file.",
    )


def _save(present: PolicyView, wanted: NewSettings, *, dry_run: bool, yes: bool, quiet: bool) -> PolicyView:
    """Show what changes, ask, and save it: the policy as it is then, or as it would be."""
    lines = policy_text.difference(policy_text.sections_of(present.settings), policy_text.sections_of(wanted))
    if not lines:
        click.echo("Nothing changes.", err=quiet)
        return present
    click.echo("\n".join(lines), err=quiet)
    if dry_run:
        return present.model_copy(update={"settings": wanted})
    if not yes and sys.stdin.isatty() and not click.confirm(f"Save the policy of {plain(present.group)}?", err=True):
        raise Cancelled("Nothing was saved", hint="Answer yes, or give --yes.")
    with connected() as client:
        saved = client.change_policy(present.group, PolicyChange(settings=wanted, based_on=present.version))
    click.echo(f"Saved as version {saved.version}. Connected endpoints are told now, others when they come.", err=quiet)
    return saved


def _keep(text: str) -> Path:
    """Somebody's work must not be lost: in a new folder that only they can read."""
    path = Path(tempfile.mkdtemp(prefix="stanch-policy-")) / "policy.toml"
    atomic_write(path, text.encode())
    return path
