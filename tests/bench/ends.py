"""The two ends of a stream, so that what is between them can be measured: ``python -m tests.bench.ends ADDRESS``.

The provider's end streams what the prompt asks for, one event in each message, serialized beforehand: it is not what
is measured. Prompts: ``burst EVENTS``, ``paced SECONDS EVENTS_PER_SECOND``, ``hold``.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from alive.agent.v1 import agent_service_pb2, event_pb2, options_pb2

from .processes import until_ended

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
START_TURN = "/alive.agent.v1.AgentService/StartTurn"
RUNNING = "/bench.Ends/Running"
TEXT = "x" * 100


class Provider:
    """Streams what it is asked for."""

    def __init__(self) -> None:
        self._running = 0

    async def start_turn(self, request: agent_service_pb2.StartTurnRequest, context: Any) -> None:
        """Stream until everything is said or the caller is gone."""
        self._running += 1
        try:
            async for message in _said(request.input[0].text.split()):
                await context.write(message)
        finally:
            self._running -= 1

    async def watch_outcomes(self, _request: bytes, context: Any) -> None:
        """Tell of no outcome: what books them waits."""
        await context.send_initial_metadata(())
        await asyncio.Event().wait()

    async def running(self, _request: bytes, _context: Any) -> bytes:
        """Return how many streams run."""
        return str(self._running).encode()


async def _said(words: list[str]) -> AsyncIterator[bytes]:
    match words:
        case ["burst", events]:
            message = _message(TEXT)
            for _ in range(int(events)):
                yield message
        case ["paced", seconds, rate]:
            start, period = time.perf_counter(), 1 / float(rate)
            for number in range(round(float(seconds) * float(rate))):
                await asyncio.sleep(start + number * period - time.perf_counter())
                yield _message(f"{time.perf_counter_ns()} {TEXT}")
        case _:
            yield _message(TEXT)
            await asyncio.Event().wait()


def _message(text: str) -> bytes:
    event = event_pb2.Event(seq=1, item_delta=event_pb2.ItemDelta(item_id="message-1", text=text))
    return agent_service_pb2.StartTurnResponse(events=[event]).SerializeToString()


async def serve(address: str) -> None:
    """Serve the provider's end until the process is told to end."""
    provider, server = Provider(), grpc.aio.server(options=OPTIONS)
    start_turn = grpc.unary_stream_rpc_method_handler(
        provider.start_turn, request_deserializer=agent_service_pb2.StartTurnRequest.FromString
    )
    running = grpc.unary_unary_rpc_method_handler(provider.running)
    watch_outcomes = grpc.unary_stream_rpc_method_handler(provider.watch_outcomes)
    for service, methods in (
        ("alive.agent.v1.AgentService", {"StartTurn": start_turn}),
        ("alive.agent.v1.OutcomeService", {"WatchOutcomes": watch_outcomes}),
        ("bench.Ends", {"Running": running}),
    ):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
    for each in address.split(","):
        server.add_insecure_port(each)
    await server.start()
    await until_ended()


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """What paced streams cost."""

    latencies: list[float]
    """How long each event took from end to end, sorted, in µs."""
    cpu: float
    """µs of CPU for each event."""

    def percentile(self, percent: int) -> float:
        """Return the latency that so many percent of the events do not exceed."""
        return self.latencies[len(self.latencies) * percent // 100]


class Caller:
    """The caller's end."""

    def __init__(self, address: str) -> None:
        options = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._start_turn = self._channel.unary_stream(START_TURN)
        self._running = self._channel.unary_unary(RUNNING)

    def start(self, prompt: str, **fields: Any) -> "grpc.aio.UnaryStreamCall[bytes, bytes]":
        """Start a turn that ends when its caller goes away."""
        asked = agent_service_pb2.StartTurnRequest(
            workspace_id="demo",
            input=[options_pb2.InputPart(text=prompt)],
            delivery=options_pb2.Delivery(on_disconnect=options_pb2.ON_DISCONNECT_INTERRUPT),
            **fields,
        )
        return self._start_turn(asked.SerializeToString(), wait_for_ready=True)

    async def burst(self, streams: int, events: int) -> float:
        """Read so many streams of so many events; return events per second."""
        began = time.perf_counter()
        counts = await asyncio.gather(*(self._count(f"burst {events}") for _ in range(streams)))
        if sum(counts) != streams * events:
            raise RuntimeError(f"{sum(counts)} events arrived instead of {streams * events}")
        return streams * events / (time.perf_counter() - began)

    async def paced(self, streams: int, seconds: float, rate: float, cpu: Callable[[], float]) -> "Paced":
        """Read so many streams of so many events per second, and look at the CPU meanwhile, the starts left out."""
        begun = [asyncio.Event() for _ in range(streams)]
        calls = asyncio.gather(*(self.latencies(f"paced {seconds} {rate}", one) for one in begun))
        for one in begun:
            await one.wait()
        before, start = cpu(), time.perf_counter()
        await asyncio.sleep(seconds / 2)
        used, events = cpu() - before, streams * rate * (time.perf_counter() - start)
        late = [latency for latencies in await calls for latency in latencies[len(latencies) // 4 :]]
        return Paced(latencies=sorted(late), cpu=used / events * 1e6)

    async def first(self) -> float:
        """Start a turn; return how long its first event took, in µs."""
        began, call = time.perf_counter(), self.start("burst 1")
        await call.read()
        took = (time.perf_counter() - began) * 1e6
        await _drain(call)
        return took

    async def short(self, calls: int) -> None:
        """Make so many calls of one event, sixteen at a time."""
        waiting = asyncio.Semaphore(16)

        async def one() -> None:
            async with waiting:
                await self._count("burst 1")

        await asyncio.gather(*(one() for _ in range(calls)))

    async def flood(self, events: int, **fields: Any) -> float:
        """Read a flood of a provider of the kit; return events per second."""
        began = time.perf_counter()
        count = await self._count(f"flood {events}", **fields)
        return count / (time.perf_counter() - began)

    async def ready(self) -> None:
        """Return once the provider takes turns."""
        while True:
            try:
                await self._count("flood 1")
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)

    async def running(self) -> int:
        """Return how many streams run at the provider's end."""
        return int(await self._running(b"", wait_for_ready=True))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def _count(self, prompt: str, **fields: Any) -> int:
        call, count = self.start(prompt, **fields), 0
        while (message := await call.read()) is not grpc.aio.EOF:
            count += len(agent_service_pb2.StartTurnResponse.FromString(message).events)
        return count

    async def latencies(self, prompt: str, begun: asyncio.Event | None = None) -> list[float]:
        """Read a paced stream; return how long each event took, in µs."""
        call, found = self.start(prompt), []
        while (message := await call.read()) is not grpc.aio.EOF:
            now = time.perf_counter_ns()
            events = agent_service_pb2.StartTurnResponse.FromString(message).events
            texts = (event.item_delta.text for event in events if event.HasField("item_delta"))
            found.extend((now - int(text.split()[0])) / 1e3 for text in texts)
            if begun:
                begun.set()
        return found


async def _drain(call: "grpc.aio.UnaryStreamCall[bytes, bytes]") -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
