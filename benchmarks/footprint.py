"""What an idle endpoint costs, and what each connected agent costs the server."""

import argparse
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import dispatch, harness, stand

MEBIBYTE, KIBIBYTE = 2**20, 2**10


def wait_online(server: stand.Server, *, within: float = 60.0) -> None:
    """Until an endpoint's link is up."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if any(one.online for one in server.client.endpoints()):
            return
        time.sleep(0.1)
    raise RuntimeError(f"no endpoint came: {(server.folder / 'agent.log').read_text()[-2000:]}")


def named(pids: list[int], module: str) -> list[int]:
    """Those of the processes that run this module."""
    wanted = module.encode()
    return [pid for pid in pids if wanted in Path(f"/proc/{pid}/cmdline").read_bytes()]


def endpoint(server: stand.Server, at: Path, seconds: float) -> dict[str, float]:
    """Memory and CPU of a real, idle process tree.

    The proportional size is smaller here than on a machine of its own, since server and benchmark share the
    interpreter's pages; the resident size, which counts shared pages in full, is the upper bound.
    """
    with stand.agent(server, at) as root:
        wait_online(server)
        harness.progress(f"an endpoint is online; {seconds:.0f} s of doing nothing")
        time.sleep(5)
        pids = [pid for pid in stand.descendants(root.pid) if stand.pss_bytes(pid)]
        tree = [pid for pid in pids if b"unshare" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
        cpu = sum(map(stand.cpu_seconds, tree))
        time.sleep(seconds)
        spent = sum(map(stand.cpu_seconds, tree)) - cpu
        return {
            "endpoint_pss_mb": sum(map(stand.pss_bytes, tree)) / MEBIBYTE,
            "agent_pss_mb": sum(map(stand.pss_bytes, named(tree, "stanch.agent.main"))) / MEBIBYTE,
            "supervisor_pss_mb": sum(map(stand.pss_bytes, named(tree, "stanch.agent.supervisor"))) / MEBIBYTE,
            "endpoint_rss_mb": sum(map(stand.rss_bytes, tree)) / MEBIBYTE,
            "agent_rss_mb": sum(map(stand.rss_bytes, named(tree, "stanch.agent.main"))) / MEBIBYTE,
            "endpoint_cpu_percent": 100 * spent / seconds,
            "endpoint_processes": len(tree),
        }


def per_agent(server: stand.Server, count: int) -> dict[str, float]:
    """How much the server grows for each link."""
    before = stand.pss_bytes(server.pid)
    with dispatch.simulated(server, count) as agents:
        grown = stand.pss_bytes(server.pid) - before
        dispatch.order(server, agents)
        used = stand.pss_bytes(server.pid) - before
    return {
        "server_kb_per_agent": grown / count / KIBIBYTE,
        "server_kb_per_agent_after_an_order": used / count / KIBIBYTE,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=2000)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        at = stack.enter_context(stand.folder())
        server = stack.enter_context(stand.server(at))
        figures = endpoint(server, at, chosen.seconds)
        figures |= per_agent(server, chosen.agents)
    bars = [
        harness.Bar(what="endpoint, all processes, PSS in MB", value=figures["endpoint_pss_mb"], bar=80),
        harness.Bar(what="agent alone, PSS in MB", value=figures["agent_pss_mb"], bar=65),
        harness.Bar(what="idle CPU of the endpoint in %", value=figures["endpoint_cpu_percent"], bar=0.3),
        harness.Bar(what="server memory per connected agent in KB", value=figures["server_kb_per_agent"], bar=70),
    ]
    harness.report("footprint", figures, bars)


if __name__ == "__main__":
    main()
