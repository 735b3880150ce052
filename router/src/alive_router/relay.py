"""Relays one provider's stream to one caller: the messages as they are, in order, no faster than they are read.

Deadline, cancellation, metadata and the final status pass through. The only status made here is `StreamLost`: the
provider went away without one.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from alive_kit.errors import StreamLost
from alive_kit.rpc import Context

Metadata = Sequence[tuple[str, str | bytes]]

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
) -> None:
    """Call a provider's streaming method and copy its stream.

    Raises:
        StreamLost: the provider went away without a status; the one given is raised.
        Refused: the provider ended the stream with an error.
    """
    call = method(request, metadata=tuple(metadata), timeout=context.time_remaining())
    # A caller's cancellation reaches this coroutine only while it waits; the callback comes always.
    context.add_done_callback(lambda _: call.cancel())  # type: ignore[arg-type]  # it is given the context
    has_messages = False
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            has_messages = True
            await context.write(response)
        if (code := await call.code()) is not grpc.StatusCode.OK:
            raise _failure(code, await call.details(), await call.trailing_metadata(), lost, at_once=not has_messages)
        context.set_trailing_metadata(tuple(await call.trailing_metadata() or ()))
    except grpc.aio.AioRpcError as error:
        raise failure_of(error, lost, at_once=not has_messages) from error
    finally:
        call.cancel()


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
