"""What else of the machine the agent works with: containers' runtimes, and systemd with our units."""

import sys
from contextlib import suppress
from pathlib import Path

from stanch.agent.host.containers import LinuxContainers
from stanch.agent.host.run import find
from stanch.agent.selftest_probe import Bench, Finding, Probe, limited, ok, skipped
from stanch.agent.systemd import AGENT, Systemd
from stanch.core.containers import Runtime
from stanch.core.errors import StanchError
from stanch.core.types import seconds
from stanch.disk import service_files

_INSTALL = "stanch agent service install, and then what it says."


async def containers(_bench: Bench) -> Finding:
    """Which runtimes answer?"""
    by_groups, *runtimes = await LinuxContainers().runtimes()
    silent = [str(one) for one in runtimes if not one.answers and _is_there(one)]
    answer = [str(one) for one in runtimes if one.answers]
    if silent:
        return limited(
            "; ".join([*silent, *answer])[:2000], "Is it started? Containers are still found by their groups."
        )
    if answer:
        return ok("; ".join(answer)[:2000])
    return ok(str(by_groups)) if by_groups.answers else skipped(f"no container runtime; {by_groups}")


def _is_there(one: Runtime) -> bool:
    """Is there anything that could answer?"""
    with suppress(StanchError):
        return Path(one.place).exists() if one.place.startswith("/") else bool(find(one.place))
    return False


async def systemd(bench: Bench) -> Finding:
    """Is the agent started at boot, and isolation restored?"""
    there = Systemd(root=bench.root)
    files = await bench.in_thread(lambda: service_files.files(bench.root, sys.executable))
    packaged = await bench.in_thread(lambda: service_files.packaged(bench.root))
    told = f"files: {len(packaged)} of a package, " + ", ".join(f"{one.path.name} {one.state}" for one in files)
    if not there.runs:
        return skipped(f"systemd is not process 1; {told}", "Let your init system run: stanch agent run")
    if not packaged and any(one.state in {"absent", "outdated"} for one in files):
        return limited(told, _INSTALL)
    units = await there.units()
    enabled = units.get(AGENT, {}).get("UnitFileState", "unknown")
    active = units.get(AGENT, {}).get("ActiveState", "unknown")
    seen = f"{AGENT} is {enabled}, {active}; {told}"
    if (enabled, active) != ("enabled", "active"):
        return limited(seen, "systemctl enable --now stanch-isolation.service stanch-agent.service")
    return ok(seen)


MACHINE_PROBES = (
    Probe(name="containers", look=containers, within=seconds(20)),
    Probe(name="systemd", look=systemd, within=seconds(35)),
)
