"""Who is at the other end of a connection."""

import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from stanch.core.errors import NotAuthenticated
from stanch.core.frames import EVIDENCE_PATH
from stanch.server.gateway.identity import _common_name, identify, reached_at, remote_address
from tests.server.live import Live, load_identity, new_csr


def request_with(**extra: Any) -> Any:
    """As much of a request as is looked at."""
    return SimpleNamespace(transport=SimpleNamespace(get_extra_info=extra.get), remote=None)


async def test_no_tls_is_nobody() -> None:
    """Nor a connection that is gone."""
    for request in (request_with(), SimpleNamespace(transport=None, remote=None)):
        with pytest.raises(NotAuthenticated):
            await identify(request, None)  # type: ignore[arg-type]  # it is not asked


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        (((("commonName", "end_1"),),), "end_1"),
        (((("commonName", "end_1"),), (("commonName", "end_2"),)), ""),
        (((("organizationName", "x"),),), ""),
        ((), ""),
    ],
)
def test_the_common_name_is_the_only_one(subject: Any, name: str) -> None:
    """Two names are no name."""
    assert _common_name(SimpleNamespace(getpeercert=lambda: {"subject": subject})) == name  # type: ignore[arg-type]


def test_addresses() -> None:
    """Ours as the other end sees it, zones cut off; theirs, if known."""
    peer = reached_at(request_with(sockname=("fe80::1%eth0", 8444, 0, 2)))
    assert peer is not None
    assert (str(peer.address), peer.port) == ("fe80::1", 8444)
    assert reached_at(request_with()) is None
    assert remote_address(request_with()) == "unknown"


async def test_a_certificate_is_recognised_on_every_path(live: Live) -> None:
    """The endpoint of the certificate asks, not somebody who says so."""
    agent = await live.enrol()
    known = await agent.ask("POST", EVIDENCE_PATH, json={"task": "tsk_1", "name": "x", "size": 1})
    assert (known.status, known.code) == (404, "not-found")
    unknown = await agent.ask("POST", EVIDENCE_PATH, tls=live.tls, json={"task": "tsk_1", "name": "x", "size": 1})
    assert (unknown.status, unknown.code) == (401, "not-authenticated")


async def test_a_certificate_that_the_store_does_not_know_is_refused(live: Live) -> None:
    """Signed by our CA is not enough."""
    agent = await live.enrol()
    issued = live.services.authority.issue_agent
    csr, private = new_csr()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(cadata=live.services.authority.pem)
    load_identity(tls, issued(csr, agent.endpoint).pem + private)
    answer = await agent.ask("POST", EVIDENCE_PATH, tls=tls, json={})
    assert (answer.status, answer.code) == (403, "denied")
