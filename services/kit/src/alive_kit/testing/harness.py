"""A provider service and a client for it, in one process and over a real unix socket."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from alive.agent.v1 import agent_service_pb2, agent_service_pb2_grpc, event_pb2, options_pb2
from alive_kit.provider import Provider
from alive_kit.service import ProviderService
from alive_kit.settings import ServiceSettings

_ROOM: Mapping[str, Any] = {
    "turns": 1000,
    "turns_per_owner": 1000,
    "turns_per_workspace": 1000,
    "busy_load": 1000.0,
    "overload": 1000.0,
}
"""No test waits for a place unless it asks for that, however many run on the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller of an AgentService."""

    channel: grpc.aio.Channel
    stub: "agent_service_pb2_grpc.AgentServiceAsyncStub"
    workspaces: Path
    """Where a test may make workspaces; ``demo`` exists."""
    service: ProviderService | None = None
    """The service, when it runs in this process."""

    def start(self, text: str, **fields: Any) -> "grpc.aio.UnaryStreamCall[Any, agent_service_pb2.StartTurnResponse]":
        """Start a turn in workspace ``demo`` unless another is named."""
        return self.stub.StartTurn(request(text, **fields))

    async def run(self, text: str, **fields: Any) -> list[event_pb2.Event]:
        """Start a turn and return all its events."""
        return await collect(self.start(text, **fields))

    async def watch(self, turn_id: str, *, after_seq: int = 0, workspace_id: str = "demo") -> list[event_pb2.Event]:
        """Watch a turn to its end and return the events."""
        watching = agent_service_pb2.WatchTurnRequest(workspace_id=workspace_id, turn_id=turn_id, after_seq=after_seq)
        return await collect(self.stub.WatchTurn(watching))

    async def interrupt(self, turn_id: str, reason: str = "") -> "agent_service_pb2.InterruptResult.ValueType":
        """Interrupt a turn of workspace ``demo`` and return what came of it."""
        asked = agent_service_pb2.InterruptTurnRequest(workspace_id="demo", turn_id=turn_id, reason=reason)
        return (await self.stub.InterruptTurn(asked)).result


def request(text: str, **fields: Any) -> agent_service_pb2.StartTurnRequest:
    """Return a request with one text, for workspace ``demo`` unless another is named."""
    return agent_service_pb2.StartTurnRequest(
        **{"workspace_id": "demo", "input": [options_pb2.InputPart(text=text)], **fields}
    )


async def collect(call: Any) -> list[event_pb2.Event]:
    """Return the events of a stream, from where it was read to, once it has closed."""
    events: list[event_pb2.Event] = []
    while (response := await call.read()) is not grpc.aio.EOF:
        events.extend(response.events)
    return events


@contextlib.asynccontextmanager
async def serving(provider: Provider, directory: Path, **settings: Any) -> AsyncIterator[Caller]:
    """Serve a provider under a directory until the block ends, once it has been probed."""
    workspaces = directory / "workspaces"
    (workspaces / "demo").mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "listen": f"unix:{directory}/agent.sock",
        "workspaces": workspaces,
        "state_dir": directory / "state",
        "drain_seconds": 0.0,
        **_ROOM,
        **settings,
    }
    service = ProviderService(provider, ServiceSettings(**values))
    await service.start()
    try:
        await service.probed()
        async with calling(values["listen"], workspaces) as caller:
            yield replace(caller, service=service)
    finally:
        await service.stop(values["drain_seconds"])


@contextlib.asynccontextmanager
async def calling(address: str, workspaces: Path) -> AsyncIterator[Caller]:
    """Open a channel to an AgentService until the block ends."""
    options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Caller(channel=channel, stub=agent_service_pb2_grpc.AgentServiceStub(channel), workspaces=workspaces)
