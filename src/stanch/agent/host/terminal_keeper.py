"""Starts the keeper of one terminal: `python -I -S terminal_keeper.py TASK`, by `pty.py` alone.

It is known by this command line (`marks.py`). No installed package can change what it does: it imports the standard
library, and after it, from the folder that this file was loaded from, three files of Stanch that import nothing else.
"""

import os
import sys


def main() -> int:
    """Keep a terminal, as the agent says on descriptor 0; an exit code."""
    here = os.path.realpath(__file__)
    sys.path.append(here[: -len("/stanch/agent/host/terminal_keeper.py")])
    from stanch.agent.host.terminal_keeping import keep

    return keep()


if __name__ == "__main__":
    sys.exit(main())
