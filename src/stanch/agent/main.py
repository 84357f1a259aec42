"""The agent process begins here: `python -m stanch.agent.main`, started by the supervisor."""

import sys


def main() -> int:
    """Run the agent in this process until SIGTERM; the exit code tells the supervisor whether to try again."""
    # structlog loads rich, 3 MB, wherever it is installed, to colour tracebacks: the agent has no terminal.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: not to be had
    from stanch.agent import process

    return process.main()


if __name__ == "__main__":
    sys.exit(main())
