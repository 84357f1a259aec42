"""One order to thousands of agents, until every result is committed, against a bare WebSocket echo.

The agents are simulated, but everything they do on the wire is real: mutual TLS 1.3, the signature of each envelope is
verified, each answers with a result that the server checks, stores and acknowledges. The floor is an echo of frames of
the same sizes over as many connections of the same kind, run in turns with the orders.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen

from joserfc.jwk import OKPKey

from benchmarks import echo, harness, stand
from stanch.core.envelope import Envelope, OrderBody, sign, verify
from stanch.core.rest import OrderCommon

TRIED = (
    "Tasks are committed as sent with their order, reports share commits and one prepared statement, the header of a "
    "signature is encoded once, garbage is collected seldom: from 12 times the echo to this. Signing and verifying "
    "alone costs two echoes; the rest is two commits and a checked result for each agent, in Python, on two cores that "
    "the agents share. The second bar counts the signatures in. More cores, or several gateway processes, would help."
)

LABEL = "bench=dispatch"


@contextmanager
def simulated(server: stand.Server, count: int) -> Iterator[Popen[str]]:
    """That many simulated agents, connected."""
    token = server.token(uses=count, labels=(LABEL,))
    with stand.process([sys.executable, "-m", "benchmarks.simulated"], server.folder / "agents.log") as agents:
        stand.tell(agents, gateway=server.gateway, token=token.token, ca=server.ca, agents=count)
        harness.progress(f"{stand.hear(agents)['enrolled']} agents enrolled")
        stand.tell(agents)
        up = stand.hear(agents)
        harness.progress(f"{up['connected']} links up in {up['seconds']:.1f} s")
        yield agents


@contextmanager
def floor(at: Path, count: int, answer_bytes: int) -> Iterator[Popen[str]]:
    """An echo server with that many connections."""
    pem = str(echo.make_certificate(at))
    module = [sys.executable, "-m", "benchmarks.echo"]
    with stand.process([*module, "serve", pem], at / "echo.log") as serving:
        port = str(stand.hear(serving)["port"])
        with stand.process([*module, "connect", pem, port, str(count), str(answer_bytes)], at / "echoing.log") as ends:
            stand.hear(ends)
            yield serving


def order(server: stand.Server, agents: Popen[str], *, action: str = "list_processes") -> dict[str, float]:
    """One order to all of them: seconds until the last acknowledgement, and the server's CPU."""
    stand.tell(agents)
    stand.hear(agents)
    cpu, started = stand.cpu_seconds(server.pid), time.monotonic()
    server.client.submit(action, OrderCommon(labels=(LABEL,)), {})
    answered = time.monotonic()
    heard = stand.hear(agents)
    return {
        "seconds": stand.number(heard, "acked") - started,
        "submit": answered - started,
        "cpu": stand.cpu_seconds(server.pid) - cpu,
        "sent": stand.number(heard, "received_bytes"),
        "answered": stand.number(heard, "sent_bytes"),
    }


def check(server: stand.Server, rounds: int, count: int) -> None:
    """Every task of every order is done: the figure would mean nothing otherwise."""
    states = [one.states for one in server.client.orders()]
    assert len(states) == rounds, states
    assert all(dict(one) == {"done": count} for one in states), states


def signatures() -> float:
    """Seconds for one signature and one verification, as server and agents make them."""
    key = OKPKey.generate_key("Ed25519", {"kid": "k"})
    body = OrderBody(
        task="t" * 36, order="o" * 36, action="list_processes", action_version=1, params={}, origin="api",
        requested_by="admin",
    )  # fmt: skip
    envelope = Envelope(endpoint="e" * 36, id="i" * 36, iat=1, exp=2, body=body)
    token = sign(envelope, key)
    signing = harness.seconds(lambda: sign(envelope, key), 1000)
    return signing + harness.seconds(
        lambda: verify(token, keys={"k": key}, endpoint="e" * 36, now=None, versions={}), 1000
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        at = stack.enter_context(stand.folder())
        server = stack.enter_context(stand.server(at))
        agents = stack.enter_context(simulated(server, chosen.agents))
        warm = order(server, agents)
        echoing = stack.enter_context(floor(at, chosen.agents, int(warm["answered"])))
        orders, floors = [], []
        for number in range(chosen.rounds):
            orders.append(order(server, agents))
            stand.tell(echoing, bytes=int(warm["sent"]))
            floors.append(stand.number(stand.hear(echoing), "seconds"))
            harness.progress(f"round {number + 1}: {orders[-1]['seconds']:.3f} s, echo {floors[-1]:.3f} s")
        check(server, chosen.rounds + 1, chosen.agents)
        taken = harness.median([one["seconds"] for one in orders])
        bare = harness.median(floors)
        figures = {
            "agents": chosen.agents,
            "order_to_all_committed_s": taken,
            "echo_s": bare,
            "submit_answered_s": harness.median([one["submit"] for one in orders]),
            "server_cpu_per_task_us": 1e6 * harness.median([one["cpu"] for one in orders]) / chosen.agents,
            "tasks_per_second": chosen.agents / taken,
            "order_frame_bytes": warm["sent"],
            "result_frame_bytes": warm["answered"],
        }
        signed = bare + chosen.agents * signatures() / (os.cpu_count() or 1)
        figures["echo_with_signatures_s"] = signed
    bars = [
        harness.Bar(what="order to all, against an echo", value=taken / bare, bar=4.0, tried=TRIED),
        harness.Bar(what="order to all, against an echo with signatures", value=taken / signed, bar=4.0),
    ]
    harness.report("dispatch", figures, bars)


if __name__ == "__main__":
    main()
