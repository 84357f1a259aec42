"""The story that `stanch demo` tells: an attack on an endpoint is seen, cut off, ended and examined.

Every step is checked from outside the agent: by listeners and an observer on the endpoint's cable, by the kernel's own
tables, by bytes read past the agent. What the agent reports is never taken as evidence of an effect.
"""

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanch.core.errors import StanchError, Unavailable
from stanch.core.rest import EndpointView, EvidenceView, OrderView, TaskView, TokenCreated
from stanch.demo.lab import C2_V4, C2_V6, HOSTNAME, SERVER_V4, SERVER_V6, SHOP_V4, SHOP_V6
from stanch.demo.program import wait_until
from stanch.demo.questions import Span
from stanch.demo.report import Report, expect
from stanch.demo.responder import monotonic_of
from stanch.demo.stage import STOLEN, Stage, pin_in, sign_in, url_in

BEACONS = ("tcp4", "tcp6", "udp4", "udp6")
PINGS = ("ping4", "ping6")
CLIENT = ("client4", "client6")
FORBIDDEN = (*BEACONS, *PINGS, *CLIENT, "other")
"""What must not be seen of an isolated endpoint; `other` is every frame that nobody can account for."""

IPV4, IPV6 = FAMILIES = (4, 6)
FLOWING = 3
"""So many of a kind show that it goes on."""

QUIET_SECONDS = 1.5
READ_SECONDS = 0.15
"""A listener may note a beacon this much later than it came."""

WAIT_SECONDS = 30.0
RETURN_SECONDS = 120.0
"""An agent without its server tries again ever more rarely."""

OUTAGE_ISOLATION = 10
"""Seconds of the isolation that must end while the server is down."""

RESUME_SECONDS = 2.0
"""The client asks again at least this often, answered or not."""

Chapter = tuple[str, Callable[[], str]]


@dataclass(frozen=True, slots=True)
class Reference:
    """When an order was given, and when its task was done, on the outside's clock."""

    ordered: float
    done: float

    @classmethod
    def of(cls, task: TaskView) -> "Reference":
        """By the server's own record."""
        return cls(monotonic_of(task.created), monotonic_of(task.changed))


class Story:
    """Steps in order; each returns its evidence in words, or raises."""

    def __init__(self, stage: Stage, report: Report) -> None:
        self._stage, self._report = stage, report
        self._responder = stage.responder
        self._pids: dict[str, int] = {}
        self._root: dict[str, Any] = {}
        self._isolated = Reference(0, 0)
        self._released = Reference(0, 0)
        self._short = Reference(0, 0)

    def tell(self) -> bool:
        """Run all steps, or up to one without which the rest means nothing; did every check hold?"""
        chapters = list(self._chapters())
        for number, (name, do) in enumerate(chapters, 1):
            if not self._report.run(name, do):
                left = ", ".join(name for name, _ in chapters[number:])
                self._report.remark(f"  not run: {left}")
                break
        return self._report.all_held

    def _chapters(self) -> Iterator[Chapter]:
        yield "attack", self.attack
        yield "server-first-start", self.server_first_start
        yield "enrol", self.enrol
        yield "look", self.look
        yield "dry-run", self.dry_run
        yield "isolate", self.isolate
        yield "idle-connection-dead", self.idle_connection_dead
        yield "server-link-alive", self.server_link_alive
        yield "kill-tree", self.kill_tree
        yield "get-file", self.get_file
        yield "release", self.release
        yield "idle-stays-dead", self.idle_stays_dead
        yield "isolate-again", self.isolate_again
        yield "server-outage", self.server_outage
        yield "server-back", self.server_back
        yield "orders-tell-all", self.orders_tell_all

    # --- before ------------------------------------------------------------------------------------------------------

    def attack(self) -> str:
        """The attack works: every kind of beacon arrives outside, and both idle connections stand."""
        self._stage.open_world()
        self._stage.start_client()
        self._stage.start_attack()
        said = [json.loads(line) for line in self._stage.program("attack").said().splitlines()]
        self._pids = {one["role"]: one["pid"] for one in said if "role" in one}
        kinds = (*BEACONS, *PINGS, *CLIENT)
        arrived = wait_until(lambda: all(self._seen().count(kind) > 1 for kind in kinds), within=WAIT_SECONDS)
        seen = self._seen()
        expect(arrived, "Some beacons do not arrive", got={kind: seen.count(kind) for kind in kinds})
        expect(len(seen.idle) == len(FAMILIES), "The idle connections are not there", got=seen.idle)
        return (
            f"{len(self._pids)} processes on {HOSTNAME}; outside: {seen.count(*BEACONS)} beacons (TCP and UDP), "
            f"{seen.count(*PINGS)} raw pings, 2 idle connections, all on IPv4 and IPv6"
        )

    def server_first_start(self) -> str:
        """A new server makes its keys and its administrator, and lets them in."""
        ready = self._stage.start_server()
        url, pin = url_in(ready, "api"), pin_in(self._stage.program("server").said())
        who = sign_in(self._responder, url=url, pin=pin, password=self._stage.server_place.password)
        return f"{url} answers under the pinned CA {pin[:12]}…; signed in as {who}"

    def enrol(self) -> str:
        """The endpoint enrols with a token and its agent comes online."""
        token = self._responder.one(TokenCreated, "token", "create")
        self._stage.enrol(token)
        self._stage.start_agent()
        self._wait_online()
        view = self._view()
        return f"{view.hostname} is {view.id}, online, agent {view.agent_version}, {len(view.actions)} actions"

    def look(self) -> str:
        """The process list shows the tree that the attack says it has."""
        task = self._responder.order("list-processes", HOSTNAME, "--match", "stanch.demo.attack")
        rows = {row["pid"]: row for row in (task.result or {}).get("processes", ())}
        missing = {role: pid for role, pid in self._pids.items() if pid not in rows}
        expect(not missing, "Processes of the attack are not in the list", got=sorted(rows), expected=self._pids)
        self._root = rows[self._pids["dropper"]]
        parents = {rows[self._pids[role]]["parent"] for role in ("beacon", "idle", "ping")}
        expect(parents == {self._pids["loader"]}, "The tree has another shape", got=parents, expected=self._pids)
        return f"all {len(self._pids)} found as a tree below {self._root['name']}, pid {self._root['pid']}"

    def dry_run(self) -> str:
        """A dry run says what would happen, and nothing happens."""
        task = self._responder.order("isolate", HOSTNAME, "--dry-run")
        steps = (task.result or {}).get("steps", ())
        expect(bool(steps), "The plan is empty", got=task.result)
        since = time.monotonic()
        flowing = wait_until(
            lambda: all(self._seen(since).count(kind) >= FLOWING for kind in (*BEACONS, *PINGS, *CLIENT)),
            within=WAIT_SECONDS,
        )
        expect(flowing, "Something stopped after a dry run", got=self._counts(self._seen(since)))
        rules = self._stage.ruleset()
        expect(not rules, "The kernel has rules after a dry run", got=rules)
        return f"{len(steps)} steps planned; all beacons go on and the kernel has no rule"

    # --- isolated ----------------------------------------------------------------------------------------------------

    def isolate(self) -> str:
        """Nothing but the server's traffic leaves the endpoint any more."""
        task = self._responder.order("isolate", HOSTNAME, "--duration", "30m", "--reason", "beacons to two addresses")
        self._isolated = Reference.of(task)
        cut = (task.result or {}).get("sockets_destroyed", 0)
        least = f"at least {len(FAMILIES)}, the idle ones"
        expect(cut >= len(FAMILIES), "The report counts fewer connections than were cut", got=cut, expected=least)
        time.sleep(QUIET_SECONDS)
        self._expect_silence(self._isolated.done + READ_SECONDS)
        shown = self._view().effects
        expect(len(shown) == 1 and shown[0].until is not None, "The server does not show the isolation", got=shown)
        seen = self._seen(self._isolated.ordered - 1)
        beacon, ping = (_offset(self._isolated.ordered, seen.last(*kinds)) for kinds in (BEACONS, PINGS))
        took = round((self._isolated.done - self._isolated.ordered) * 1000)
        return (
            f"done {took} ms after the order, {cut} connections cut; last beacon {beacon}, last raw ping {ping}, "
            f"then 0 foreign frames on the cable in {QUIET_SECONDS} s"
        )

    def idle_connection_dead(self) -> str:
        """The connections that only receive are gone, on both sides, while their process still runs."""
        expect(self._stage.lab.endpoint.alive(self._pids["idle"]), "Their process has ended", got=self._pids)
        left = self._stage.lab.endpoint.connections(C2_V4, C2_V6, SHOP_V4, SHOP_V6)
        expect(not left, "The endpoint's kernel still has connections", got=left)
        dead = wait_until(lambda: len(self._died()) == len(FAMILIES), within=WAIT_SECONDS)
        expect(dead, "The process was not told that its connections are dead", got=self._died())
        self._stage.world.push(IPV4)
        time.sleep(QUIET_SECONDS / 3)
        (idle,) = [one for one in self._seen().idle if one["family"] == IPV4]
        expect(
            idle["state"] != "open" or idle["unacknowledged"] > 0,
            "Bytes from outside were acknowledged by the isolated endpoint",
            got=idle,
        )
        errors = ", ".join(sorted({str(one["error"]) for one in self._died()}))
        return f"both ended with {errors} at the endpoint; bytes pushed from outside stay unacknowledged"

    def server_link_alive(self) -> str:
        """The server still reaches its agent: it answers, and its frames are the only ones."""
        since = time.monotonic()
        self._responder.order("list-processes", HOSTNAME, "--match", "nobody")
        seen = self._seen(since)
        expect(seen.count("server") > 0, "No frame to the server was seen", got=self._counts(seen))
        for address in (SERVER_V4, SERVER_V6):
            self._stage.dial_server(address)
        self._expect_silence(self._isolated.done + READ_SECONDS)
        frames = seen.count("server")
        return (
            f"an order came back in {frames} frames, the server is reached by IPv4 and IPv6, 0 frames to anybody else"
        )

    def kill_tree(self) -> str:
        """The whole tree is gone from the endpoint's process table."""
        started = str(self._root["started"])
        task = self._responder.order("kill-process", HOSTNAME, "--pid", str(self._root["pid"]), "--started", started)
        left = {role: pid for role, pid in self._pids.items() if self._stage.lab.endpoint.alive(pid)}
        expect(not left, "Some of the tree still run", got=left)
        said = len((task.result or {}).get("processes", ()))
        expect(said == len(self._pids), "The report counts otherwise", got=said, expected=len(self._pids))
        return f"{len(self._pids)} of {len(self._pids)} gone from /proc of the endpoint"

    def get_file(self) -> str:
        """The file arrives as it is: compared with a hash that was taken past the agent."""
        with self._stage.lab.endpoint.path(STOLEN).open("rb") as file:
            expected = hashlib.file_digest(file, "sha256").hexdigest()
        task = self._responder.order("get-file", HOSTNAME, "--path", STOLEN)
        (view,) = self._responder.listed(EvidenceView, "evidence", "list", "--task", task.id)
        copy = self._stage.lab.folder / "fetched.bin"
        self._responder.stanch("evidence", "get", view.id, "--output", str(copy))
        got = _sha256(copy)
        expect(got == expected, "The file is another one", got=got, expected=expected)
        return f"{copy.stat().st_size} bytes fetched while isolated, SHA-256 {got[:16]}… as computed outside"

    # --- released ----------------------------------------------------------------------------------------------------

    def release(self) -> str:
        """The harmless client gets through again, and no rule is left."""
        self._released = Reference.of(self._responder.order("release", HOSTNAME, "--reason", "tree ended"))
        since = self._released.ordered
        back = wait_until(lambda: all(self._seen(since).count(one) > 0 for one in CLIENT), within=WAIT_SECONDS)
        expect(back, "The client does not get through", got=self._counts(self._seen(since)))
        rules = self._stage.ruleset()
        expect(not rules, "The kernel still has rules", got=rules)
        first = self._seen(since).first(*CLIENT)
        return f"first question of the client {_ms(since, first)} after the order; no rule is left"

    def idle_stays_dead(self) -> str:
        """What was cut stays cut: the endpoint resets what the outside pushes, and no beacon comes back."""
        self._stage.world.push(IPV6)
        dead = wait_until(lambda: all(one["state"] != "open" for one in self._seen().idle), within=WAIT_SECONDS)
        seen = self._seen()
        expect(dead, "An idle connection lives", got=seen.idle)
        left = self._stage.lab.endpoint.connections(C2_V4, C2_V6)
        expect(not left, "The endpoint's kernel has connections again", got=left)
        again = self._seen(self._isolated.done + READ_SECONDS).count(*BEACONS, *PINGS)
        expect(again == 0, "Beacons came back", got=again)
        states = ", ".join(sorted({str(one["state"]) for one in seen.idle}))
        return f"bytes pushed after the release are answered with {states}; 0 beacons since the isolation"

    # --- without the server ------------------------------------------------------------------------------------------

    def isolate_again(self) -> str:
        """A second, short isolation is in force, and then the server is killed."""
        task = self._responder.order("isolate", HOSTNAME, "--duration", f"{OUTAGE_ISOLATION}s")
        self._short = Reference.of(task)
        self._stage.program("server").process.send_signal(signal.SIGKILL)
        self._stage.program("server").process.wait(WAIT_SECONDS)
        time.sleep(QUIET_SECONDS)
        self._expect_silence(self._short.done + READ_SECONDS)
        return f"for {OUTAGE_ISOLATION} s; the server was killed, and nothing leaves the endpoint"

    def server_outage(self) -> str:
        """The isolation ends at its own deadline, with nobody there to order it."""
        earliest, latest = self._short.ordered + OUTAGE_ISOLATION, self._short.done + OUTAGE_ISOLATION
        since = self._short.done + READ_SECONDS
        within = max(0.0, latest - time.monotonic()) + WAIT_SECONDS
        back = wait_until(lambda: all(self._seen(since).count(one) > 0 for one in CLIENT), within=within)
        expect(back, "It was not lifted", got=self._counts(self._seen(since)), expected=f"after {OUTAGE_ISOLATION} s")
        first = self._seen(since).first("other", *CLIENT) or 0.0
        expect(
            earliest - READ_SECONDS <= first <= latest + RESUME_SECONDS,
            "It was lifted at another time than its deadline",
            got=f"{first - self._short.ordered:.2f} s after the order",
            expected=f"{OUTAGE_ISOLATION} to {latest - self._short.ordered + RESUME_SECONDS:.2f} s",
        )
        return (
            f"server down; first frame {first - self._short.done:.2f} s after it was isolated for {OUTAGE_ISOLATION} s"
        )

    def server_back(self) -> str:
        """The server starts again on its data, and the agent is back with nothing in force."""
        self._stage.start_server()
        self._wait_online(within=RETURN_SECONDS)
        quiet = wait_until(lambda: not self._view().effects, within=WAIT_SECONDS)
        expect(quiet, "The server still believes in an effect", got=self._view().effects)
        self._responder.order("list-processes", HOSTNAME, "--match", "nobody")
        return f"{HOSTNAME} is online again, no effect in force, and answers an order"

    def orders_tell_all(self) -> str:
        """Everything that was ordered is on record, and ended well."""
        orders = self._responder.listed(OrderView, "orders")
        names = {order.action for order in orders}
        expected = {"list_processes", "isolate", "kill_process", "get_file", "release"}
        expect(names == expected, "The list of orders is not complete", got=sorted(names), expected=sorted(expected))
        unfinished = [f"{one.action}: {dict(one.states)}" for one in orders if set(one.states) != {"done"}]
        expect(not unfinished, "Not every order is done", got=unfinished)
        origins = {str(one.origin) for one in orders}
        expect(origins == {"cli"}, "Orders came another way", got=origins)
        return f"{len(orders)} orders, all done, all by {orders[0].requested_by} on the command line"

    # --- looking -----------------------------------------------------------------------------------------------------

    def _seen(self, since: float = 0.0) -> Span:
        return self._stage.world.seen(since=since)

    def _counts(self, seen: Span) -> dict[str, int]:
        return {name: stream["count"] for name, stream in seen.streams.items() if stream["count"]}

    def _expect_silence(self, since: float) -> None:
        seen = self._seen(since)
        got = {name: seen.count(name) for name in FORBIDDEN if seen.count(name)}
        strays = seen.strays[-3:] if "other" in got else ()
        expect(not got, "The isolated endpoint is heard outside", got=f"{got} {' | '.join(strays)}".strip())

    def _died(self) -> list[dict[str, Any]]:
        said = [json.loads(line) for line in self._stage.program("attack").said().splitlines()]
        return [one for one in said if one.get("idle") == "dead"]

    def _view(self) -> EndpointView:
        return self._responder.one(EndpointView, "endpoint", "show", HOSTNAME)

    def _wait_online(self, *, within: float = WAIT_SECONDS) -> None:
        if not wait_until(self._online, within=within):
            raise Unavailable("The agent does not come online", got=self._stage.program("agent").said()[-1000:])

    def _online(self) -> bool:
        try:
            return self._view().online
        except StanchError:
            return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ms(since: float, at: float | None) -> str:
    return "never" if at is None else f"{round((at - since) * 1000)} ms"


def _offset(order: float, at: float | None) -> str:
    """When something came, seen from an order."""
    ms = round(((at or 0.0) - order) * 1000)
    return "never" if at is None else f"{abs(ms)} ms {'after' if ms >= 0 else 'before'} it"
