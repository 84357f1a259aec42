"""A real server that dies by SIGKILL while evidence comes in: before or after it has recorded the third part.

`python dying_in_evidence.py DATA API GATEWAY PASSWORD_FILE before|after`, for test_evidence.
"""

import os
import signal
import sys
from pathlib import Path

from sqlalchemy import Connection

from stanch.server import evidence
from stanch.server.evidence_files import Kept
from stanch.server.main import serve
from stanch.server.settings import Settings

LAST = 2
_record, _receive = evidence.record_part, evidence.receive
_moment = sys.argv[5]


def record_and_commit(connection: Connection, evidence_id: str, part: Kept) -> bool:
    """What comes after the third part: nothing, if the server dies before it is recorded."""
    if part.info.n == LAST and _moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    return _record(connection, evidence_id, part)


async def receive_next(*arguments: object, **options: object) -> Kept:
    """Die while the fourth part arrives: the third is recorded."""
    kept = await _receive(*arguments, **options)
    if kept.info.n == LAST + 1 and _moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return kept


evidence.record_part, evidence.receive = record_and_commit, receive_next

if __name__ == "__main__":
    data, api, gateway, password, _ = sys.argv[1:]
    serve(
        Settings(
            data=Path(data),
            api_listen=api,
            gateway_listen=gateway,
            names=("127.0.0.1",),
            admin_password_file=Path(password),
        )
    )
