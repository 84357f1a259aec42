"""The gateway as a whole: which paths there are."""

from stanch.core.content import CONTENT_PATH
from stanch.core.frames import ENROL_PATH, EVIDENCE_PATH, LINK_PATH, RENEW_PATH, UPLOAD_PATH
from stanch.core.terminal_wire import TERMINAL_PATH
from stanch.server.gateway.app import create_gateway
from tests.server.live import Live


async def test_its_paths_are_those_of_the_contract(live: Live) -> None:
    """No more, no less."""
    gateway = create_gateway(live.services, monotonic=lambda: 0.0)
    paths = {(route.method, route.resource.canonical) for route in gateway.app.router.routes() if route.resource}
    assert paths - {(method, path) for method, path in paths if method == "HEAD"} == {
        ("GET", LINK_PATH),
        ("GET", "/v1/ca"),
        ("POST", ENROL_PATH),
        ("POST", RENEW_PATH),
        ("POST", EVIDENCE_PATH),
        ("PUT", f"{EVIDENCE_PATH}/{{id}}/parts/{{n}}"),
        ("POST", f"{EVIDENCE_PATH}/{{id}}/holes"),
        ("POST", f"{EVIDENCE_PATH}/{{id}}/finish"),
        ("GET", f"{UPLOAD_PATH}/{{id}}"),
        ("GET", f"{CONTENT_PATH}/{{sha256}}"),
        ("GET", f"{TERMINAL_PATH}/{{task}}"),
    }
