"""The fleet: enrolment, identity, what endpoints say, search and labels."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from stanch.core.errors import Conflict, Denied, Invalid, NotFound, TokenSpent, Unavailable
from stanch.core.frames import EnrolRequest, Heartbeat, Hello, Inventory, Notice
from stanch.core.policy import Role
from stanch.core.rest import GroupCreate, LabelChange, TokenCreate
from stanch.server.store import tables
from tests.fakes.server_parts import principal


def issue(csr: str, endpoint: str) -> tuple[str, bytes]:
    """A certificate that is no more than its name."""
    if csr == "bad":
        raise Invalid("The CSR is no good")
    return f"certificate of {endpoint}", endpoint.encode()


def request(token: str, csr: str = "csr", hostname: str = "web") -> EnrolRequest:
    """What an agent asks."""
    interfaces = ({"name": "eth0", "mac": "aa:bb", "addresses": ("10.0.0.5",)},)
    return EnrolRequest(token=token, csr=csr, inventory=Inventory(hostname=hostname, interfaces=interfaces))


async def token(parts, **wanted) -> str:
    """A new enrolment token's secret."""
    return (await parts.tokens.create(principal(), TokenCreate(**wanted)))[1]


async def test_enrolment_gives_labels_and_identity(parts):
    """An endpoint that enrols gets its token's labels and is recognised by its certificate."""
    endpoint, certificate = await parts.fleet.enrol(request(await token(parts, labels=("env=prod",))), issue)
    assert certificate == f"certificate of {endpoint}"
    view = await parts.fleet.get("web")
    assert (view.id, view.labels, view.online) == (endpoint, ("env=prod",), False)
    row = await parts.database.read(lambda c: c.execute(select(tables.endpoints)).one())
    identity = await parts.fleet.identify(certificate_sha256=row.certificate_sha256, name=endpoint)
    assert identity.endpoint == endpoint
    with pytest.raises(Denied, match="no endpoint"):
        await parts.fleet.identify(certificate_sha256=row.certificate_sha256, name="end_other")


async def test_a_token_is_used_once(parts):
    """The second use of a single-use token is refused and makes no endpoint."""
    secret = await token(parts)
    await parts.fleet.enrol(request(secret), issue)
    with pytest.raises(TokenSpent):
        await parts.fleet.enrol(request(secret, hostname="db"), issue)
    assert len(await parts.database.read(lambda c: c.execute(select(tables.endpoints)).all())) == 1


async def test_a_bad_csr_does_not_spend_the_token(parts):
    """An enrolment that fails leaves the token as it was."""
    secret = await token(parts)
    with pytest.raises(Invalid):
        await parts.fleet.enrol(request(secret, csr="bad"), issue)
    await parts.fleet.enrol(request(secret), issue)


async def test_expired_and_withdrawn_tokens(parts):
    """A token that is too old or withdrawn enrols nobody."""
    old = await token(parts, valid_for="1h")
    parts.clock.pass_(timedelta(hours=2))
    with pytest.raises(TokenSpent):
        await parts.fleet.enrol(request(old), issue)
    view, secret = await parts.tokens.create(principal(), TokenCreate())
    await parts.tokens.revoke(principal(), view.id)
    with pytest.raises(TokenSpent):
        await parts.fleet.enrol(request(secret), issue)


async def test_token_secrets_are_not_kept(parts):
    """The secret of a token is nowhere in the database, and the list does not show it."""
    secret = await token(parts)
    rows = await parts.database.read(lambda c: c.execute(select(tables.enrolment_tokens)).all())
    assert secret not in str(rows)
    assert secret not in str(await parts.tokens.list(principal()))


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST, Role.RESPONDER, Role.INCIDENT_LEAD])
async def test_only_administrators_enrol_label_and_revoke(parts, role):
    """Other roles make no tokens, set no labels, revoke nothing."""
    await parts.add_endpoints("web")
    who = principal(role)
    with pytest.raises(Denied):
        await parts.tokens.create(who, TokenCreate())
    with pytest.raises(Denied):
        await parts.fleet.label(who, "web", LabelChange(add=("a=b",)))
    with pytest.raises(Denied):
        await parts.fleet.revoke(who, "web")


async def test_revoked_is_denied_and_not_a_target(parts):
    """A revoked endpoint is not recognised any more, and no order finds it."""
    endpoint, _ = await parts.fleet.enrol(request(await token(parts)), issue)
    row = await parts.database.read(lambda c: c.execute(select(tables.endpoints)).one())
    assert (await parts.fleet.revoke(principal(), "web")).revoked
    with pytest.raises(Denied, match="revoked"):
        await parts.fleet.identify(certificate_sha256=row.certificate_sha256, name=endpoint)


async def test_hello_and_heartbeats_are_seen_at_once(parts):
    """What an endpoint says shows at once, before the flush, and stays after it."""
    await parts.add_endpoints("web")
    effect = {
        "name": "isolation",
        "task": "t",
        "since": parts.clock.now,
        "until": None,
        "lift_action": "release",
    }
    inventory = Inventory(hostname="web2", os="Debian")
    hello = Hello(nonce="n", agent_version="1", inventory=inventory, actions={"x": 1})
    await parts.fleet.hello("end_web", hello)
    view = await parts.fleet.get("end_web")
    assert (view.hostname, view.online, view.actions, view.effects) == ("web2", True, {"x": 1}, ())
    parts.clock.pass_(timedelta(seconds=30))
    isolated = {"state": "isolated", "since": parts.clock.now, "by": "alice", "why": "beacon"}
    parts.fleet.heartbeat("end_web", Heartbeat(effects=(effect,), isolation=isolated))
    parts.fleet.gone("end_web")
    before = await parts.fleet.get("end_web")
    await parts.fleet.flush()
    after = await parts.fleet.get("end_web")
    assert before == after
    assert (after.isolation.state, after.isolation.by, after.isolation.why) == ("isolated", "alice", "beacon")
    assert (after.online, after.last_seen, len(after.effects)) == (False, parts.clock.now, 1)


async def test_a_notice_told_twice_is_kept_once(parts):
    """Notices are recognised by their number and time."""
    await parts.add_endpoints("web")
    one = Notice(seq=1, kind="effect-lifted", at=5.0)
    await parts.fleet.notice("end_web", [one, one])
    await parts.fleet.notice("end_web", [one, Notice(seq=2, kind="effect-lifted", at=5.0)])
    assert len(await parts.database.read(lambda c: c.execute(select(tables.notices)).all())) == 2


async def test_search_by_address_word_and_label(parts):
    """Search finds by address, by several words, by label, and takes wildcards literally."""
    await parts.fleet.enrol(request(await token(parts, labels=("env=prod",))), issue)
    await parts.fleet.enrol(request(await token(parts), hostname="db"), issue)

    async def names(**query) -> list[str]:
        return [one.hostname for one in (await parts.fleet.search(**query))[0]]

    assert await names(text="10.0.0.5 WEB") == ["web"]
    assert await names(labels=["env=prod"]) == ["web"]
    assert await names(text="%") == []
    assert sorted(await names(text="aa:bb")) == ["db", "web"]


async def test_pages_of_endpoints(parts):
    """Pages neither repeat nor skip."""
    await parts.add_endpoints(*"abcde")
    first, after = await parts.fleet.search(limit=3)
    second, end = await parts.fleet.search(limit=3, after=after)
    assert [one.hostname for one in first + second] == list("abcde")
    assert end is None


async def test_labels_are_set_replaced_and_removed(parts):
    """A label has one value; removing goes by key."""
    await parts.add_endpoints("web", labels=["env=test", "team=a"])
    view = await parts.fleet.label(principal(), "web", LabelChange(add=("env=prod",), remove=("team",)))
    assert view.labels == ("env=prod",)


async def test_names_that_are_nowhere_or_twice(parts):
    """An unknown endpoint is not found; an ambiguous host name is not guessed."""
    await parts.add_endpoints("web", "db")
    with pytest.raises(NotFound):
        await parts.fleet.get("nowhere")
    await parts.database.write(lambda c: c.execute(tables.endpoints.update().values(hostname="same")))
    with pytest.raises(Conflict):
        await parts.fleet.get("same")
    assert (await parts.fleet.get("end_db")).id == "end_db"


async def test_a_heartbeat_may_bring_a_new_inventory(parts):
    """An inventory that changed is searched by its new content after the flush."""
    await parts.add_endpoints("web")
    parts.fleet.heartbeat("end_web", Heartbeat(inventory=Inventory(hostname="renamed")))
    parts.fleet.heartbeat("end_web", Heartbeat())
    await parts.fleet.flush()
    assert [one.id for one in (await parts.fleet.search(text="renamed"))[0]] == ["end_web"]


async def test_old_notices_make_room(parts, monkeypatch):
    """An endpoint that tells without end keeps its newest notices only."""
    monkeypatch.setattr("stanch.server.detections.MAX_NOTICES", 3)
    await parts.add_endpoints("web", "db")
    await parts.fleet.notice("end_db", [Notice(seq=1, kind="k", at=1.0)])
    await parts.fleet.notice("end_web", [Notice(seq=n, kind="k", at=1.0) for n in range(1, 8)])
    kept = select(tables.notices.c.endpoint, tables.notices.c.seq).order_by(tables.notices.c.id)
    rows = await parts.database.read(lambda c: c.execute(kept).all())
    assert [tuple(row) for row in rows] == [("end_db", 1), ("end_web", 5), ("end_web", 6), ("end_web", 7)]


async def test_chatter_does_not_push_out_a_detection(parts, monkeypatch):
    """Neither many other notices nor many detections of another kind make the server forget one."""
    monkeypatch.setattr("stanch.server.detections.MAX_NOTICES", 3)
    monkeypatch.setattr("stanch.server.detections.MAX_DETECTIONS", 2)
    await parts.add_endpoints("web")

    async def tell(kind: str, *numbers: int) -> None:
        await parts.fleet.notice("end_web", [Notice(seq=n, kind=kind, at=1.0) for n in numbers])

    await tell("isolation-tampered", 1)
    await tell("effect-lifted", *range(2, 12))
    await tell("local-order", *range(12, 22))
    kept = select(tables.notices.c.kind, tables.notices.c.seq).order_by(tables.notices.c.id)
    rows = await parts.database.read(lambda c: c.execute(kept).all())
    assert [tuple(row) for row in rows] == [
        ("isolation-tampered", 1),
        *(("effect-lifted", n) for n in (9, 10, 11)),
        *(("local-order", n) for n in (20, 21)),
    ]


async def test_a_hello_is_newer_than_the_heartbeats_before_it(parts):
    """What a reconnected endpoint says of itself is not overwritten by what it said on its last link."""
    await parts.add_endpoints("web")
    parts.fleet.heartbeat("end_web", Heartbeat(inventory=Inventory(hostname="old")))
    parts.fleet.gone("end_web")
    await parts.fleet.hello(
        "end_web", Hello(nonce="n", agent_version="1", inventory=Inventory(hostname="new"), actions={})
    )
    await parts.fleet.flush()
    assert (await parts.fleet.get("end_web")).hostname == "new"


async def test_a_flush_that_fails_forgets_nothing(parts, monkeypatch):
    """An agent tells a new inventory once; a full disk must not lose it."""
    await parts.add_endpoints("web")
    parts.fleet.heartbeat("end_web", Heartbeat(inventory=Inventory(hostname="new")))

    async def full(_unit):
        parts.fleet.heartbeat("end_web", Heartbeat())
        raise Unavailable("The disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(parts.database, "write", full)
        with pytest.raises(Unavailable):
            await parts.fleet.flush()
    await parts.fleet.flush()
    assert (await parts.fleet.get("end_web")).hostname == "new"


async def test_labels_limit_who_may_label_and_revoke(parts):
    """Somebody who is limited to some endpoints changes no other."""
    await parts.add_endpoints("prod", labels=("env=prod",))
    await parts.add_endpoints("test", labels=("env=test",))
    limited = principal(labels=("env=test",))
    with pytest.raises(Denied):
        await parts.fleet.label(limited, "prod", LabelChange(add=("env=test",)))
    with pytest.raises(Denied):
        await parts.fleet.revoke(limited, "prod")
    assert (await parts.fleet.revoke(limited, "test")).revoked


async def test_groups_of_endpoints_are_shown_and_searched(parts):
    """The one that decides first comes first; labels decide who belongs where."""
    await parts.add_endpoints("web", labels=["role=web"])
    await parts.add_endpoints("db", labels=["role=db"])
    await parts.groups.create(principal(), GroupCreate(name="shops", labels=("role=web",)))
    assert (await parts.fleet.get("web")).groups == ("shops", "all")
    found, _ = await parts.fleet.search(group="shops")
    assert [(one.hostname, one.groups) for one in found] == [("web", ("shops", "all"))]
    assert len((await parts.fleet.search(group="all"))[0]) == 2
    with pytest.raises(NotFound, match="shops"):
        await parts.fleet.search(group="shop")
