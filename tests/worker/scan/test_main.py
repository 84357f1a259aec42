"""`python -m stanch.worker.scan`: without a job it says why, and ends."""

import json
import subprocess
import sys


def test_without_a_job_it_ends_with_an_error() -> None:
    """Nothing on its input, or nonsense: one message, and a status that is not 0."""
    for said in (b"", b"nonsense\n", b'{"type": "all"}\n'):
        command = [sys.executable, "-I", "-m", "stanch.worker.scan"]
        ended = subprocess.run(command, input=said, capture_output=True, check=False, timeout=30)
        message = json.loads(ended.stdout)
        assert (message["type"], message["tally"], ended.returncode) == ("end", None, 1)
        assert message["error"]
