"""Evidence over the link, encrypted and committed part by part, against bare PUTs over the same mutual TLS.

The floor reads the same file and sends it with the agent's own HTTPS client, in parts of the same size, to a server
that drops what it reads: no hash, no encryption, no disk. Measured as well: a sparse file, cuts at random, and how
much memory the server takes while the large file passes.
"""

import argparse
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Self
from urllib.parse import urlsplit

from benchmarks import echo, footprint, harness, stand
from stanch.core.rest import OrderCommon

MIB = 2**20
BLOCK = 8 * MIB
GIGABIT = 125e6
"""Bytes a second."""

TRIED = (
    "Both ends and their TLS share the processors here. A bare part of 8 MiB takes 20 ms of them, one of evidence"
    " 60 to 70, in runs of 256 and 512 MiB on a busy machine: 10 at each end for TLS and HTTP, 9.4 for the "
    "SHA-256 of the whole and of the part, 7.5 for age (pyrage.encrypt: 16), 4.7 at each end for the SHA-256 of "
    "what is sent, 3 to write and sync (18, until the pages were dropped after the sync), and the rest for "
    "threads and commits. Reading, sealing, sending and writing overlap. Two parts in flight would cost two parts"
    " at a cut, and showed no gain in one such run; nor did a shorter switch interval of the interpreter, or "
    "larger buffers of the server. What should help, not measured: more processors, or age without the lock of "
    "the interpreter."
)


def random_file(path: Path, size: int) -> Path:
    """A file that nothing can compress."""
    with path.open("wb") as file:
        for at in range(0, size, BLOCK):
            file.write(os.urandom(min(BLOCK, size - at)))
    return path


def sparse_file(path: Path, size: int, data: int) -> Path:
    """A file of this size with so much data, in ten places."""
    with path.open("wb") as file:
        file.truncate(size)
        for place in range(10):
            file.seek(place * (size // 10) + 12_345)
            file.write(os.urandom(data // 10))
    return path


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Ends:
    """The server, the endpoint and the floor."""

    def __init__(self, server: stand.Server, sender: Popen[str], floor: int, pem: Path) -> None:
        self._server, self._sender, self.floor, self._pem = server, sender, floor, pem
        self.port = urlsplit(server.gateway).port

    def bare(self, path: Path, **how: object) -> dict[str, object]:
        """The floor."""
        return self._ask(**{"do": "bare", "path": str(path), "port": self.floor, "pem": str(self._pem), **how})

    def send(self, path: Path, **how: object) -> dict[str, object]:
        """As evidence; what arrived is what was sent."""
        self._server.client.submit("list_processes", OrderCommon(endpoints=(self._endpoint(),)), {})
        sent = self._ask(**{"do": "send", "path": str(path), "port": self.port, **how})
        assert sent["sha256"] == hash_of(path)
        return sent

    def _endpoint(self) -> str:
        return next(iter(self._server.client.endpoints())).id

    def _ask(self, **what: object) -> dict[str, object]:
        stand.tell(self._sender, **what)
        return stand.hear(self._sender)


@contextmanager
def ends(at: Path) -> Iterator[tuple[stand.Server, Ends]]:
    """Everything, running."""
    module, pem = [sys.executable, "-m", "benchmarks.sending"], echo.make_certificate(at)
    with ExitStack() as stack:
        server = stack.enter_context(stand.server(at))
        serving = stack.enter_context(stand.process([*module, "serve", str(pem)], at / "floor.log"))
        sender = stack.enter_context(stand.process([*module, "send"], at / "sender.log"))
        token = server.token(uses=1)
        stand.tell(sender, gateway=server.gateway, token=token.token, ca=server.ca, agents=1)
        stand.hear(sender)
        footprint.wait_online(server)
        yield server, Ends(server, sender, int(stand.number(stand.hear(serving), "port")), pem)


def over_a_line(at: Path, ends: Ends, path: Path) -> tuple[float, float]:
    """Seconds of bare PUTs, and of the same as evidence, where the line is the narrow place."""
    with ExitStack() as stack:
        ports = []
        for name, port in (("bare", ends.floor), ("evidence", ends.port)):
            command = [sys.executable, "-m", "benchmarks.sending", "line", str(port), str(GIGABIT)]
            ports.append(stand.hear(stack.enter_context(stand.process(command, at / f"line-{name}.log")))["port"])
        bare, sent = ends.bare(path, port=ports[0]), ends.send(path, port=ports[1])
    return stand.number(bare, "seconds"), stand.number(sent, "seconds")


class Memory:
    """The most memory of a process while this lasts."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stop = pid, threading.Event()
        self.before = self.most = stand.rss_bytes(pid)
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        """In MiB."""
        return (self.most - self.before) / MIB

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.most = max(self.most, stand.rss_bytes(self._pid))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=2048, help="size of the incompressible file")
    parser.add_argument("--sparse-mib", type=int, default=4096, help="size of the sparse file")
    parser.add_argument("--data-mib", type=int, default=100, help="data in the sparse file")
    parser.add_argument("--cut-mib", type=int, default=512, help="size of the file that is sent through cuts")
    parser.add_argument("--line-mib", type=int, default=512, help="size of the file that is sent over 1 Gbit/s")
    parser.add_argument("--cuts", type=int, default=50)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        at = stack.enter_context(stand.folder())
        server, both = stack.enter_context(ends(at))
        large = random_file(at / "large", chosen.mib * MIB)
        warm = random_file(at / "warm", 64 * MIB)
        both.bare(warm), both.send(warm)
        floors = [both.bare(large)]
        cpu = stand.cpu_seconds(server.pid)
        with Memory(server.pid) as memory:
            sent = both.send(large)
        cpu = stand.cpu_seconds(server.pid) - cpu
        floors.append(both.bare(large))
        large.unlink()
        lined = over_a_line(at, both, random_file(at / "lined", chosen.line_mib * MIB))
        harness.progress(f"over 1 Gbit/s: bare {lined[0]:.2f} s, as evidence {lined[1]:.2f} s")
        harness.progress(f"bare {json.dumps(floors)}, as evidence {json.dumps(sent)}, server cpu {cpu:.2f} s")
        sparse = both.send(sparse_file(at / "sparse", chosen.sparse_mib * MIB, chosen.data_mib * MIB))
        harness.progress(f"sparse {sparse['seconds']:.2f} s")
        cut = both.send(
            random_file(at / "cut", chosen.cut_mib * MIB), do="cut", cuts=chosen.cuts, size=chosen.cut_mib * MIB
        )
        harness.progress(f"{cut['cuts']} cuts, {cut['passed']} bytes sent")
    bare = harness.median([stand.number(one, "seconds") for one in floors])
    taken, cuts = stand.number(sent, "seconds"), stand.number(cut, "cuts")
    again = max(0.0, stand.number(cut, "passed") / BLOCK - chosen.cut_mib * MIB / BLOCK)  # TLS counts, half a percent
    figures = {
        "mib": chosen.mib,
        "evidence_mib_per_s": chosen.mib / taken,
        "bare_mib_per_s": chosen.mib / bare,
        "endpoint_cpu_s": stand.number(sent, "cpu"),
        "bare_endpoint_cpu_s": harness.median([stand.number(one, "cpu") for one in floors]),
        "server_cpu_s": cpu,
        "evidence_over_gigabit_mib_per_s": chosen.line_mib / lined[1],
        "bare_over_gigabit_mib_per_s": chosen.line_mib / lined[0],
        "server_memory_growth_mib": memory.growth,
        "sparse_s": stand.number(sparse, "seconds"),
        "sparse_parts_sent": stand.number(sparse, "puts"),
        "cuts": cuts,
        "parts_sent_again": again,
    }
    bars = [
        harness.Bar(what="throughput, against bare PUTs", value=bare / taken, bar=0.8, better=">=", tried=TRIED),
        harness.Bar(what="over a line of 1 Gbit/s, against bare PUTs", value=lined[0] / lined[1], bar=0.8, better=">="),
        harness.Bar(what="sparse file, seconds", value=figures["sparse_s"], bar=10.0),
        harness.Bar(what="parts sent again for each cut", value=again / cuts, bar=1.0),
        harness.Bar(what="growth of the server's memory, MiB", value=memory.growth, bar=64.0),
    ]
    harness.report("transfer", figures, bars)


if __name__ == "__main__":
    main()
