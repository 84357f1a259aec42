"""The first act: an attack works, a server and an agent are put up, and the responder looks before doing anything."""

import json
import time
from collections.abc import Iterator

from stanch.core.exclusion import Exclusion
from stanch.core.rest import TokenCreated
from stanch.demo.attack import ROLES
from stanch.demo.client import SHOP_PORT
from stanch.demo.lab import HOSTNAME, SHOP_V4, SHOP_V6
from stanch.demo.program import wait_until
from stanch.demo.report import expect
from stanch.demo.scene import BEACONS, CLIENT, FAMILIES, FLOWING, PINGS, WAIT_SECONDS, Chapter, Scene, counts
from stanch.demo.stage import each, pin_in, sign_in, url_in

SHOP_OPEN = tuple(f"out tcp {address} remote {SHOP_PORT}" for address in (SHOP_V4, SHOP_V6))
"""Exclusions for the harmless client."""


class Attack:
    """Up to the dry run."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._stage, self._responder = scene, scene.stage, scene.responder

    def chapters(self) -> Iterator[Chapter]:
        """In order."""
        yield "attack", self.attack
        yield "server-first-start", self.server_first_start
        yield "enrol", self.enrol
        yield "look", self.look
        yield "dry-run", self.dry_run

    def attack(self) -> str:
        """The attack works: every kind of beacon arrives outside, and both idle connections stand."""
        self._stage.open_world()
        self._stage.start_client()
        self._stage.start_attack()
        wait_until(lambda: set(self._roles()) == set(ROLES), within=WAIT_SECONDS)
        self._scene.plot.pids = self._roles()
        expect(set(self._roles()) == set(ROLES), "Some of the attack are missing", got=self._roles(), expected=ROLES)
        kinds = (*BEACONS, *PINGS, *CLIENT)
        arrived = self._scene.flows(kinds, 0.0, at_least=2)
        seen = self._scene.seen()
        expect(arrived, "Some beacons do not arrive", got={kind: seen.count(kind) for kind in kinds})
        expect(len(seen.idle) == len(FAMILIES), "The idle connections are not there", got=seen.idle)
        return (
            f"{len(self._scene.plot.pids)} processes on {HOSTNAME}; outside: {seen.count(*BEACONS)} beacons (TCP and "
            f"UDP), {seen.count(*PINGS)} raw pings, 2 idle connections, all on IPv4 and IPv6"
        )

    def _roles(self) -> dict[str, int]:
        """What the processes of the attack said of themselves: role to pid."""
        whole = self._stage.program("attack").said().rpartition("\n")[0]
        said = [json.loads(line) for line in whole.splitlines()]
        return {one["role"]: one["pid"] for one in said if "role" in one}

    def server_first_start(self) -> str:
        """A new server makes its keys and its administrator, and lets them in."""
        ready = self._stage.start_server()
        url, pin = url_in(ready, "api"), pin_in(self._stage.program("server").said())
        who = sign_in(self._responder, url=url, pin=pin, password=self._stage.server_place.password)
        self._scene.plot.who = who
        return f"{url} answers under the pinned CA {pin[:12]}…; signed in as {who}"

    def enrol(self) -> str:
        """The endpoint enrols with a token and its agent comes online."""
        token = self._responder.one(TokenCreated, "token", "create")
        self._stage.enrol(token)
        self._stage.start_agent()
        view = self._scene.online(links=0)
        return f"{view.hostname} is {view.id}, online, agent {view.agent_version}, {len(view.actions)} actions"

    def look(self) -> str:
        """The process list shows the tree that the attack says it has."""
        pids = self._scene.plot.pids
        task = self._responder.order("list-processes", HOSTNAME, "--match", "stanch.demo.attack")
        rows = {row["pid"]: row for row in (task.result or {}).get("processes", ())}
        missing = {role: pid for role, pid in pids.items() if pid not in rows}
        expect(not missing, "Processes of the attack are not in the list", got=sorted(rows), expected=pids)
        root = self._scene.plot.root = rows[pids["dropper"]]
        parents = {rows[pids[role]]["parent"] for role in ("beacon", "idle", "ping")}
        expect(parents == {pids["loader"]}, "The tree has another shape", got=parents, expected=pids)
        return f"all {len(pids)} found as a tree below {root['name']}, pid {root['pid']}"

    def dry_run(self) -> str:
        """A dry run says what would happen, what would stay open included, and nothing happens."""
        task = self._responder.order("isolate", HOSTNAME, "--dry-run", *each("--allow", *SHOP_OPEN))
        steps = (task.result or {}).get("steps", ())
        opened = [str(Exclusion.parse(one)) for one in SHOP_OPEN]
        kept = [step["target"] for step in steps if step["target"] in opened]
        expect(kept == opened, "The plan does not list the exclusions", got=kept, expected=opened)
        since = time.monotonic()
        flowing = self._scene.flows((*BEACONS, *PINGS, *CLIENT), since)
        expect(flowing, "Something stopped after a dry run", got=counts(self._scene.seen(since)), expected=FLOWING)
        rules = self._stage.ruleset()
        expect(not rules, "The kernel has rules after a dry run", got=rules)
        return (
            f"{len(steps)} steps planned, {len(kept)} exclusions among them; all beacons go on, the kernel has no rule"
        )
