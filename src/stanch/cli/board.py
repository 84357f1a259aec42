"""How the tasks of an order go, on standard error: bars on a terminal, a line for each change anywhere else."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, Self

import click

from stanch.cli.plain import plain
from stanch.cli.render import human_size
from stanch.cli.screen import console
from stanch.core.rest import OrderView, TaskEvent, TaskProgress
from stanch.core.task import State

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

MOST_BARS = 10
"""So many running tasks have a bar of their own; the others are counted."""


class Board(Protocol):
    """Where people see how tasks go."""

    def take(self, event: TaskEvent) -> None:
        """Show an event."""
        ...


def board_of(order: OrderView) -> AbstractContextManager[Board]:
    """Bars on a terminal, one line for each change otherwise; always on standard error."""
    names = {task.id: plain(task.hostname, longest=40) for task in order.tasks}
    return _Bars(names) if sys.stderr.isatty() else nullcontext(_Lines(names))


class _Lines:
    """One line for each state that a task comes to."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._paused = dict[str, str]()

    def take(self, event: TaskEvent) -> None:
        name = self._names.get(event.task, plain(event.endpoint))
        if event.state is not None:
            click.echo(f"{name}: {event.state}", err=True)
        elif event.paused != self._paused.get(event.task, ""):
            self._paused[event.task] = event.paused
            said = f"paused ({plain(event.paused, longest=100)}), {_said(event)}" if event.paused else "goes on"
            click.echo(f"{name}: {said}", err=True)


class _Bars:
    """A bar for the order and one for each of its running tasks."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._states = dict[str, State]()
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress = _progress()
        self._progress.start()
        self._whole = self._progress.add_task("all", total=len(self._names), text="")
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def take(self, event: TaskEvent) -> None:
        if event.state is None:
            self._show_progress(event)
        else:
            self._states[event.task] = event.state
            self._show_state(event.task, event.state)

    def _show_state(self, task: str, state: State) -> None:
        final = sum(one.final for one in self._states.values())
        self._progress.update(self._whole, completed=final, text=f"{final} of {len(self._names)} tasks")
        if not state.final:
            self._bar(task, text=str(state))
        elif task in self._bars:
            self._progress.remove_task(self._bars.pop(task))

    def _show_progress(self, event: TaskEvent) -> None:
        paused = f"paused ({plain(event.paused, longest=40)})" if event.paused else ""
        text = " ".join(filter(None, [paused, _said(event)]))
        self._bar(event.task, completed=event.done or 0, total=event.total, text=text)

    def _bar(self, task: str, **shown: Any) -> None:
        if task not in self._bars and len(self._bars) < MOST_BARS:
            self._bars[task] = self._progress.add_task(self._names.get(task, ""), total=None, text="")
        if task in self._bars:
            self._progress.update(self._bars[task], **shown)


def _said(event: TaskEvent) -> str:
    return " ".join(filter(None, [amount(event), plain(event.text, longest=80)]))


def amount(event: TaskEvent | TaskProgress) -> str:
    """How much of it is done, in its unit; nothing if nobody knows."""
    if event.done is None or (event.done == 0 and event.total is None):
        return ""
    if event.unit == "bytes":
        return human_size(event.done) + (f" of {human_size(event.total)}" if event.total is not None else "")
    return f"{event.done}" + (f" of {event.total}" if event.total is not None else "") + f" {plain(event.unit)}"


def _progress() -> "Progress":
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
    )
