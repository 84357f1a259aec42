"""`stanch demo`: an attack is stopped before your eyes, in namespaces that are gone afterwards."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stanch.core.errors import StanchError
from stanch.demo.ending import Ended, ended_by_signals
from stanch.demo.lab import HOSTNAME, Lab, missing
from stanch.demo.program import status_of
from stanch.demo.report import Report, expect
from stanch.demo.stage import API_PORT, Stage
from stanch.demo.story import Story
from stanch.demo.without_root import small_stage, tell_what_is_left_out


def run(*, json: bool, keep: bool) -> int:
    """Tell the story on standard output; 0 only if every check held.

    Args:
        json: one JSON object per line: step, ok, ms, evidence.
        keep: leave everything running afterwards until Ctrl-C, and say how to use it.
    """
    report = Report(as_json=json)
    try:
        with ended_by_signals():
            reason = missing()
            held = _in_a_lab(report, keep=keep) if reason is None else _small(report, reason, keep=keep)
    except Ended as end:
        report.remark("\nEnded; nothing is left behind.")
        return end.exit_code
    report.remark("\nEvery check held." if held else "\nNot every check held.")
    return 0 if held else StanchError.exit_code


def _in_a_lab(report: Report, *, keep: bool) -> bool:
    """The whole story, in namespaces."""
    lab = Lab()
    try:
        with lab, Stage(lab) as stage:
            if not Story(stage, report).tell():
                _keep_logs(lab, report)
            if keep:
                stage.start_attack()
                _keep(report, _how_to_use(stage))
    finally:
        if report.steps:
            report.run("removed", lambda: _nothing_left(lab))
    return report.all_held


def _small(report: Report, reason: str, *, keep: bool) -> bool:
    """What can be shown without namespaces."""
    with small_stage(report) as story:
        story.tell()
        tell_what_is_left_out(report, reason)
        if keep:
            _keep(report, story.how_to_use())
    return report.all_held


def _keep_logs(lab: Lab, report: Report) -> None:
    """What the programs said, for whoever looks for the reason; keys and evidence go with the lab."""
    kept = Path(tempfile.mkdtemp(prefix="stanch-demo-logs-"))
    for log in lab.folder.glob("*.log"):
        shutil.copy(log, kept)
    report.remark(f"  what the programs said: {kept}")


def _keep(report: Report, how_to_use: Sequence[str]) -> None:
    """Say how to use it, and sleep until somebody has seen enough: then that is no interruption."""
    with suppress(Ended):
        report.kept(how_to_use)
        while True:
            signal.pause()


def _nothing_left(lab: Lab) -> str:
    """Namespaces, mounts, processes and files of the lab are gone."""
    names = [entry.name for entry in Path("/run/netns").iterdir() if entry.name.startswith(lab.name)]
    expect(not names, "Network namespaces are left", got=names)
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if lab.name in line]
    expect(not mounts, "Mounts are left", got=mounts)
    expect(not lab.folder.exists(), "Files are left", got=lab.folder)
    running = [pid for pid in lab.started if status_of(pid) is not None]
    expect(not running, "Processes are left", got=running)
    return f"3 network namespaces and {len(lab.started)} programs ended; no mount and no file of {lab.name} is left"


def _how_to_use(stage: Stage) -> tuple[str, ...]:
    """Lines for someone who wants to look around."""
    lab, place = stage.lab, stage.server_place
    session = f"STANCH_SESSION={stage.responder.home / 'session.json'}"
    stanch = Path(sys.executable).with_name("stanch")
    return (
        f"A new attack runs on {HOSTNAME}. Everything stays until you press Ctrl-C here (or: kill {os.getpid()}).",
        f"order      {session} {' '.join(lab.server.enter)} {stanch} isolate {HOSTNAME} --wait",
        f"server     https://{place.api.rpartition(':')[0]}:{API_PORT} (in its namespace), admin / {place.password}",
        f"endpoint   {' '.join(lab.endpoint.enter)} bash",
        f"outside    {' '.join(lab.outside.enter)} bash",
        f"logs       {lab.folder}",
    )
