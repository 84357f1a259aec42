"""The services that the two ports are handed: what `api/` and `gateway/` may ask for, and nothing else."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stanch.core.action import Registry
from stanch.core.envelope import AddressesBody
from stanch.core.network import Peer
from stanch.server.accounts import Accounts
from stanch.server.authority import Authority
from stanch.server.bus.in_process import Bus
from stanch.server.clock import Clock
from stanch.server.content import ContentDesk
from stanch.server.content_way import ContentWay
from stanch.server.dispatch import Dispatcher
from stanch.server.downloads import Downloads
from stanch.server.evidence import Evidence
from stanch.server.evidence_keeping import EvidenceKeeping
from stanch.server.fleet import Fleet
from stanch.server.group_desk import GroupDesk
from stanch.server.orders import Orders
from stanch.server.previews import Previews
from stanch.server.release_codes import CodeBook, CodeDesk
from stanch.server.signer import Signer
from stanch.server.standing import Everything
from stanch.server.store.database import Database
from stanch.server.terminals import Terminals
from stanch.server.tokens import Tokens
from stanch.server.uploads import Uploads

if TYPE_CHECKING:
    from stanch.server.addresses import OwnAddresses  # which needs `Addresses` from here

MAX_URLS = 32
MAX_PEERS = 256
"""What fits in an envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where agents reach us, and to whom they encrypt."""

    urls: tuple[str, ...]
    peers: tuple[Peer, ...]
    evidence_key: str = ""

    def body(self, *, reached: Peer | None, nonce: str | None) -> AddressesBody:
        """For one agent: the address that it reached us at comes first."""
        peers = self.peers if reached is None else (reached, *self.peers)
        return AddressesBody(
            urls=self.urls[:MAX_URLS],
            peers=tuple(dict.fromkeys(peers))[:MAX_PEERS],
            evidence_key=self.evidence_key,
            nonce=nonce,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One of each."""

    registry: Registry
    database: Database
    authority: Authority
    signer: Signer
    accounts: Accounts
    tokens: Tokens
    fleet: Fleet
    groups: GroupDesk
    standing: Everything
    orders: Orders
    evidence: Evidence
    keeping: EvidenceKeeping
    previews: Previews
    downloads: Downloads = field(default_factory=Downloads)
    uploads: Uploads
    content: ContentDesk
    content_way: ContentWay
    terminals: Terminals
    dispatcher: Dispatcher
    codes: CodeBook
    code_desk: CodeDesk
    bus: Bus
    addresses: "OwnAddresses"
    now: Clock
