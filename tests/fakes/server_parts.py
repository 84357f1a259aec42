"""A server's inner parts on a real database, with a clock that tests set."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from joserfc.jwk import OKPKey
from sqlalchemy import insert

from stanch import actions
from stanch.core.policy import Origin, Principal, Role
from stanch.server.bus.in_process import Bus
from stanch.server.content_way import ContentWay
from stanch.server.dispatch import Dispatcher
from stanch.server.fleet import Fleet
from stanch.server.group_desk import GroupDesk
from stanch.server.orders import Orders
from stanch.server.policies import Policies
from stanch.server.release_codes import CodeBook, CodeDesk
from stanch.server.signer import Signer
from stanch.server.standing import Everything
from stanch.server.store.counters import Counter
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoint_labels, endpoints
from stanch.server.tokens import Tokens


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, duration: timedelta) -> None:
        self.now += duration


class Parts:
    """The object graph of the server, without its ways in."""

    def __init__(self, database: Database) -> None:
        self.clock = SetClock()
        self.database = database
        self.registry = actions.load()
        self.bus = Bus()
        key = OKPKey.generate_key("Ed25519", {"kid": "test"})
        self.key = key
        self.signer = Signer(key, Counter(database, "envelope", self.clock), self.clock)
        self.codes = CodeBook(bytes(range(32)))
        self.dispatcher = Dispatcher(
            registry=self.registry,
            database=database,
            signer=self.signer,
            codes=self.codes,
            bus=self.bus,
            now=self.clock,
        )
        self.orders = Orders(
            registry=self.registry, database=database, bus=self.bus, now=self.clock, delivery=self.dispatcher
        )
        self.fleet = Fleet(database, self.clock)
        self.code_desk = CodeDesk(
            codes=self.codes, fleet=self.fleet, registry=self.registry, database=database, now=self.clock
        )
        self.policies = Policies(database=database, signer=self.signer, links=self.dispatcher)
        self.content_way = ContentWay(database=database, signer=self.signer, links=self.dispatcher)
        self.standing = Everything(self.policies, self.content_way)
        self.groups = GroupDesk(database=database, fleet=self.fleet, listeners=self.standing, now=self.clock)
        self.tokens = Tokens(database, self.clock)

    async def add_endpoints(self, *names: str, labels: Sequence[str] = ()) -> list[str]:
        """Enrolled endpoints with these host names; their ids are `end_NAME`."""
        rows = [
            {
                "id": f"end_{name}",
                "hostname": name,
                "certificate_sha256": f"{name:0>64}",
                "revoked": False,
                "enrolled": self.clock.now,
                "agent_version": "0",
                "inventory": {"hostname": name},
                "actions": {},
                "capabilities": {},
                "effects": [],
                "policy_digest": "",
                "search": name,
            }
            for name in names
        ]
        pairs = [label.partition("=") for label in labels]
        label_rows = [{"endpoint": row["id"], "key": k, "value": v} for row in rows for k, _, v in pairs]

        def unit(connection) -> None:
            connection.execute(insert(endpoints), rows)
            if label_rows:
                connection.execute(insert(endpoint_labels), label_rows)

        await self.database.write(unit)
        return [row["id"] for row in rows]


def principal(*roles: Role, name: str = "ada", origin: Origin = Origin.API, labels: tuple[str, ...] = ()) -> Principal:
    """Somebody with these roles; an administrator by default."""
    return Principal(name=name, roles=roles or (Role.ADMINISTRATOR,), origin=origin, labels=labels)
