"""What `stanch ioc scan`, `stanch yara scan` and `stanch local scan` share: options, run, what they show."""

import asyncio
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from stanch.cli.failure import INTERRUPTED
from stanch.cli.plain import plain
from stanch.core.errors import Invalid
from stanch.core.scanning import Area, Files, Limits
from stanch.core.types import EndpointPath, Exclusion, Size, parse_duration

if TYPE_CHECKING:
    from stanch.cli.scan_text import Seen
    from stanch.core.scanning import Event, Finding, Scan

F = TypeVar("F", bound=Callable[..., Any])

LARGEST: Final = 256 * 2**20
"""Bytes; larger files are skipped unless asked for."""

_PATIENCE: Final = 5.0
"""Seconds for a name to be asked about: a file system that does not answer is the scan's to tell."""
_NOTHING, _SPECIAL = "nothing", "special"

ENDS: Final = (
    "Ends with 0 if it has looked everywhere and found nothing, 20 if something was found, 21 if it could not look "
    "everywhere (it ended early, or had no right to read something), 130 if it was interrupted; with 2 for wrong input."
)
"""For the help of each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How it is told."""

    as_json: bool
    skipped: bool
    skipped_to: Path | None
    dry_run: bool


class _Typed(click.ParamType[Any]):
    """Text that one of our types parses."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As the type has it; what is wrong, in words."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValidationError as error:
            self.fail(str(error.errors()[0]["msg"]), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _path(text: str) -> EndpointPath:
    return EndpointPath.of(os.fsencode(Path(text).absolute()))


PATH: Final = _Typed("path", _path)
EXCLUSION: Final = _Typed("pattern", Exclusion.parse)
SIZE: Final = _Typed("size", TypeAdapter(Size).validate_python)
DURATION: Final = _Typed("duration", parse_duration)

_SCOPE: Final = (
    click.option(
        "--exclude",
        type=EXCLUSION,
        multiple=True,
        metavar="PATH|PATTERN",
        help="Leave out, with all below; several times.",
    ),
    click.option(
        "--max-file-size", type=SIZE, default=str(LARGEST), metavar="SIZE", help="Skip larger files.  [default: 256MiB]"
    ),
)

_WHERE: Final = (
    click.option(
        "--path", "paths", type=PATH, multiple=True, metavar="PATH", help="Look here, and below; several times."
    ),
    click.option(
        "--area",
        type=click.Choice([str(one) for one in Area]),
        help="all: every local file system; system: programs, configuration, temporary files, homes; critical: what "
        "starts by itself and what runs; custom: what --path names.",
    ),
    *_SCOPE,
    click.option("--network-drives", is_flag=True, help="Look at file systems of the network, too."),
    click.option("--one-file-system", is_flag=True, help="Do not look at what is mounted below."),
)

_HOW: Final = (
    click.option(
        "--cache/--no-cache",
        default=True,
        help="Believe what an earlier scan found of files that did not change since.",
    ),
    click.option(
        "--gentle/--no-gentle",
        default=True,
        help="Stay behind: low priority, and wait while others need the machine.",
    ),
    click.option(
        "--max-findings",
        type=click.IntRange(1, 1_000_000),
        default=10_000,
        show_default=True,
        help="End, incomplete, when so many are found.",
    ),
    click.option("--dry-run", is_flag=True, help="Only say what would be looked at, and with what."),
    click.option("--skipped", is_flag=True, help="List everything that was skipped, and why."),
    click.option(
        "--skipped-to",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write that list into a file, as JSON lines.",
    ),
)


def where_options(command: F) -> F:
    """Where files are looked at."""
    return _with(_WHERE, command)


def scope_options(command: F) -> F:
    """What is left out of an area that is fixed."""
    return _with(_SCOPE, command)


def how_options(command: F) -> F:
    """How it is done, and told."""
    return _with(_HOW, command)


def _with(options: Sequence[Callable[[F], F]], command: F) -> F:
    for one in reversed(options):
        command = one(command)
    return command


def files_of(
    *,
    paths: tuple[EndpointPath, ...],
    area: str | None,
    exclude: tuple[Exclusion, ...],
    max_file_size: int,
    network_drives: bool,
    one_file_system: bool,
    default: Area | None,
) -> Files | None:
    """Which files; None for none, if that is the default. Invalid if area and paths do not fit, or one is not there."""
    if area is not None and (area == Area.CUSTOM) != bool(paths):
        raise Invalid(
            "The area and the paths do not fit",
            got=f"--area {area} {'with' if paths else 'without'} --path",
            expected="--path alone or with --area custom; another area without --path",
        )
    _refuse_useless(paths)
    chosen = Area.CUSTOM if paths else Area(area) if area else default
    if chosen is None:
        return None
    return Files(
        area=chosen,
        paths=paths,
        exclude=exclude,
        max_size=max_file_size,
        network=network_drives,
        one_file_system=one_file_system,
    )


def _refuse_useless(paths: Sequence[EndpointPath]) -> None:
    """Invalid for a name of nothing, of a device, a pipe or a socket: nothing in it could be looked at."""
    for path, kind in _asked(paths, _kind).items():
        if kind == _NOTHING:
            raise Invalid("There is nothing at this path", got=plain(path), expected="a folder or file that is there")
        if kind == _SPECIAL:
            raise Invalid(
                "Only files and folders can be looked at",
                got=f"a device, pipe or socket: {plain(path)}",
                expected="a folder or file",
            )


def _kind(path: str) -> str:
    """What is there; empty for what can be looked at, and for what cannot be asked about: the scan tells that."""
    if not os.path.lexists(path):
        return _NOTHING
    with suppress(OSError):
        mode = Path(path).stat().st_mode
        return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _SPECIAL
    return ""


def _asked(paths: Sequence[EndpointPath], ask: Callable[[str], str]) -> Mapping[str, str]:
    """What is said of each; nothing of one that does not answer: whoever waits for it could not even be interrupted."""
    if not paths:
        return {}
    from stanch.agent.scan_alone import asked

    return asked([os.fsdecode(one.raw) for one in paths], ask, seconds=_PATIENCE)


def told_of(more: dict[str, Any]) -> Told:
    """How it is told: takes these options out of the others."""
    return Told(**{one: more.pop(one) for one in ("as_json", "skipped", "skipped_to", "dry_run")})


def limits_of(more: dict[str, Any], per_object: timedelta = timedelta(minutes=1), rules: int = 0) -> Limits:
    """What it may cost: takes these options out of the others."""
    findings, gentle = more.pop("max_findings"), more.pop("gentle")
    return Limits(per_object=per_object, findings=findings, rules=rules, gentle=gentle)


# --- the run ---------------------------------------------------------------------------------------------------------


def run_scan(scan: "Scan", told: Told) -> int:
    """Do it, and tell it; the exit code."""
    if told.dry_run:
        _show_plan(scan, told)
        return 0
    from stanch.cli.scan_text import Seen

    seen, code, began = Seen(named=frozenset(_named(scan))), 0, time.monotonic()
    screen = _silent if told.as_json else _on_screen
    try:
        with _log_on_stderr(), screen(seen) as show:
            asyncio.run(_scanned(scan, lambda batch: show(seen.take(batch))))
        code = seen.exit_code
    except KeyboardInterrupt:
        seen.interrupt(time.monotonic() - began)
        code = INTERRUPTED
    _show(seen, told)
    return code


def _named(scan: "Scan") -> "Iterator[str]":
    """What somebody has named, as it is called if it is skipped."""
    yield from (f"process {one}" for one in (*scan.pids, *scan.names))
    paths = scan.files.paths if scan.files is not None else ()
    yield from map(str, paths)
    yield from (str(EndpointPath.of(os.fsencode(one))) for one in _asked(paths, os.path.realpath).values())


@contextmanager
def _log_on_stderr() -> "Iterator[None]":
    """What the scanner logs is for people: it must not stand in the findings, least of all in their JSON."""
    import structlog

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.add_log_level, _as_line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _as_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """`warning: what happened: why`."""
    level, what, why = (str(event.get(one, "")) for one in ("level", "event", "why"))
    return plain(": ".join(filter(None, (level, what, why))), longest=1000)


async def _scanned(scan: "Scan", take: "Callable[[Sequence[Event]], None]") -> None:
    from stanch.agent.scan_alone import scan_alone

    await scan_alone(scan, take)


def _show(seen: "Seen", told: Told) -> None:
    from stanch.cli.scan_text import summary
    from stanch.cli.screen import print_json, show_blocks

    if told.skipped_to is not None:
        from stanch.disk.atomic import atomic_write

        lines = (json.dumps(one.model_dump(mode="json")) + "\n" for one in seen.skips)
        atomic_write(told.skipped_to, "".join(lines).encode(), mode=0o600)
    if told.as_json:
        print_json(seen.as_json(skipped=told.skipped))
    else:
        show_blocks(summary(seen, all_skips=told.skipped))


def _show_plan(scan: "Scan", told: Told) -> None:
    from stanch.core.scan_scope import planned

    more = ["memory of processes"] if scan.memory or scan.pids or scan.names else []
    plan = planned(scan.files, scan.materials, more=more)
    if told.as_json:
        from stanch.cli.screen import print_json

        print_json(plan)
        return
    for step in plan.steps:
        click.echo(f"{step.what}: {plain(step.target)}")
    for warning in plan.warnings:
        click.echo(f"note: {plain(warning)}")
    click.echo("Nothing was looked at.")


@contextmanager
def _silent(_seen: "Seen") -> "Iterator[Callable[[Sequence[Finding]], None]]":
    yield lambda _found: None


@contextmanager
def _on_screen(seen: "Seen") -> "Iterator[Callable[[Sequence[Finding]], None]]":
    """Findings on standard output as they come; how far it is on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield _print
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from stanch.cli.scan_text import progress_line
    from stanch.cli.screen import console

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console(stderr=True), transient=True, redirect_stdout=False) as bars:
        bar = bars.add_task("Loading", total=None)

        def show(found: "Sequence[Finding]") -> None:
            if found:
                bars.stop()  # it is on the same screen: its line must not stand in the middle of a finding
                _print(found)
                bars.start()
            bars.update(bar, description=progress_line(seen))

        yield show


def _print(found: "Sequence[Finding]") -> None:
    from stanch.cli.scan_text import finding_lines

    for one in found:
        for line in finding_lines(one):
            click.echo(line)
