"""A provider that says bytes as they are set, one message after the other, and counts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from alive_kit.testing.harness import Caller

from .conftest import System, running

BOUND = 20


@dataclass(kw_only=True)
class Speaker:
    """A provider that says messages as they are set, and counts."""

    caller: Caller
    has_edge: bool = False
    """Whether its streams go past the router."""
    messages: list[bytes] = field(default_factory=list)
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    code: grpc.StatusCode = grpc.StatusCode.OK
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """What the end of a stream waits for."""
    heard: list[tuple[str, str | bytes]] = field(default_factory=list)
    """The metadata that it was called with."""
    said: int = 0
    spoke: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever something is said."""
    running: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once no stream runs any more."""

    async def stopped(self) -> None:
        """Return once nothing has been said for half a second."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.spoke.clear()
                async with asyncio.timeout(0.5):
                    await self.spoke.wait()

    async def speak(self, _request: bytes, context: Any) -> None:
        """Say all of it to a caller."""
        self.heard.extend(context.invocation_metadata() or ())
        self.running += 1
        try:
            for message in self.messages:
                await context.write(message)
                self.said += 1
                self.spoke.set()
            await self.go_on.wait()
            context.set_trailing_metadata(self.trailers)
            if self.code is not grpc.StatusCode.OK:
                await context.abort(self.code, "as it was said", self.trailers)
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()


@contextlib.asynccontextmanager
async def speaking() -> AsyncIterator[tuple[Speaker, System]]:
    """Run a speaker behind a router; red is there too."""
    async with running("red", absent="speaker", default_provider="speaker") as system:
        speaker, server = Speaker(caller=system.caller, has_edge=system.has_edge), grpc.aio.server()
        handlers = dict.fromkeys(("StartTurn", "ReadItemContent"), grpc.unary_stream_rpc_method_handler(speaker.speak))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("alive.agent.v1.AgentService", handlers)])
        server.add_insecure_port(f"unix:{system.directory}/absent.sock")
        await server.start()
        async with asyncio.timeout(BOUND):
            while not system.router._links["speaker"].is_fine:  # The router looks for it anew.
                await asyncio.sleep(0.01)
        yield speaker, system
        await server.stop(0)
