"""Starts the keeper of one program: `python -I -S program_keeper.py TASK`.

It is known by this command line (`marks.py`). No installed package can change what it does: it imports the standard
library, and after it, from the folder that this file was loaded from, three files of Stanch that import nothing else.
"""

import os
import sys


def main() -> int:
    """Keep a program, by the order that comes on the socket; an exit code."""
    here = os.path.realpath(__file__)
    sys.path.append(here[: -len("/stanch/agent/host/program_keeper.py")])
    from stanch.agent.host.program_keeping import keep

    return keep()


if __name__ == "__main__":
    sys.exit(main())
