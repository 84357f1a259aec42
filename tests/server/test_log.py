"""Logs: JSON lines on standard error, from libraries too."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from stanch.server import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging belongs to the process: put it back."""
    loggers = [logging.getLogger(name) for name in log.LIBRARIES]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]
    yield
    structlog.reset_defaults()
    for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def test_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With level and time; standard output stays for people."""
    log.configure()
    structlog.get_logger().info("link is up", endpoint="end_1")
    said = capsys.readouterr()
    line = json.loads(said.err)
    assert said.out == ""
    assert (line["event"], line["endpoint"], line["level"]) == ("link is up", "end_1", "info")
    assert line["timestamp"].endswith("Z")


def test_libraries_speak_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    """From warnings on, bounded, with their name."""
    log.configure()
    logging.getLogger("uvicorn.error").info("not this")
    logging.getLogger("uvicorn.error").warning("odd %s", "x" * 10_000)
    line = json.loads(capsys.readouterr().err)
    assert (line["library"], line["level"]) == ("uvicorn.error", "warning")
    assert len(line["event"]) == 4000


def test_errors_come_with_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """On the same line."""
    log.configure()
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: broken" in json.loads(capsys.readouterr().err)["exception"]
