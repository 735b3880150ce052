"""Turns an object with one coroutine per RPC into gRPC handlers, with one edge for errors.

A unary RPC returns its response. A streaming RPC writes responses to its context, serialized already: a turn's
events are kept as the bytes that go out, and are not built again for each reader.

Requests are read within the edge: what gRPC cannot read it answers by itself, with UNKNOWN.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from alive_kit.errors import AgentError, CallUnsupported, InvalidField, status_of

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Message | None]]


Admit = Callable[[str, Any, Context], None]
"""Lets a call of a method pass, or raises an AgentError."""


class InternalError(AgentError):
    """A defect of ours."""


def handler_of(service: ServiceDescriptor, servicer: object, admit: Admit = lambda *_: None) -> grpc.GenericRpcHandler:
    """Return the handlers of a service; RPCs the servicer has no method for are refused as not offered."""
    methods = {method.name: _method_handler(method, servicer, admit) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _method_handler(method: MethodDescriptor, servicer: object, admit: Admit) -> "grpc.RpcMethodHandler[Any, Any]":
    behaviour: Method = getattr(servicer, method.name, None) or _not_offered(method.name)
    guarded = _edge(behaviour, partial(_parsed, GetMessageClass(method.input_type)), partial(admit, method.name))
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(guarded, request_deserializer=None, response_serializer=None)
    return grpc.unary_unary_rpc_method_handler(
        guarded,
        request_deserializer=None,
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


def _parsed(request_class: type[Message], data: bytes) -> Message:
    """Return a request from its bytes.

    Raises:
        InvalidField: they are no such message.
    """
    try:
        return request_class.FromString(data)
    except DecodeError as error:
        raise InvalidField({"request": f"is no {request_class.DESCRIPTOR.name}: {error}"}) from error


def _edge(behaviour: Method, parsed: Callable[[bytes], Message], admit: Callable[[Any, Context], None]) -> Method:
    """Turn what a method raises into a status, so that no method deals with gRPC statuses itself."""

    async def guarded(data: bytes, context: Context) -> Message | None:
        try:
            request = parsed(data)
            admit(request, context)
            return await behaviour(request, context)
        except AgentError as error:
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            logger.exception("call failed by a defect")
            await abort(context, InternalError("something went wrong on our side: try again"))
        return None

    return guarded


async def abort(context: Context, error: AgentError) -> None:
    """End a call with an error's status."""
    await context.abort_with_status(rpc_status.to_status(status_of(error)))


def _not_offered(name: str) -> Method:
    async def refuse(_request: Any, _context: Context) -> Message | None:
        raise CallUnsupported(name, "this service does not offer the call yet; see GetProviderInfo for what it can do")

    return refuse
