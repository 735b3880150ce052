"""Relays one provider's stream to one caller: what it says, as bytes, in order, no faster than it is read.

A stream is read ahead of its caller, by a bounded number of bytes. What waits when the caller is ready for more goes
out in one piece where the contract allows that: responses that hold one repeated field, written one behind the other,
are one response.

Deadline, cancellation, metadata and the final status pass through. The only status made here is `StreamLost`: the
provider went away without one.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from alive_kit.errors import StreamLost
from alive_kit.rpc import Context

Metadata = Sequence[tuple[str, str | bytes]]

RESPONSE_BYTES = 1 << 20
"""Where a response stops taking in the ones behind it."""

READ_AHEAD_BYTES = 256 << 10
"""How much of a stream waits for its caller before no more of it is read."""

_STATUS_DETAILS = "grpc-status-details-bin"

_TRANSPORT_FAILURES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}

_NOT_FORWARDED = ("authorization", "cookie", "user-agent", "te", "content-type", "grpc-", "x-alive-", ":")
"""Beginnings of metadata names that end here: a caller's identity is the router's business, and only the router may
say what it decided."""


def forwarded(metadata: Iterable[Any] | None) -> list[tuple[str, str | bytes]]:
    """Return what of a caller's metadata reaches the provider."""
    return [(key, value) for key, value in metadata or () if not key.lower().startswith(_NOT_FORWARDED)]


class Refused(Exception):
    """A provider ended a stream with an error of its own, to be passed on as it is."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Metadata, *, at_once: bool) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailers = trailers
        self.at_once = at_once
        """Whether there was no message before: what was asked for never began."""

    async def pass_on(self, context: Context) -> None:
        """End the caller's call with the same status and trailers."""
        await context.abort(self.code, self.details, tuple(self.trailers))


async def relay(
    method: "grpc.aio.UnaryStreamMultiCallable[Any, Any]",
    request: bytes,
    context: Context,
    metadata: Metadata,
    lost: StreamLost,
    *,
    response_bytes: int = RESPONSE_BYTES,
) -> None:
    """Call a provider's streaming method and copy its stream; without ``response_bytes`` its messages stay apart.

    Raises:
        StreamLost: the provider went away without a status; the one given is raised.
        Refused: the provider ended the stream with an error.
    """
    call = method(request, metadata=tuple(metadata), timeout=context.time_remaining())
    # A caller's cancellation reaches this coroutine only while it waits; the callback comes always.
    context.add_done_callback(lambda _: call.cancel())  # type: ignore[arg-type]  # it is given the context
    backlog = _Backlog(response_bytes)
    reading = asyncio.create_task(backlog.fill(call))
    try:
        while await backlog.has_more():
            await context.write(backlog.take())
        await reading
        if (code := await call.code()) is not grpc.StatusCode.OK:
            at_once = not backlog.has_begun
            raise _failure(code, await call.details(), await call.trailing_metadata(), lost, at_once=at_once)
        context.set_trailing_metadata(tuple(await call.trailing_metadata() or ()))
    finally:
        call.cancel()
        reading.cancel()


class _Backlog:
    """What was read of a stream and is not written yet. One task fills it, another one empties it."""

    def __init__(self, response_bytes: int) -> None:
        self._response_bytes = response_bytes
        self._messages: deque[bytes] = deque()
        self._size = 0
        self._has_ended = False
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self.has_begun = False
        """Whether there was a message."""

    async def fill(self, call: "grpc.aio.UnaryStreamCall[Any, Any]") -> None:
        """Read a stream to its end; its status is the call's to tell."""
        try:
            with contextlib.suppress(grpc.aio.AioRpcError):
                while isinstance(message := await call.read(), bytes):  # Else it is the end.
                    self.has_begun = True
                    self._messages.append(message)
                    self._size += len(message)
                    self._filled.set()
                    if self._size >= READ_AHEAD_BYTES:
                        self._emptied.clear()
                        await self._emptied.wait()
        finally:
            self._has_ended = True
            self._filled.set()

    async def has_more(self) -> bool:
        """Wait until there is something to take; return False when there will be nothing any more."""
        if not self._messages and not self._has_ended:
            self._filled.clear()
            await self._filled.wait()
        return bool(self._messages)

    def take(self) -> bytes:
        """Return one response: a message, and those behind it that fit."""
        taken = [self._messages.popleft()]
        size = len(taken[0])
        while self._messages and size + len(self._messages[0]) <= self._response_bytes:
            size += len(self._messages[0])
            taken.append(self._messages.popleft())
        self._size -= size
        self._emptied.set()
        return b"".join(taken)


def failure_of(error: grpc.aio.AioRpcError, lost: StreamLost, *, at_once: bool = True) -> Refused | StreamLost:
    """Return what a failed call means."""
    return _failure(error.code(), error.details(), error.trailing_metadata(), lost, at_once=at_once)


def _failure(
    code: grpc.StatusCode, details: str | None, trailers: Iterable[Any] | None, lost: StreamLost, *, at_once: bool
) -> Refused | StreamLost:
    """Return what a failed call means: what the provider said, or that it is gone."""
    kept = tuple(trailers or ())
    is_said = any(key == _STATUS_DETAILS for key, _ in kept)
    if code in _TRANSPORT_FAILURES and not is_said:
        return lost
    return Refused(code, details or "", kept, at_once=at_once)
