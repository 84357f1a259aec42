"""The last act: the endpoint without its server, released by its code, and by its deadline."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from stanch.core.errors import Denied, NotFound
from stanch.core.isolation import CODE_ALPHABET, plain_code, show_code
from stanch.core.rest import EndpointView, ReleaseCodes
from stanch.demo.attack import USER_ID
from stanch.demo.lab import HOSTNAME
from stanch.demo.program import wait_until
from stanch.demo.report import expect
from stanch.demo.responder import refusal
from stanch.demo.scene import (
    CLIENT,
    QUIET_SECONDS,
    READ_SECONDS,
    RESUME_SECONDS,
    RETURN_SECONDS,
    WAIT_SECONDS,
    Chapter,
    Reference,
    Scene,
    counts,
    ms,
)

LONG = "8h"
"""Of the isolation that nobody wants to wait out."""

USED, REFUSED = "release-code-used", "release-code-refused"

OUTAGE_ISOLATION = 8
"""Seconds of the isolation that must end while the server is down."""

DISABLED = "autorun"
"""The one effect that an earlier act has left in force, on purpose."""


class Alone:
    """Two outages of the server."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._stage, self._responder = scene, scene.stage, scene.responder
        self._code = ""
        self._silent = 0.0
        self._typed_at = datetime.now(UTC)
        self._short = Reference(0, 0)
        self._links = 0

    def chapters(self) -> Iterator[Chapter]:
        """In order."""
        yield "release-code", self.release_code
        yield "release-code-typed", self.release_code_typed
        yield "release-code-told", self.release_code_told
        yield "isolate-again", self.isolate_again
        yield "server-outage", self.server_outage
        yield "server-back", self.server_back

    # --- released by its code ----------------------------------------------------------------------------------------

    def release_code(self) -> str:
        """An isolation for long: its code is read at the responder's desk, and then the server is killed."""
        task = self._responder.order("isolate", HOSTNAME, "--duration", LONG, "--reason", "to be sure")
        shown = self._responder.one(ReleaseCodes, "release-code", HOSTNAME, "--reason", "somebody is at the machine")
        mine = [one.code for one in shown.codes if one.task == task.id]
        expect(len(mine) == 1, "The isolation has no code", got=len(shown.codes), expected=f"one of task {task.id}")
        (self._code,) = mine
        self._silent = Reference.of(task).silent
        self._kill_server()
        hidden = f"{show_code(plain_code(self._code))[:4]}-…"
        return f"isolated for {LONG}; the responder has read the code, {hidden}; then the server was killed"

    def release_code_typed(self) -> str:
        """A user of the endpoint types it: a wrong one is refused, the right one works, once."""
        self._typed_at = datetime.now(UTC)
        wrong = refusal(Denied, lambda: self._type(changed(self._code)))
        self._scene.expect_silence(self._silent)
        typed = time.monotonic()
        done = self._type(self._code)
        expect(done.get("changed") is True, "The code changed nothing", got=done)
        back = self._scene.flows(CLIENT, typed, at_least=1)
        expect(back, "The client does not get through", got=counts(self._scene.seen(typed)))
        first = self._scene.seen(typed).first("other", "shop", *CLIENT)
        rules = self._stage.ruleset()
        expect(not rules, "The kernel still has rules", got=rules)
        again = refusal(NotFound, lambda: self._type(self._code))
        expect(not self._stage.server_runs, "The server was there all the time", got="it runs")
        return (
            f"typed by uid {USER_ID} at the endpoint, server down: a wrong code is refused ({wrong.code}); with the "
            f"right one the client is back {ms(typed, first)} after it was typed; used again it is refused: "
            f"{again.message}"
        )

    def release_code_told(self) -> str:
        """The server is back, and hears that a code was used, and that a wrong one was tried."""
        self._server_returns()
        found = self._scene.detected(USED, REFUSED, since=self._typed_at)
        uid = found[USED].detail.get("uid")
        expect(uid == USER_ID, "The detection tells another account", got=uid, expected=USER_ID)
        return f"{HOSTNAME} is online again; detections: {USED} by uid {uid}, and {REFUSED}"

    def _type(self, code: str) -> dict[str, object]:
        return dict(self._stage.user().stanch("local", "isolation", "release-code", code))

    # --- released by its deadline ------------------------------------------------------------------------------------

    def isolate_again(self) -> str:
        """A short isolation is in force, and then the server is killed."""
        task = self._responder.order("isolate", HOSTNAME, "--duration", f"{OUTAGE_ISOLATION}s")
        self._short = Reference.of(task)
        self._kill_server()
        late = time.monotonic() - self._earliest
        expect(late < 0, "The server was killed too late: the isolation had ended", got=f"{late:.2f} s late")
        time.sleep(QUIET_SECONDS)
        self._scene.expect_silence(self._short.silent, until=self._earliest)
        return f"for {OUTAGE_ISOLATION} s; the server was killed, and nothing leaves the endpoint"

    def server_outage(self) -> str:
        """The isolation ends at its own deadline, with nobody there to order it."""
        since, latest = self._short.silent, self._short.done + OUTAGE_ISOLATION
        within = max(0.0, latest - time.monotonic()) + WAIT_SECONDS
        back = wait_until(lambda: all(self._scene.seen(since).count(one) > 0 for one in CLIENT), within=within)
        seen = self._scene.seen(since)
        expect(back, "It was not lifted", got=counts(seen), expected=f"after {OUTAGE_ISOLATION} s")
        first = seen.first("other", "shop", *CLIENT) or 0.0
        expect(
            self._earliest <= first <= latest + RESUME_SECONDS,
            "It was lifted at another time than its deadline",
            got=f"{first - self._short.ordered:.2f} s after the order",
            expected=f"{OUTAGE_ISOLATION} to {latest - self._short.ordered + RESUME_SECONDS:.2f} s",
        )
        return (
            f"server down; first frame {first - self._short.done:.2f} s after it was isolated for {OUTAGE_ISOLATION} s"
        )

    def server_back(self) -> str:
        """The server starts again on its data, and knows that nothing but the disabled autorun is in force."""
        self._server_returns()
        names = self._effects
        wait_until(lambda: names() == [DISABLED], within=WAIT_SECONDS)
        expect(names() == [DISABLED], "The server believes in other effects", got=names(), expected=[DISABLED])
        self._responder.order("list-processes", HOSTNAME, "--match", "nobody")
        return f"{HOSTNAME} is online again, the disabled autorun alone is in force, and it answers an order"

    @property
    def _earliest(self) -> float:
        return self._short.ordered + OUTAGE_ISOLATION - READ_SECONDS

    def _effects(self) -> list[str]:
        """What is in force, as the server tells it: of which kind."""
        return [one.name.partition(":")[0] for one in self._scene.view().effects]

    # --- the server --------------------------------------------------------------------------------------------------

    def _kill_server(self) -> None:
        self._links = self._stage.links
        self._stage.kill_server()

    def _server_returns(self) -> EndpointView:
        self._stage.start_server()
        return self._scene.online(links=self._links, within=RETURN_SECONDS)


def changed(code: str) -> str:
    """A code that differs in its last character: well formed, and wrong."""
    plain = plain_code(code)
    at = CODE_ALPHABET.index(plain[-1]) + 1
    return plain[:-1] + CODE_ALPHABET[at % len(CODE_ALPHABET)]
