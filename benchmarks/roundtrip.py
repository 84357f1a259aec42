"""From an order by REST to its committed result on one real agent, against the floor of what it cannot do without.

The floor, measured in the same run: one echo over the same kind of mutual TLS, two commits that reach the disk, one
signature and one verification.
"""

import argparse
import json
import queue
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from joserfc.jwk import OKPKey

from benchmarks import dispatch, footprint, harness, stand
from stanch.client.trust import verifying_context
from stanch.core.envelope import CancelBody, Envelope, sign, verify


def floor(at: Path, times: int) -> dict[str, float]:
    """What even the barest system of this kind needs, in seconds."""
    db = sqlite3.connect(at / "floor.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE t (x TEXT)")
    commit = harness.seconds(lambda: db.execute("INSERT INTO t VALUES ('x')"), times)
    db.close()
    key = OKPKey.generate_key("Ed25519", {"kid": "k"})
    envelope = Envelope(endpoint="e", id="i", iat=1, body=CancelBody(task="t"))
    token = sign(envelope, key)
    signing = harness.seconds(lambda: sign(envelope, key), times)
    verifying = harness.seconds(lambda: verify(token, keys={"k": key}, endpoint="e", now=None, versions={}), times)
    with dispatch.floor(at, 1, 800) as echoing:

        def once() -> float:
            stand.tell(echoing, bytes=900)
            return stand.number(stand.hear(echoing), "seconds")

        echo = harness.median([once() for _ in range(times)])
    return {"echo": echo, "commit": commit, "sign": signing, "verify": verifying}


TRIED = (
    "The order is sent from the unit of work that stores it, statements are prepared once, a unit that is alone needs "
    "no savepoint, reports that come alone are committed at once, uvloop and httptools on both ends: from 16 times the "
    "floor to this. What is left is Python between the fsyncs: a FastAPI request (1.3 ms), two units of SQLAlchemy "
    "Core (1.3 ms), the agent's three transactions and its action (2.2 ms), and the hops between their threads."
)


class Wire:
    """Bare HTTPS/1.1 on one kept connection: the figure is the server's and the agent's, not a client library's."""

    def __init__(self, server: stand.Server) -> None:
        parts = urlsplit(server.api)
        self._connection = HTTPSConnection(str(parts.hostname), parts.port, context=verifying_context(server.ca))
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Authorization": f"Bearer {server.token_of_session}", "Content-Type": "application/json"}

    def post(self, path: str, body: str) -> bytes:
        """The answer."""
        self._connection.request("POST", f"/api/v1/{path}", body, self._headers)
        return self._connection.getresponse().read()

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a stream."""
        self._connection.request("GET", f"/api/v1/{path}", headers=self._headers)
        yield from self._connection.getresponse()


class Listener:
    """Hears of every finished task, on a connection of its own."""

    def __init__(self, server: stand.Server) -> None:
        self._done: queue.Queue[tuple[str, float]] = queue.Queue()
        self._wire = Wire(server)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._wire.lines("events"):
            if line.startswith(b"data:") and b'"done"' in line:
                at = time.perf_counter()
                self._done.put((json.loads(line[5:])["order"], at))

    def wait(self, order: str) -> float:
        """When the order's task was done."""
        while True:
            found, at = self._done.get(timeout=30)
            if found == order:
                return at


def orders(server: stand.Server, listener: Listener, times: int) -> list[float]:
    """Seconds from each order to the news of its committed result."""
    wire, taken = Wire(server), []
    body = json.dumps({"endpoints": [next(iter(server.client.endpoints())).id]})
    for number in range(times):
        started = time.perf_counter()
        order = json.loads(wire.post("actions/list_processes/orders", body))["id"]
        taken.append(listener.wait(order) - started)
        if number % 100 == 99:
            harness.progress(f"{number + 1} orders, median {1000 * harness.median(taken):.2f} ms")
    return taken


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=500)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        at = stack.enter_context(stand.folder())
        server = stack.enter_context(stand.server(at))
        stack.enter_context(stand.agent(server, at))
        footprint.wait_online(server)
        listener = Listener(server)
        orders(server, listener, 20)
        before = floor(at, 300)
        taken = orders(server, listener, chosen.orders)
        after = floor(at / "server", 300)
    parts = {name: (before[name] + after[name]) / 2 for name in before}
    least = parts["echo"] + 2 * parts["commit"] + parts["sign"] + parts["verify"]
    median, p99 = harness.median(taken), harness.percentile(taken, 99)
    figures = {
        "roundtrip_median_ms": 1000 * median,
        "roundtrip_p95_ms": 1000 * harness.percentile(taken, 95),
        "roundtrip_p99_ms": 1000 * p99,
        "floor_ms": 1000 * least,
        **{f"floor_{name}_ms": 1000 * value for name, value in parts.items()},
    }
    bars = [
        harness.Bar(what="median, against the floor", value=median / least, bar=5.0, tried=TRIED),
        harness.Bar(what="99th percentile, against the floor", value=p99 / least, bar=20.0),
    ]
    harness.report("roundtrip", figures, bars)


if __name__ == "__main__":
    main()
