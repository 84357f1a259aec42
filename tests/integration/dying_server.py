"""A real server that dies by SIGKILL between its commit of a final report and the acknowledgement of it.

`python dying_server.py DATA API GATEWAY PASSWORD_FILE`, for test_server_killed.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from stanch.core.frames import Report
from stanch.server.gateway import inbox
from stanch.server.gateway.agent_link import AgentLink
from stanch.server.gateway.inbox import Received
from stanch.server.main import serve
from stanch.server.settings import Settings

_acknowledge = inbox.acknowledge


async def die_before_acknowledging(link: AgentLink, ones: Sequence[Received]) -> None:
    """The commit has returned; the agent has heard nothing."""
    if any(isinstance(one.frame, Report) and one.frame.state.final for one in ones):
        os.kill(os.getpid(), signal.SIGKILL)
    await _acknowledge(link, ones)


inbox.acknowledge = die_before_acknowledging

if __name__ == "__main__":
    data, api, gateway, password = sys.argv[1:]
    serve(
        Settings(
            data=Path(data),
            api_listen=api,
            gateway_listen=gateway,
            names=("127.0.0.1",),
            admin_password_file=Path(password),
        )
    )
