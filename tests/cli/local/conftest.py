"""Something that listens as the agent does."""

import json
import socket
import threading
from pathlib import Path

import pytest


@pytest.fixture
def agent(tmp_path):
    """Something that listens as the agent does, and gives one answer; what it was asked."""
    threads, asked = [], []

    def answering(answer: bytes) -> Path:
        path = tmp_path / f"agent-{len(threads)}.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)
        threads.append(threading.Thread(target=_answer, args=(listener, answer, asked)))
        threads[-1].start()
        return path

    answering.asked = asked
    yield answering
    for thread in threads:
        thread.join(10)


def _answer(listener: socket.socket, answer: bytes, asked: list) -> None:
    with listener:
        connection, _ = listener.accept()
        with connection:
            asked.append(json.loads(connection.makefile("rb").readline()))
            try:
                connection.sendall(answer)
            except BrokenPipeError:
                asked.append("closed early")
