"""What every test gets: a clean environment, the machine's capabilities in the header, skips that say why.

A capability that is missing skips its tests with the reason on a laptop, and fails them where `STANCH_REQUIRE=all`
says that this machine must have everything (CI).
"""

import asyncio
import inspect
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from functools import cache
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.dev import plain_traceback
from structlog.processors import add_log_level

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
REQUIRE_ALL = os.environ.get("STANCH_REQUIRE") == "all"
SHARED = Path(os.environ.get("STANCH_SHARED", ROOT.parent / "shared")) / "data"

WHOLE_SYSTEM = ("integration/", "torture/", "browser/", "agent/killing/", "agent/test_main.py", "server/test_main.py")
"""Tests that start real programs and wait for them: slow, wherever they run."""

os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

settings.register_profile("dev", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=100, derandomize=True, print_blob=True)
settings.load_profile("ci" if REQUIRE_ALL or os.environ.get("CI") else "dev")


# --- what this machine can do ----------------------------------------------------------------------------------------


@cache
def capabilities() -> dict[str, str]:
    """Each capability: "yes" or its version if it is there, "no: REASON" if it is not."""
    return {
        "root": "yes" if os.geteuid() == 0 else "no: not run as root",
        "netns": _try("unshare", "--net", "true"),
        "nft": _try("nft", "--version"),
        "ip": _try("ip", "-V"),
        "shared": "yes" if SHARED.is_dir() else "no: the folder of shared test data is not beside this checkout",
    }


def _try(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return f"no: {command[0]} is not installed"
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL)
    said = (ended.stdout or ended.stderr).strip().partition("\n")[0]
    return f"no: {' '.join(command)}: {said}" if ended.returncode else said or "yes"


NEEDS = {"root": ("root", "netns", "nft", "ip"), "shared": ("shared",)}
"""Marker to the capabilities that it asks for."""


def pytest_report_header() -> list[str]:
    """Say what this machine can do, so that a log explains its own skips."""
    found = {"kernel": platform.release(), "python": platform.python_version(), **capabilities()}
    required = "a missing capability FAILS its tests" if REQUIRE_ALL else "a missing capability skips its tests"
    return [f"stanch: {', '.join(f'{name} {value}' for name, value in found.items())}", f"stanch: {required}"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose marker asks for what is not here, or fail it where everything is required."""
    asked = [need for marker, needs in NEEDS.items() if item.get_closest_marker(marker) for need in needs]
    missing = [f"{need}: {capabilities()[need][4:]}" for need in asked if capabilities()[need].startswith("no: ")]
    if missing and REQUIRE_ALL:
        pytest.fail(f"STANCH_REQUIRE=all, but {'; '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip("; ".join(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is required, no test may skip itself, but for options that a kernel need not have."""
    report = yield
    if REQUIRE_ALL and report.skipped and not item.get_closest_marker("kernel_option"):
        report.outcome = "failed"
        report.longrepr = f"STANCH_REQUIRE=all, but it was skipped: {report.longrepr}"
    return report


@pytest.fixture
def shared_data() -> Path:
    """The folder of shared test data; the test that asks for it is marked `shared`."""
    return SHARED


# --- every test ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty home, no setting of ours, and an output that does not depend on who runs the tests."""
    for name in os.environ:
        if name.startswith(("STANCH_", "XDG_")) or name in {"NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"}:
            monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="stanch-home-") as home:
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
            monkeypatch.setenv(name, home)
        monkeypatch.setenv("LC_ALL", "C.UTF-8")
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", "120")
        yield


@pytest.fixture(autouse=True)
def _clean_logging() -> None:
    """Plain logs (an error that is logged on purpose must not cost a second of colours), set up by no other test."""
    structlog.configure(
        processors=[add_log_level, structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain_traceback)]
    )
    for one in logging.Logger.manager.loggerDict.values():
        if isinstance(one, logging.Logger):
            one.setLevel(logging.NOTSET)
            one.handlers, one.propagate = [], True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each async test look for tasks that it left behind; what starts the whole system is slow; long ones first."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "no_lost_tasks")
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).as_posix().startswith(WHOLE_SYSTEM):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
async def no_lost_tasks() -> AsyncIterator[None]:
    """Fail an async test that ends while a task which it started still runs: its error would be lost."""
    before = asyncio.all_tasks()
    yield
    lost = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not lost, f"tasks left behind: {', '.join(repr(task.get_coro()) for task in lost)}"
