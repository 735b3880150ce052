"""A stand-in for the product's API, which its tools call back: it believes the gateway and nobody else."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(slots=True, kw_only=True)
class Call:
    """A call that was let in."""

    path: str
    headers: dict[str, str]
    body: str


@dataclass(slots=True, kw_only=True)
class Product:
    """A product's API on a port of loopback. Who has not its secret gets 401, who has no session 403."""

    secret: str
    session: str
    """The Cookie header of its one user."""
    calls: list[Call] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve until the block ends, and return the URL."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("x-internal-tools-secret") != self.secret:
            raise web.HTTPUnauthorized
        if headers.get("cookie") != self.session:
            raise web.HTTPForbidden
        self.calls.append(Call(path=request.path, headers=headers, body=await request.text()))
        return web.json_response({"done": request.path, "for": headers.get("x-alive-workspace-id")})
