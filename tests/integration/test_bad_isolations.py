"""What cannot be meant, and machines that cannot do it: each is refused or told with its reason, and nothing lies.

By real `stanch` commands, against a real server and a real agent; the second half on an endpoint whose nft, rights or
disk are not what they should be.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.core.errors import Invalid, StanchError, Unavailable, Unsupported
from stanch.core.isolation import IsolationStatus
from stanch.core.network import IsolationState
from stanch.core.rest import EndpointView, TokenCreated
from stanch.core.task import State
from stanch.demo.lab import HOSTNAME, Lab
from stanch.demo.program import wait_until
from stanch.demo.responder import STANCH
from stanch.demo.stage import AGENT_PLACES, Stage, each, pin_in, sign_in, url_in

SECONDS = 30.0
NFT = "/usr/sbin/nft"
REAL = "/run/real-nft"
BLOCK = ("block-address", HOSTNAME, "--network", "203.0.113.99")

OLD = f"""#!/bin/sh
# An nft that was built without JSON.
for one; do [ "$one" = -j ] && {{ echo 'Error: JSON support not compiled-in' >&2; exit 1; }}; done
exec {REAL} "$@"
"""

NO_EGRESS = f"""#!{sys.executable}
# A kernel without egress hooks, as nft tells of it.
import subprocess, sys

REFUSED = "Error: Could not process rule: Operation not supported"
if "-i" in sys.argv:
    child = subprocess.Popen(["{REAL}", *sys.argv[1:]], stdin=subprocess.PIPE)
    for line in sys.stdin:
        if "egress" in line:
            print(REFUSED, flush=True)
        else:
            child.stdin.write(line.encode())
            child.stdin.flush()
    child.stdin.close()
    sys.exit(child.wait())
text = sys.stdin.read() if "-f" in sys.argv else ""
if "egress" in text:
    sys.exit(REFUSED)
sys.exit(subprocess.run(["{REAL}", *sys.argv[1:]], input=text.encode()).returncode)
"""


async def test_isolating_the_machine_of_the_server_is_refused(server, agent):
    """The reason and the way out are told, at a dry run too, which is all that this machine may be asked for here."""
    order = await server.api.submit("isolate", agent.endpoint, {}, dry_run=True)
    task = await server.api.finished(order)
    assert task.state is State.FAILED
    assert task.error.code == "conflict"
    assert "127.0.0.1" in task.error.got
    assert "--force" in task.error.hint


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A lab with a server and an endpoint that is online."""
    with Lab(labs=tmp_path_factory.mktemp("labs")) as lab, Stage(lab) as stage:
        url = url_in(stage.start_server(), "api")
        pin = pin_in(stage.program("server").said())
        sign_in(stage.responder, url=url, pin=pin, password=stage.server_place.password)
        stage.enrol(stage.responder.one(TokenCreated, "token", "create"))
        run_agent(stage)
        lab.endpoint.path(REAL).write_bytes(Path(NFT).read_bytes())
        lab.endpoint.path(REAL).chmod(0o755)
        yield stage


def run_agent(stage: Stage, *before: str) -> None:
    """Start an agent, with something before its command line, and wait for its link."""
    log = f"agent-{time.monotonic_ns()}.log"
    argv = (*before, *STANCH, "agent", "run")
    stage._programs["agent"] = stage.lab.start(stage.lab.endpoint, argv, log=log, env=AGENT_PLACES)
    assert wait_until(lambda: stage.links > 0, within=SECONDS), stage.program("agent").said()[-2000:]


@contextmanager
def agent_with(
    stage: Stage, *, nft: str | None = None, mode: int = 0o755, before: tuple[str, ...] = ()
) -> Iterator[None]:
    """Another agent on the endpoint, where nft is this program; afterwards the usual one is back."""
    endpoint = stage.lab.endpoint
    if nft is not None:
        endpoint.path("/run/nft").write_text(nft)
        endpoint.path("/run/nft").chmod(mode)
        assert endpoint.run("mount", "--bind", "/run/nft", NFT).code == 0
    try:
        stage.kill_agent()
        run_agent(stage, *before)
        yield
        assert "Traceback" not in stage.program("agent").said()
    finally:
        if nft is not None:
            endpoint.run("umount", NFT)
        stage.kill_agent()
        run_agent(stage)
        stage.responder.order("release", HOSTNAME)


def told(stage: Stage) -> IsolationStatus:
    """What the server says of the isolation."""
    view = stage.responder.one(EndpointView, "endpoint", "show", HOSTNAME)
    assert view.isolation is not None
    return view.isolation


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("allow", "reason"),
    [
        (("0.0.0.0/0",), "force"),
        (("::/0",), "force"),
        (("any",), "force"),
        (("out tcp any",), "force"),
        (("::ffff:0:0/96",), "force"),
        (("0.0.0.0/1", "128.0.0.0/1"), "force"),
        (("tcp 10.0.0.0/8 remote 1-100",), "in or out: a range opens one direction only"),
        (("both udp 10.0.0.0/8 local 1-100",), "in or out: a range opens one direction only"),
        (("out 10.0.0.0/8 remote 80",), "tcp or udp before the peer"),
        (("fe80::1%eth0",), "without a zone id"),
        (("in tcp any user root",), "out: who receives"),
        (("out any user root unit cron.service",), "one of them"),
        (("out tcp any remote 65536",), "a port from 1 to 65535"),
        (("out tcp any remote 9-1",), "its smaller end first"),
        (("tcp",), "a network, an address, a host name or any"),
        (("in out any",), "user"),
        (tuple(f"10.0.{n // 250}.{n % 250}" for n in range(10_001)), "10000"),
    ],
)
def test_what_cannot_be_meant_is_refused(stage, allow, reason):
    """By the server, with what would be right; the endpoint hears nothing of it."""
    with pytest.raises(Invalid) as raised:
        stage.responder.order("isolate", HOSTNAME, *each("--allow", *allow))
    assert reason in str(raised.value)
    assert len(str(raised.value)) < 10_000


@pytest.mark.root
@pytest.mark.slow
def test_everything_that_is_allowed_is_in_force(stage):
    """10,000 exclusions; overlapping ones, twice the same, and one that is another written in IPv6."""
    allow = (*(f"10.1.{n // 250}.{n % 250}" for n in range(9_996)), "10.0.0.5/8", "10.0.0.0/8", "::ffff:10.2.0.1")
    task = stage.responder.order("isolate", HOSTNAME, *each("--allow", *allow), "--duration", "1m")
    assert task.result["state"] == "isolated"
    seen = told(stage)
    assert seen.state is IsolationState.ISOLATED
    assert seen.allow[-1].startswith("... and ")
    again = stage.responder.order("isolate", HOSTNAME, "--allow", "0.0.0.0/0", "--force", "--duration", "1m")
    assert again.result["changed"]
    stage.responder.order("release", HOSTNAME)
    assert told(stage).state is IsolationState.RELEASED


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"nft": "", "mode": 0o644}, "not installed"),
        ({"nft": OLD}, "built with JSON"),
        ({"before": ("setpriv", "--bounding-set=-net_admin", "--")}, "CAP_NET_ADMIN"),
    ],
    ids=["no nft", "old nft", "no right"],
)
def test_a_machine_that_cannot_isolate_says_so(stage, how, reason):
    """Unsupported, with what would make it possible; the state stays what it is."""
    with agent_with(stage, **how):
        with pytest.raises(Unsupported) as raised:
            stage.responder.order("isolate", HOSTNAME, "--duration", "1m")
        assert reason in str(raised.value)
        assert told(stage).state is IsolationState.RELEASED
        with pytest.raises(StanchError):
            stage.responder.order(*BLOCK, "--duration", "10s")


@pytest.mark.root
@pytest.mark.slow
def test_a_kernel_without_egress_hooks_does_a_part_of_it(stage):
    """What is not covered is told, device by device."""
    with agent_with(stage, nft=NO_EGRESS):
        task = stage.responder.order("isolate", HOSTNAME, "--duration", "1m")
        assert task.result["state"] == "partial"
        assert "eth0" in task.result["not_covered"][0]
        assert told(stage).state is IsolationState.PARTIAL


@pytest.mark.root
@pytest.mark.slow
def test_an_nft_that_goes_away_makes_the_state_unknown_not_true(stage):
    """The isolation stays in the kernel, nobody can see it, and that is what is told."""
    stage.responder.order("isolate", HOSTNAME, "--duration", "1m")
    with agent_with(stage, nft="", mode=0o644):
        seen = told(stage)
        assert seen.state is IsolationState.PARTIAL
        assert "Nobody knows" in seen.not_covered[0]
        with pytest.raises(Unsupported):
            stage.responder.order("release", HOSTNAME)


@pytest.mark.root
@pytest.mark.slow
def test_a_read_only_etc_changes_nothing(stage):
    """The agent writes nothing there."""
    endpoint = stage.lab.endpoint
    assert endpoint.run("mount", "--bind", "/etc", "/etc").code == 0
    try:
        assert endpoint.run("mount", "-o", "remount,bind,ro", "/etc").code == 0
        with agent_with(stage):
            task = stage.responder.order("isolate", HOSTNAME, "--duration", "1m")
            assert task.result["state"] == "isolated"
    finally:
        endpoint.run("umount", "/etc")


@pytest.mark.root
@pytest.mark.slow
def test_a_full_disk_neither_opens_nor_ends_anything(stage):
    """The agent starts, keeps the isolation, and says why root's word cannot be written down."""
    endpoint = stage.lab.endpoint
    stage.responder.order("isolate", HOSTNAME, "--duration", "2m", "--allow", "10.0.0.0/8")
    endpoint.run("sh", "-c", "cat /dev/zero > /var/lib/fill")
    try:
        stage.kill_agent()
        run_agent(stage)
        endpoint.run("nft", "flush", "ruleset")
        assert wait_until(lambda: "armed" in stage.ruleset(), within=SECONDS)
        assert told(stage).state is IsolationState.ISOLATED
        environment = [f"{name}={value}" for name, value in {**AGENT_PLACES, **stage.responder.environment}.items()]
        done = endpoint.run("env", *environment, *STANCH, "local", "isolation", "off", "--yes")
        assert done.code == Unavailable.exit_code
        assert "end the agent" in done.complained
        assert "Traceback" not in stage.program("agent").said()
    finally:
        endpoint.run("rm", "/var/lib/fill")
    stage.responder.order("release", HOSTNAME)
