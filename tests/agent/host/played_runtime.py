"""A runtime of containers that is played: Docker's interface on a socket, honest or not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

ID, OTHER = "ab" * 32, "cd" * 32


def row(number=ID, *, name="/shop", state="running", **more):
    """A row of the list, as Docker writes it."""
    return {"Id": number, "Names": [name], "Image": "registry.example/shop:3", "State": state, "Labels": {}, **more}


@dataclass
class PlayedRuntime:
    """Answers for a table of containers; `podman`: with the statuses that Podman has for what is so already."""

    rows: list[dict] = field(default_factory=lambda: [row()])
    podman: bool = False
    restart: str = "no"
    removes: bool = False
    answer: object = None
    """What is answered to everything instead: a response, or a coroutine function of the request."""
    asked: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """What was really done."""
    lies: bool = False
    """Does it say that it did what it did not do?"""
    does: dict = field(default_factory=dict)
    """Called with nothing when it does a thing."""

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[Path]:
        """On a socket, which is made with its folders."""
        path.parent.mkdir(parents=True, exist_ok=True)
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._serve)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(path)).start()
            yield path
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        if callable(self.answer):
            return await self.answer(request)
        if request.path == "/containers/json":
            return web.json_response(self.rows)
        _, _, number, verb = request.path.split("/")
        one = next((one for one in self.rows if one["Id"] == number), None)
        if one is None:
            return web.json_response({"message": f"No such container: {number}"}, status=404)
        return self._inspect(one) if verb == "json" else self._change(one, verb)

    def _inspect(self, one: dict) -> web.Response:
        settings = {"RestartPolicy": {"Name": self.restart, "MaximumRetryCount": 0}, "AutoRemove": self.removes}
        return web.json_response({"Id": one["Id"], "State": {"Status": one["State"]}, "HostConfig": settings})

    def _change(self, one: dict, verb: str) -> web.Response:
        before, after = {
            "pause": ({"running"}, "paused"),
            "unpause": ({"paused"}, "running"),
            "kill": ({"running", "paused"}, "exited"),
        }[verb]
        if one["State"] not in before:
            return web.json_response({"message": f"{one['Id']} is {one['State']}"}, status=500 if self.podman else 409)
        one["State"] = after
        if not self.lies:
            self.changed.append(f"{verb} {one['Id'][:2]}")
            self.does.get(verb, lambda: None)()
        return web.Response(status=204)


async def silent(_request):
    """Never answers."""
    await asyncio.Event().wait()


async def endless(request):
    """Answers without an end."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b"[")
    while True:
        await answer.write(b'{"Id": "x"},' * 10_000)


def always(text, *, status=200):
    """Answers everything with the same."""

    async def answer(_request):
        return web.Response(text=text, status=status, content_type="application/json")

    return answer
