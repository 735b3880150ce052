"""Relays one provider's stream to one caller: what it says, as bytes, in order, no faster than it is read.

Deadline, cancellation, metadata and the final status pass through. The only status made here is `StreamLost`: the
provider went away without one, or this router does.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from alive_kit.errors import StreamLost
from alive_kit.rpc import Context
from alive_router.copying import Copy, Stalls
from alive_router.providers import ProviderLink

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])

Metadata = Sequence[tuple[str, str | bytes]]

RESPONSE_BYTES = 1 << 20
"""Where a response stops taking in the ones behind it."""

UNARY_SECONDS = 30.0
"""How long a provider may take for a call whose caller sets no deadline."""

_STATUS_DETAILS = "grpc-status-details-bin"

_TRANSPORT_FAILURES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}

_NOT_FORWARDED = (
    *("authorization", "cookie", "user-agent", "te", "content-type", "grpc-", ":"),
    *("x-alive-", "x-forwarded-", "x-envoy-"),
)
"""Beginnings of metadata names that end here: a caller's identity is the router's business, and only the router may
say what it decided."""


def forwarded(metadata: Iterable[Any] | None) -> list[tuple[str, str | bytes]]:
    """Return what of a caller's metadata reaches the provider."""
    return [(key, value) for key, value in metadata or () if not key.lower().startswith(_NOT_FORWARDED)]


class Refused(Exception):
    """A provider ended a stream with an error of its own, to be passed on as it is."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Metadata) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailers = trailers

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        """Why, as the provider says it; empty where it does not."""
        info = error_details_pb2.ErrorInfo()
        for key, value in self.trailers:
            if key == _STATUS_DETAILS and isinstance(value, bytes):
                for detail in status_pb2.Status.FromString(value).details:
                    if detail.Unpack(info):
                        return info
        return info

    async def pass_on(self, context: Context) -> None:
        """End the caller's call with the same status and trailers."""
        await context.abort(self.code, self.details, tuple(self.trailers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A call of a provider's streaming method."""

    link: ProviderLink
    method: str
    request: Message
    turn_id: str
    metadata: Metadata = ()
    """What the router has to say."""
    response_bytes: int = RESPONSE_BYTES
    """Where a response stops taking in the ones behind it; 0 keeps messages apart."""


def passing_on(method: Method) -> Method:
    """Return an RPC's method that ends its call as a provider ended the one it made."""

    @functools.wraps(method)
    async def wrapped(servicer: Any, request: Any, context: Context) -> Any:
        try:
            return await method(servicer, request, context)
        except Refused as refused:
            await refused.pass_on(context)

    return cast("Method", wrapped)


class Relays:
    """The streams that are being copied."""

    def __init__(self) -> None:
        self._calls: set[grpc.aio.UnaryStreamCall[Any, Any]] = set()
        self._none = asyncio.Event()
        self._none.set()
        self._stalls = Stalls()
        self.is_ending = False
        """Whether this router goes down: what still runs is ended."""

    async def run(self, outgoing: "Outgoing", context: Context, on_first: Callable[[], None] = lambda: None) -> None:
        """Call a provider's streaming method and copy its stream; say so before something is passed on.

        Raises:
            StreamLost: the provider or this router went away without a status.
            Refused: the provider ended the stream with an error.
        """
        lost = StreamLost(outgoing.link.provider_id, outgoing.turn_id)
        metadata = (*forwarded(context.invocation_metadata()), *outgoing.metadata)
        method = outgoing.link.streaming(outgoing.method)
        call = method(outgoing.request.SerializeToString(), metadata=metadata, timeout=context.time_remaining())
        # A caller's cancellation reaches this coroutine only while it waits; the callback comes always.
        context.add_done_callback(lambda _: call.cancel())  # type: ignore[arg-type]  # it is given the context
        self._calls.add(call)
        self._none.clear()
        try:
            await Copy(call, context, outgoing.response_bytes, self._stalls).run(on_first)
            if (code := await call.code()) is not grpc.StatusCode.OK:
                raise _failure(code, await call.details(), await call.trailing_metadata(), lost)
            context.set_trailing_metadata(tuple(await call.trailing_metadata() or ()))
        except asyncio.CancelledError:
            if self.is_ending and not context.cancelled():
                raise lost from None
            raise
        finally:
            call.cancel()
            self._calls.discard(call)
            if not self._calls:
                self._none.set()

    async def end(self, grace: float) -> None:
        """Return when no stream is left; end those as lost that have not ended within a grace (seconds)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._none.wait()
        self.is_ending = True
        for call in list(self._calls):
            call.cancel()


def failure_of(error: grpc.aio.AioRpcError, lost: StreamLost) -> Refused | StreamLost:
    """Return what a failed call means."""
    return _failure(error.code(), error.details(), error.trailing_metadata(), lost)


def _failure(
    code: grpc.StatusCode, details: str | None, trailers: Iterable[Any] | None, lost: StreamLost
) -> Refused | StreamLost:
    """Return what a failed call means: what the provider said, or that it is gone."""
    kept = tuple(trailers or ())
    is_said = any(key == _STATUS_DETAILS for key, _ in kept)
    if code in _TRANSPORT_FAILURES and not is_said:
        return lost
    return Refused(code, details or "", kept)


async def ask(
    link: ProviderLink,
    method: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
    request: Request,
    context: Context,
    metadata: Metadata = (),
) -> Response:
    """Call a unary method of a provider on a caller's behalf.

    Raises:
        ProviderNotReady: it cannot be reached.
        StreamLost: it went away without a status.
        Refused: it refused the call.
    """
    await link.connect()
    sent = (*forwarded(context.invocation_metadata()), *metadata)
    try:
        return await method(request, metadata=sent, timeout=context.time_remaining() or UNARY_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise failure_of(error, StreamLost(link.provider_id, getattr(request, "turn_id", ""))) from error
