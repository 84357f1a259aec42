"""The object graph of a server, on one screen: who is made of what. No container, no globals."""

import time

from stanch.actions import load
from stanch.server.accounts import Accounts
from stanch.server.addresses import OwnAddresses
from stanch.server.authority import Authority
from stanch.server.bus.in_process import Bus
from stanch.server.clock import Clock
from stanch.server.content import ContentDesk
from stanch.server.content_packs import Packs
from stanch.server.content_way import ContentWay
from stanch.server.custody import KeyFileCustody
from stanch.server.dispatch import Dispatcher
from stanch.server.evidence import Evidence
from stanch.server.evidence_keeping import EvidenceKeeping
from stanch.server.fleet import Fleet
from stanch.server.group_desk import GroupDesk
from stanch.server.orders import Orders
from stanch.server.policies import Policies
from stanch.server.previews import Previews
from stanch.server.release_codes import CodeBook, CodeDesk
from stanch.server.services import Services
from stanch.server.settings import Settings
from stanch.server.signer import Signer
from stanch.server.standing import Everything
from stanch.server.store.counters import Counter
from stanch.server.store.database import Database
from stanch.server.terminals import Terminals
from stanch.server.tokens import Tokens
from stanch.server.uploads import Uploads


def wire(settings: Settings, *, database: Database, authority: Authority, port: int, now: Clock) -> Services:
    """One of each service, over an open database and the keys; `port` is the gateway's."""
    registry = load()
    bus = Bus()
    signer = Signer(authority.signing_key, Counter(database, "envelope", now), now)
    codes, fleet = CodeBook(authority.release_key), Fleet(database, now)
    dispatcher = Dispatcher(registry=registry, database=database, signer=signer, codes=codes, bus=bus, now=now)
    content_way = ContentWay(database=database, signer=signer, links=dispatcher)
    standing = Everything(Policies(database=database, signer=signer, links=dispatcher), content_way)
    folder = settings.data / "evidence"
    custody = KeyFileCustody.in_folder(settings.data)
    evidence = Evidence(folder=folder, database=database, custody=custody, now=now)
    return Services(
        registry=registry,
        database=database,
        authority=authority,
        signer=signer,
        accounts=Accounts(database=database, now=now, monotonic=time.monotonic),
        tokens=Tokens(database, now),
        fleet=fleet,
        groups=GroupDesk(database=database, fleet=fleet, listeners=standing, now=now),
        standing=standing,
        orders=Orders(registry=registry, database=database, bus=bus, now=now, delivery=dispatcher),
        evidence=evidence,
        keeping=EvidenceKeeping(
            folder=folder, evidence=evidence, database=database, now=now, lasts=settings.evidence_lasts
        ),
        previews=Previews(evidence),
        uploads=Uploads(
            folder=settings.data / "uploads",
            database=database,
            now=now,
            most=settings.max_upload,
            keep=settings.uploads_last,
        ),
        content=ContentDesk(packs=Packs(settings.data / "content"), database=database, listeners=standing, now=now),
        content_way=content_way,
        terminals=Terminals(
            folder=settings.data / "recordings",
            registry=registry,
            database=database,
            evidence=evidence,
            now=now,
            seconds=time.monotonic,
        ),
        dispatcher=dispatcher,
        codes=codes,
        code_desk=CodeDesk(codes=codes, fleet=fleet, registry=registry, database=database, now=now),
        bus=bus,
        addresses=OwnAddresses(settings, port=port, database=database, evidence_key=custody.recipient, now=now),
        now=now,
    )
