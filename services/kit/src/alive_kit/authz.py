"""Tells the key gateway which tokens are honoured: those of turns that run, and no others.

Where there is a gateway, an agent gets a token instead of the vendor's key. A token says nothing, is made for one CLI
process, and is honoured only while a turn of its session runs, never between turns; the gateway asks here before it
puts the key in its place. What is not the vendor's a turn may only call when it was granted, and here the gateway
learns what to show there.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from aiohttp import web

TURN_HEADER = "x-turn-token"
"""Where tools show their agent's token; the vendors' CLIs show it where a key would be."""

Grants: TypeAlias = Mapping[str, Mapping[str, str]]
"""What a turn may call beside its vendor, by the path below which it is: the headers that are added there."""

_GRANTED_ALONE = ("product/", "mcp/")


class TurnTokens:
    """The tokens of the agents whose turns run."""

    def __init__(self) -> None:
        self._live: dict[str, Grants] = {}

    def issue(self) -> str:
        """Return a new token; it is not honoured before a turn begins."""
        return secrets.token_urlsafe(32)

    def begin(self, token: str, grants: Grants | None = None) -> None:
        """Honour a token until its turn ends, for the vendor and for what the turn is granted."""
        self._live[token] = grants or {}

    def end(self, token: str) -> None:
        """Honour a token no more, until another turn begins."""
        self._live.pop(token, None)

    def headers(self, token: str, path: str) -> Mapping[str, str] | None:
        """Return what is added to a request for a path; None when it is refused."""
        grants = self._live.get(token)
        if grants is None:
            return None
        if not f"{path}/".startswith(_GRANTED_ALONE):
            return {}
        return next((headers for api, headers in grants.items() if f"{path}/".startswith(f"{api}/")), None)


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
        shown = (
            request.headers.get(TURN_HEADER)
            or request.headers.get("x-api-key")
            or request.headers.get("authorization", "").removeprefix("Bearer ")
        )
        added = self._tokens.headers(shown, request.match_info["path"])
        return web.Response(status=401) if added is None else web.Response(status=200, headers=added)
