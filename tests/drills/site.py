"""Where a drill happens: the whole system, one workspace in it, and the processes that are there."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from alive.agent.v1 import agent_service_pb2, approval_pb2, event_pb2
from alive_kit.testing.harness import Caller, collect
from alive_kit.testing.postgres import Postgres
from alive_kit.testing.scripted_model import Reply, Script
from alive_kit.testing.scripted_model.control import ModelControl

from ..e2e.conftest import Running

BOUND = 60.0
_POLL = 0.02
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One workspace of a system that runs."""

    running: Running
    caller: Caller
    model: ModelControl
    database: Postgres
    provider: str
    workspace_id: str

    @property
    def workspace(self) -> Path:
        """The workspace's directory."""
        return self.running.state / "workspaces" / self.workspace_id

    def service(self, name: str) -> list[int]:
        """Return the process of one of the system's services, by its module, with those that it has started."""
        first = self.running.pid(name)
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]

    def agents(self, word: str = "") -> list[int]:
        """Return the processes of the workspace's agents, or those of them whose command line has a word."""
        return [
            process
            for process, environment, words in _processes()
            if b"ALIVE_AGENT=" in environment and self.workspace_id.encode() in environment and word.encode() in words
        ]

    def launcher(self) -> list[int]:
        """Return the launcher of the provider's boxes."""
        name = f"/{self.provider}-".encode()
        return [process for process, _, words in _processes() if b"alive_launcher\0" in words and name in words]

    async def script(self, *replies: Reply) -> str:
        """Set what the model says to this workspace; return the prompt that has it said."""
        return await self.model.script(self.workspace_id, Script(replies=list(replies), loop=True)) + " go"

    async def run(self, **fields: Any) -> list[event_pb2.Event]:
        """Run a turn to its end, as a caller does who tries again what may be tried again."""
        async with asyncio.timeout(BOUND):
            while True:
                try:
                    events = await collect(self.start(**fields))
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _AWAY:
                        raise
                else:
                    if not events[-1].turn_failed.error.retryable:
                        return events
                await asyncio.sleep(_POLL)

    def start(self, prompt: str, **fields: Any) -> "grpc.aio.UnaryStreamCall[Any, Any]":
        """Start a turn in the workspace."""
        return self.caller.start(prompt, provider_id=self.provider, workspace_id=self.workspace_id, **fields)

    async def watch(self, turn_id: str, after_seq: int = 0) -> list[event_pb2.Event]:
        """Return what a turn says to its end, through whatever interrupts it."""
        events: list[event_pb2.Event] = []
        async with asyncio.timeout(BOUND):
            while not (events and is_terminal(events[-1])):
                seen = events[-1].seq if events else after_seq
                asked = agent_service_pb2.WatchTurnRequest(
                    workspace_id=self.workspace_id, turn_id=turn_id, after_seq=seen
                )
                await follow(self.caller.stub.WatchTurn(asked), events)
                await asyncio.sleep(_POLL)
        return events

    async def answer(self, request: approval_pb2.ResolveApprovalRequest) -> None:
        """Answer an approval, once whoever has it is there; nothing when its turn has ended meanwhile."""
        async with asyncio.timeout(BOUND):
            while True:
                try:
                    await self.caller.stub.ResolveApproval(request)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        return
                else:
                    return
                await asyncio.sleep(_POLL)

    async def until(self, is_so: Callable[[], object]) -> None:
        """Return once something is so."""
        async with asyncio.timeout(BOUND):
            while not is_so():
                await asyncio.sleep(_POLL)


async def follow(call: Any, events: list[event_pb2.Event]) -> None:
    """Read a stream until it ends or breaks."""
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            events.extend(response.events)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise


def is_terminal(event: event_pb2.Event) -> bool:
    """Whether nothing comes after it."""
    return event.WhichOneof("kind") in {"turn_completed", "turn_failed", "turn_interrupted"}


def send(processes: list[int], number: int) -> None:
    """Send a signal to processes, those of them that are still there."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _processes() -> Iterator[tuple[int, bytes, bytes]]:
    """Yield every process with its environment and its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
