"""Structured logs: one JSON object a line on stderr; standard output belongs to what the server says to people."""

import logging
import sys

import structlog

LEVEL = logging.INFO
LIBRARIES = ("uvicorn", "aiohttp", "asyncio")


def configure() -> None:
    """Set structlog up for the process, and send what libraries log the same way from warnings on."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVEL),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [_ToStructlog()]
        library.propagate = False
        library.setLevel(logging.WARNING)


class _ToStructlog(logging.Handler):
    """Hands what a library logs to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Same level, same text, and the name of the library."""
        logger = structlog.get_logger()
        logger.log(record.levelno, record.getMessage()[:4000], library=record.name, exc_info=record.exc_info)
