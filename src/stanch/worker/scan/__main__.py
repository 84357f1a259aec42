"""`python -m stanch.worker.scan`: one scan, over two pipes, as `core.scan_wire` says; then the end.

It reads the job from its own parent, loads what it needs, confines itself, and only then looks at anything hostile.
"""

import gc
import os
import sys

gc.disable()  # what is imported stays: to look through it again and again takes longer than to import it

from stanch.worker.scan.conversation import Inbox, converse  # noqa: E402 - after the line above
from stanch.worker.scan.telling import Wire  # noqa: E402 - the same

CYCLES = 20_000
"""Objects that are made between two looks for rings of them; almost none are made here."""


def main() -> None:
    """Answer until everything is told. Never returns: a thread may still hang."""
    gc.freeze()
    gc.set_threshold(CYCLES)
    gc.enable()
    sys.setswitchinterval(0.001)
    wire = Wire()
    status = 0
    try:
        converse(Inbox(), wire)
    except Exception as error:  # noqa: BLE001 - whatever it is, the agent is told
        status = 1
        try:
            wire.send({"type": "end", "tally": None, "error": f"{type(error).__name__}: {error}"[:4000]})
        except OSError:
            status = 2
    os._exit(status)


if __name__ == "__main__":
    main()
