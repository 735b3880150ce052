"""A rival: the relay that anybody would write on grpc.aio: ``python -m tests.bench.plain_relay LISTEN PROVIDER``.

Bytes in, bytes out, and nothing else: no store, no metadata, no status, no cancellation but what grpc.aio does itself.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from .ends import OPTIONS, START_TURN
from .processes import until_ended


async def serve(listen: str, provider: str) -> None:
    """Relay until the process is told to end."""
    channel = grpc.aio.insecure_channel(provider, options=OPTIONS)
    start_turn = channel.unary_stream(START_TURN)

    async def relay(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        async for message in start_turn(request):
            yield message

    server = grpc.aio.server(options=OPTIONS)
    handlers = {"StartTurn": grpc.unary_stream_rpc_method_handler(relay)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("alive.agent.v1.AgentService", handlers)])
    for address in listen.split(","):
        server.add_insecure_port(address)
    await server.start()
    await until_ended()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
