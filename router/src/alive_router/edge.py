"""Answers the edge's ``ext_authz`` over HTTP on a unix socket: where a stream comes from, and what is told there.

Envoy sends the whole gRPC request. The answer is always 200: it names a cluster of the edge's, never a refusal; what is
to be refused is led to the router. As of Envoy 1.40.
"""

import base64
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from alive_kit.servicer import RESOLVED_KEY
from alive_router.decisions import Decisions, Led

CLUSTER_HEADER = "x-alive-cluster"
LOST_HEADER = "x-alive-lost-bin"
ROUTER_CLUSTER = "router"

_PREFIX = struct.Struct(">BI")
"""What precedes a gRPC message: whether it is compressed, and its length."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a caller has shown to the edge."""

    headers: Sequence[tuple[str, str]]

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """Return the headers."""
        return self.headers

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return nothing: certificates are in the headers."""
        return {}

    def peer(self) -> str:
        """Return whom the router speaks with: the edge."""
        return "unix:"


class EdgeServer:
    """Tells the edge where streams come from."""

    def __init__(self, decisions: Decisions, listen: str) -> None:
        self._decisions = decisions
        self._path = Path(listen.removeprefix("unix:"))
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None))

    async def start(self) -> None:
        """Serve those whom the socket's directory lets in."""
        self._path.unlink(missing_ok=True)
        await self._runner.setup()
        before = os.umask(0o007)
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        message = _message(await request.content.read())
        led = None
        if message is not None:
            shown = _Asked([(name.lower(), value) for name, value in request.headers.items()])
            led = await self._decisions.of(request.path.rpartition("/")[2], message, shown)
        return web.Response(headers=_headers(led) if led else {CLUSTER_HEADER: ROUTER_CLUSTER})


def _headers(led: Led) -> dict[str, str]:
    resolved = {RESOLVED_KEY: _encoded(led.resolved)} if led.resolved else {}
    return {CLUSTER_HEADER: f"provider-{led.provider_id}", LOST_HEADER: _encoded(led.lost), **resolved}


def _encoded(value: bytes) -> str:
    """Return bytes as gRPC has them in headers."""
    return base64.b64encode(value).decode().rstrip("=")


def _message(body: bytes) -> bytes | None:
    """Return the one message of a request; None when it is compressed, or is not all here."""
    if len(body) < _PREFIX.size:
        return None
    is_compressed, length = _PREFIX.unpack_from(body)
    if is_compressed or length != len(body) - _PREFIX.size:
        return None
    return body[_PREFIX.size :]
