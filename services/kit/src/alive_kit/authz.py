"""Tells the key gateway which tokens are honoured: those of turns that run, and no others.

Where there is a gateway, an agent gets a token instead of the vendor's key. A token says nothing, is made for one turn
and ends with it; the gateway asks here before it puts the key in its place.
"""

import secrets
from pathlib import Path

from aiohttp import web


class TurnTokens:
    """The tokens of the turns that run."""

    def __init__(self) -> None:
        self._live: set[str] = set()

    def issue(self) -> str:
        """Return a token that is honoured until it is revoked."""
        token = secrets.token_urlsafe(32)
        self._live.add(token)
        return token

    def revoke(self, token: str) -> None:
        """End a token."""
        self._live.discard(token)

    def is_live(self, token: str) -> bool:
        """Whether a token's turn runs."""
        return token in self._live


class AuthzServer:
    """Answers Envoy's ``ext_authz`` over HTTP on a unix socket."""

    def __init__(self, tokens: TurnTokens, listen: str) -> None:
        self._tokens = tokens
        self._path = Path(listen.removeprefix("unix:"))
        app = web.Application()
        app.router.add_route("*", "/live/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Serve."""
        self._path.unlink(missing_ok=True)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._path)).start()

    async def stop(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        shown = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        return web.Response(status=200 if self._tokens.is_live(shown) else 401)
