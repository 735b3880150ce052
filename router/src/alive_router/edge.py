"""Answers the edge's ``ext_authz`` over HTTP on a unix socket: where a stream comes from, and what is told there.

Envoy sends the whole gRPC request. The answer is always 200: it names a cluster of the edge's, never a refusal; what is
to be refused is led to the router. As of Envoy 1.40.

Every turn waits for the answer. So the questions are read by a parser and nothing else: a web framework takes as long
for one as the decision.
"""

import asyncio
import base64
import logging
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httptools

from alive_kit.servicer import RESOLVED_KEY
from alive_router.decisions import Decisions, Led

logger = logging.getLogger(__name__)

CLUSTER_HEADER = "x-alive-cluster"
LOST_HEADER = "x-alive-lost-bin"
ROUTER_CLUSTER = "router"

_BACKLOG = 1024
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
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        """Serve those whom the socket's directory lets in."""
        self._path.unlink(missing_ok=True)
        before = os.umask(0o007)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(self._connect, str(self._path), backlog=_BACKLOG)
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop serving."""
        self._server.close()
        for connection in list(self._connections):
            connection.close()

    def _connect(self) -> "_Connection":
        return _Connection(self._decisions, self._connections)


class _Connection(asyncio.Protocol):
    """A connection of the edge's, on which it asks one thing after the other."""

    def __init__(self, decisions: Decisions, connections: "set[_Connection]") -> None:
        self._decisions = decisions
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._answering: asyncio.Task[None] | None = None

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of its classes.
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget the connection."""
        self._connections.discard(self)
        if self._answering:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        """Read a part of a question."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    # What the parser says.

    def on_url(self, url: bytes) -> None:
        """Read the call's path: the first thing of a question."""
        self._url, self._headers, self._body = url, [], []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read what the caller has shown."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        """Read a part of the call's request."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        method = self._url.rpartition(b"/")[2].decode("latin-1")
        answering = self._answer(method, b"".join(self._body), _Asked(self._headers))
        self._answering = asyncio.create_task(answering)

    async def _answer(self, method: str, body: bytes, asked: _Asked) -> None:
        led = None
        if (message := _message(body)) is not None:
            try:
                led = await self._decisions.of(method, message, asked)
            except Exception:
                logger.exception("a decision failed by a defect: the router itself answers")
        headers = _headers(led) if led else {CLUSTER_HEADER: ROUTER_CLUSTER}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._transport.write(f"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{lines}\r\n".encode("latin-1"))


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
