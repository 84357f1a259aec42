"""Tests of stanch.agent.main: what the agent process loads."""

import subprocess
import sys

PROGRAM = """
import sys
from stanch.agent.main import main
try:
    main()
finally:
    print([one for one in ("rich", "pygments", "yara") if sys.modules.get(one)])
"""


def test_the_agent_loads_nothing_for_terminals() -> None:
    """What only a terminal needs would cost every endpoint three megabytes."""
    environment = {"STANCH_AGENT_STATE": "/nonexistent/stanch", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip().endswith("[]"), done.stderr
