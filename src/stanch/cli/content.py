"""`stanch content`: bring rules and indicators to the server, look at them, publish them, go back, delete."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import TypeAdapter, ValidationError

from stanch.cli.checking import checked
from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.naming import content_names, group_names
from stanch.cli.plain import plain
from stanch.cli.render import Block, Note, fields, human_size, table
from stanch.cli.screen import print_json, show_blocks, transfer_bar
from stanch.core.content import ContentKind, ContentName
from stanch.core.errors import Cancelled, Invalid, NotFound
from stanch.core.rest_content import (
    EVERY_ENDPOINT,
    ContentDetail,
    ContentRoom,
    ContentView,
    ForGroups,
    Lint,
    Prune,
    Pruned,
    Publication,
    Publish,
    VersionDetail,
    VersionView,
)

if TYPE_CHECKING:
    from stanch.client.api import Client
    from stanch.client.content import Gathered

SHOWN = 20
"""Problems that are shown after an import; `show` tells more."""

name_argument = click.argument("name", metavar="NAME", shell_complete=content_names)
version_argument = click.argument("version", metavar="VERSION", type=click.IntRange(1))
to_group = click.option(
    "--to-group", "groups", multiple=True, metavar="GROUP", shell_complete=group_names,
    help="Only for the endpoints of this group; several times.",
)  # fmt: skip
paths_argument = click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
kind_option = click.option(
    "--kind", type=click.Choice([one.value for one in ContentKind]), help="Only files that hold this."
)


@click.group(
    cls=Group,
    examples=("content import apt-rules rules/ --publish", "content list", "content rollback apt-rules"),
)
def content() -> None:
    """Bring rules and indicators to the server, and publish them to endpoints.

    Content is YARA rules, OpenIOC or STIX indicators, or lists of hashes, under a name. Every import makes a version;
    the one that is published is what endpoints fetch, try, and scan with. Of the groups of an endpoint for which a
    version is published, the one with the smallest rank decides.
    """


# --- import and check ------------------------------------------------------------------------------------------------


@content.command(
    "import",
    examples=(
        "content import apt-rules rules/ --note 'from the team'",
        "content import apt-rules rules/ --strict --publish",
        "content import campaign first.ioc second.ioc",
        "content import bad-hashes hashes.txt --kind hashes",
    ),
)
@click.argument("name", metavar="NAME", shell_complete=content_names)
@paths_argument
@kind_option
@click.option("--note", default="", metavar="TEXT", help="What people should know about this version.")
@click.option("--strict", is_flag=True, help="Refuse it if anything in it does not count.")
@click.option("--publish", "publish_it", is_flag=True, help="Make it the current version for every endpoint at once.")
@json_option
def import_content(
    *, name: str, paths: tuple[Path, ...], kind: str | None, note: str, strict: bool, publish_it: bool, as_json: bool
) -> None:
    """Bring files, and what is in folders, to the server as the newest version of content.

    What a file holds is told by its content. In folders, files with the usual endings are looked at (.yar, .yara,
    .rule, .ioc, .xml, .json, .txt, .csv, .hashes, ...). The server compiles and reads all of it, in a process that can
    do nothing else, and tells what does not count. The very same files again make no new version.
    """
    _refuse_odd_name(name)
    gathered = _gathered(paths, kind, quiet=as_json)
    with connected() as client:
        with transfer_bar(name) as progress:
            made = client.import_content(name, gathered, note=note, strict=strict, progress=progress)
        number = made.version.version
        published = client.publish_content(name, Publish(version=number)) if publish_it else None
    if as_json:
        print_json({**made.model_dump(mode="json"), "published": published is not None})
        return
    state = "new" if made.new else "there already, with the very same files: no new version"
    shown = [_version_fields(made.version, state=state), *_problems(made.version.lint, SHOWN)]
    show_blocks([*shown, Note(f"\n{_what_next(made.version, published=published is not None)}")])


def _refuse_odd_name(name: str) -> None:
    """Before files are read that nobody will keep."""
    try:
        TypeAdapter(ContentName).validate_python(name)
    except ValidationError:
        raise Invalid(
            "This is no name for content",
            got=plain(name, longest=100) or "an empty name",
            expected="small letters, digits, `.`, `_` and `-`, at most 64, the first a letter or digit",
            hint="stanch content import NAME PATH...: the name comes first.",
        ) from None


def _what_next(version: VersionDetail, *, published: bool) -> str:
    about = f"stanch content show {plain(version.content)} --version {version.version}"
    if published:
        return "It is published: connected endpoints are told now, others when they come."
    if not version.rules:
        return f"Nothing in it counts, so it cannot be published. All problems: {about}"
    return f"Publish it: stanch content publish {plain(version.content)} {version.version}"


@content.command(examples=("content check rules/", "content check first.ioc second.ioc --json"))
@paths_argument
@kind_option
@json_option
def check(*, paths: tuple[Path, ...], kind: str | None, as_json: bool) -> None:
    """Let the server compile and read files, and tell what does not count; nothing is kept. Status 1 for a problem."""
    gathered = _gathered(paths, kind, quiet=as_json)
    with connected() as client, transfer_bar("check") as progress:
        lint = client.check_content(gathered, progress=progress)
    wrong = sum(one.problems for one in lint.files)
    if as_json:
        print_json(lint)
    else:
        show_blocks([*_files(lint), *_problems(lint, None), *_unknown(lint)])
    if wrong or not lint.complete:
        click.get_current_context().exit(1)


def _gathered(paths: tuple[Path, ...], kind: str | None, *, quiet: bool) -> "Gathered":
    from stanch.client.content import gather

    gathered = gather(paths, None if kind is None else ContentKind(kind))
    if gathered.left_out and not quiet:
        some = ", ".join(plain(one, longest=100) for one in gathered.left_out[:5])
        more = ", ..." if len(gathered.left_out) > len(gathered.left_out[:5]) else ""
        click.echo(f"Left out, since they hold something else: {some}{more}", err=True)
    return gathered


# --- list and show ---------------------------------------------------------------------------------------------------


@content.command("list", examples=("content list", "content list --json"))
@json_option
def all_content(*, as_json: bool) -> None:
    """List content: which version is current for whom, and how many endpoints should have it or refused it."""
    with connected() as client:
        found = client.content()
        room = None if as_json else _room(client)
    if as_json:
        print_json(found)
        return
    columns = ("content", "kind", "versions", "newest", "published", "endpoints", "refused")
    shown: list[Block] = [table(columns, [_line(one) for one in found])]
    show_blocks([*shown, Note(f"\n{_room_line(room)}")] if room is not None else shown)


def _room(client: "Client") -> ContentRoom | None:
    """None of a server that is too old to tell."""
    try:
        return client.content_room()
    except NotFound:
        return None


def _room_line(room: ContentRoom) -> str:
    return (
        f"{human_size(room.bytes)} of at most {human_size(room.most_bytes)}, {room.names} of at most "
        f"{room.most_names} names, {room.versions} versions (at most {room.most_versions} of a name)."
    )


def _line(one: ContentView) -> Sequence[object]:
    published = ", ".join(_told(some) for some in one.published) or "no"
    return (one.name, one.kind, one.versions, one.newest, published, one.endpoints, one.refused)


def _told(one: Publication) -> str:
    return f"{one.version}" if one.group == EVERY_ENDPOINT else f"{one.version} for {one.group}"


@content.command(
    examples=("content show apt-rules", "content show apt-rules --version 3", "content show apt-rules --json")
)
@name_argument
@click.option("--version", type=click.IntRange(1), metavar="VERSION", help="What is in this one, and what is wrong.")
@json_option
def show(*, name: str, version: int | None, as_json: bool) -> None:
    """Show content with its versions and what was published; or the files and problems of one version."""
    with connected() as client:
        if version is not None:
            found = client.content_version(name, version)
            _show(found, [_version_fields(found), *_inside(found.lint)], as_json=as_json)
        else:
            about = client.find_content(name)
            _show(about, _detail(about), as_json=as_json)


def _show(found: ContentDetail | VersionDetail, shown: Sequence[Block], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        show_blocks(shown)


def _detail(found: ContentDetail) -> list[Block]:
    about = fields(
        content=found.name,
        kind=found.kind,
        published=", ".join(_told(one) for one in found.published) or "no version",
        endpoints=found.endpoints,
        refused=_refused(found),
        kept="until somebody deletes or prunes them: `stanch content prune` says which it would keep, and why",
    )
    rows = (
        (
            one.version,
            one.files,
            one.rules,
            one.problems,
            human_size(one.size),
            one.created,
            one.by,
            one.groups,
            one.note,
        )
        for one in found.every
    )
    columns = ("version", "files", "rules", "problems", "size", "imported", "by", "current for", "note")
    steps = (
        (one.at, one.group, one.version or "none", one.by, f"undone by {one.undone_by}" if one.undone else "")
        for one in found.history
    )
    shown: list[Block] = [about, table(columns, rows, title="versions")]
    if found.history:
        shown.append(table(("at", "group", "version", "by", ""), steps, title="published"))
    return shown


def _refused(one: ContentView) -> str:
    before = f" ({one.refused_before} more did before, and have loaded it since)" if one.refused_before else ""
    return f"{one.refused}{before}"


def _version_fields(one: VersionView, **more: str) -> Block:
    return fields(
        content=one.content,
        version=one.version,
        kind=one.kind,
        files=one.files,
        rules=one.rules,
        problems=one.problems,
        size=human_size(one.size),
        sha256=one.sha256,
        imported=f"{one.created:%Y-%m-%d %H:%M} by {one.by}",
        note=one.note,
        current_for=one.groups,
        **more,
    )


def _inside(lint: Lint) -> Iterator[Block]:
    yield from _files(lint)
    yield from _problems(lint, None)
    yield from _unknown(lint)


def _files(lint: Lint) -> Iterator[Block]:
    rows = ((one.name, one.rules, one.problems, human_size(one.size)) for one in lint.files)
    yield table(("file", "rules", "problems", "size"), rows, title="files")


def _problems(lint: Lint, most: int | None) -> Iterator[Block]:
    """What does not count; the first of it, if that is too much."""
    if not lint.complete:
        yield Note(f"\nNot all of it was looked at: {plain(lint.why_incomplete)}")
    if lint.problems:
        rows = (
            (f"{one.file}:{one.line}" if one.line else one.file, one.rule, one.text) for one in lint.problems[:most]
        )
        yield table(("where", "rule", "problem"), rows, title="problems")
    left = sum(one.problems for one in lint.files) - len(lint.problems[:most])
    if left > 0:
        yield Note(f"... and {left} more")


def _unknown(lint: Lint) -> Iterator[Block]:
    if lint.unknown:
        rows = ((one.term, one.times) for one in lint.unknown)
        yield table(("term", "times"), rows, title="terms that cannot be known on Linux")


# --- get back --------------------------------------------------------------------------------------------------------


@content.command(
    examples=(
        "content get apt-rules -o rules/",
        "content get apt-rules --version 3 -o rules-3",
        "content get bad-hashes -o hashes.txt --json",
    )
)
@name_argument
@click.option("--version", type=click.IntRange(1), metavar="VERSION", help="Which one; the newest if not given.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="PATH",
    help="A new file, if the version has one file, else a new folder. By default it is called as what is in it.",
)  # fmt: skip
@json_option
def get(*, name: str, version: int | None, output: Path | None, as_json: bool) -> None:
    """Bring the files of a version back, byte for byte as they were imported; their hashes are checked."""
    with connected() as client:
        number = version if version is not None else client.find_content(name).newest
        found = client.content_version(name, number or 1)
        into = output if output is not None else _called_as(found)
        with transfer_bar(name) as progress:
            files = client.fetch_content(found, into, progress=progress)
    if as_json:
        about = {"content": name, "version": found.version, "sha256": found.sha256}
        print_json({**about, "output": str(into), "files": list(files)})
    else:
        what = f"{plain(files[0])} is" if len(files) == 1 else f"{len(files)} files are"
        show_blocks([Note(f"Version {found.version} of {plain(name)}: {what} in {plain(str(into))}.")])


def _called_as(found: VersionDetail) -> Path:
    if len(found.lint.files) == 1:
        last = found.lint.files[0].name.rsplit("/", 1)[-1]
        if last not in {"", ".", ".."}:
            return Path(last)
    return Path(f"{found.content}-{found.version}")


# --- publish, go back, delete ----------------------------------------------------------------------------------------


@content.command(
    examples=("content publish apt-rules 3", "content publish apt-rules 4 --to-group web --to-group db"),
)
@name_argument
@version_argument
@to_group
@json_option
def publish(*, name: str, version: int, groups: tuple[str, ...], as_json: bool) -> None:
    """Make a version the current one, for every endpoint or for those of some groups. They are told at once."""
    wanted = checked(Publish, {"version": version, "groups": groups}, "It cannot be published so")
    with connected() as client:
        found = client.publish_content(name, wanted)
    _say(found, f"Version {version} of {plain(name)} is published.", as_json=as_json)


@content.command(examples=("content unpublish apt-rules", "content unpublish apt-rules --to-group web"))
@name_argument
@to_group
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def unpublish(*, name: str, groups: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Let no version be current, for any endpoint or for those of some groups: they remove it."""
    wanted = checked(ForGroups, {"groups": groups}, "It cannot be taken back so")
    whom = f"the endpoints of {', '.join(map(plain, groups))}" if groups else "all endpoints"
    _confirm(f"Take {plain(name)} back from {whom}?", yes=yes)
    with connected() as client:
        found = client.unpublish_content(name, wanted)
    _say(found, f"{plain(name)} is taken back.", as_json=as_json)


@content.command(examples=("content rollback apt-rules", "content rollback apt-rules --to-group web"))
@name_argument
@to_group
@json_option
def rollback(*, name: str, groups: tuple[str, ...], as_json: bool) -> None:
    """Let the version be current again that was so before. Once more goes back one step further."""
    wanted = checked(ForGroups, {"groups": groups}, "It cannot be rolled back so")
    with connected() as client:
        found = client.roll_back_content(name, wanted)
    _say(found, f"{plain(name)} is rolled back.", as_json=as_json)


def _say(found: ContentDetail, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    now = ", ".join(plain(_told(one)) for one in found.published) or "none"
    show_blocks([Note(f"{text} Current version: {now}, for {found.endpoints} endpoints.")])


@content.command(examples=("content delete apt-rules 2", "content delete apt-rules 2 --yes"))
@name_argument
@version_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(*, name: str, version: int, yes: bool, as_json: bool) -> None:
    """Delete a version from the server, for good; not the current one. Content without versions is gone."""
    _confirm(f"Delete version {version} of {plain(name)} for good?", yes=yes)
    with connected() as client:
        client.delete_content(name, version)
    if as_json:
        print_json({"content": name, "version": version, "deleted": True})
    else:
        show_blocks([Note(f"Version {version} of {plain(name)} is deleted.")])


@content.command(
    examples=(
        "content prune --dry-run",
        "content prune apt-rules --keep 5 --dry-run",
        "content prune apt-rules --keep 5 --yes",
    )
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=content_names)
@click.option(
    "--keep", type=click.IntRange(1, 500), default=10, show_default=True, help="Keep so many of the newest versions."
)
@click.option("--dry-run", is_flag=True, help="Only say which versions would be deleted, and why the others stay.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def prune(*, names: tuple[str, ...], keep: int, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete old versions from the server, for good; of all content if none is named.

    Besides the newest ones these stay: versions that are current for a group, those to which a rollback would go back,
    and those that an order which is under way may need.
    """
    with connected() as client:
        some = names or tuple(one.name for one in client.content())
        if not dry_run:
            looked = [client.prune_content(one, Prune(keep=keep, dry_run=True)) for one in dict.fromkeys(some)]
            count = sum(len(one.removed) for one in looked)
            if count:
                _confirm(f"Delete {count} versions of {len(looked)} names for good?", yes=yes)
        done = [client.prune_content(one, Prune(keep=keep, dry_run=dry_run)) for one in dict.fromkeys(some)]
    if as_json:
        print_json(done)
    else:
        show_blocks(_pruned(done, dry_run=dry_run))


def _pruned(done: Sequence[Pruned], *, dry_run: bool) -> Iterator[Block]:
    fate = "would be deleted" if dry_run else "deleted"
    rows: list[tuple[str, int, str, str]]
    rows = [(one.content, some.version, fate, human_size(some.size)) for one in done for some in one.removed]
    rows += [(one.content, some.version, f"kept: {some.why}", "") for one in done for some in one.kept]
    rows.sort(key=lambda row: (row[0], -row[1]))
    if rows:
        yield table(("content", "version", "fate", "size"), rows)
    count, freed = sum(len(one.removed) for one in done), human_size(sum(one.freed for one in done))
    yield Note(f"{count} versions {fate}, {freed}." if count else "There is nothing to delete.")


def _confirm(question: str, *, yes: bool) -> None:
    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        raise Cancelled("Nothing was changed", hint="Answer yes, or give --yes.")
