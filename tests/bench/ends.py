"""The two ends of a stream, so that what is between them can be measured.

The provider's end is a program (`ends.cc`) that streams what the prompt asks for, one event in each message. Bursts
and paced streams are read by that program too: ends in Python are slower than most of what can be between them. What
does not depend on the ends' own speed is called from here.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from alive.agent.v1 import agent_service_pb2, event_pb2, options_pb2

from .processes import Process, program

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
START_TURN = "/alive.agent.v1.AgentService/StartTurn"
RUNNING = "/bench.Ends/Running"
TEXT = "x" * 100
_TEMPLATE = agent_service_pb2.StartTurnResponse(
    events=[event_pb2.Event(seq=1, item_delta=event_pb2.ItemDelta(item_id="message-1", text=f"{'0' * 19} {TEXT}"))]
)


def _program(what: str) -> tuple[str, ...]:
    """Return the beginning of a command line of the program, which ``make bench`` compiles."""
    return (os.environ["ALIVE_BENCH_ENDS"], what, _TEMPLATE.SerializeToString().hex())


def provider_end(socket: Path, *more: str) -> contextlib.AbstractAsyncContextManager[Process]:
    """Run the provider's end at a unix socket, and at more addresses."""
    return program(*_program("serve"), f"unix:{socket}", *more, socket=socket)


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
        self._address = address
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._start_turn = self._channel.unary_stream(START_TURN)
        self._running = self._channel.unary_unary(RUNNING)

    def start(self, prompt: str, **fields: Any) -> "grpc.aio.UnaryStreamCall[bytes, bytes]":
        """Start a turn that ends when its caller goes away."""
        return self._start_turn(_asked(prompt, **fields).SerializeToString(), wait_for_ready=True)

    async def burst(self, streams: int, events: int) -> float:
        """Have the program read so many streams of so many events; return events per second."""
        async with self._program(f"burst {events}", streams) as said:
            await said.readline()
            found = json.loads(await said.read())
        if found["events"] != streams * events:
            raise RuntimeError(f"{found['events']} events arrived instead of {streams * events}")
        return float(found["events"] / found["seconds"])

    async def paced(self, streams: int, seconds: float, rate: float, cpu: Callable[[], float]) -> "Paced":
        """Have it read so many streams of so many events per second; look at the CPU meanwhile, the starts left out."""
        async with self._program(f"paced {seconds} {rate}", streams) as said:
            await said.readline()
            before, start = cpu(), time.perf_counter()
            await asyncio.sleep(seconds / 2)
            used, events = cpu() - before, streams * rate * (time.perf_counter() - start)
            latencies = json.loads(await said.read())["latencies"]
        return Paced(latencies=sorted(latencies[len(latencies) // 4 :]), cpu=used / events * 1e6)

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

    async def read(self, prompt: str, **fields: Any) -> float:
        """Read a turn from here; return events per second."""
        began = time.perf_counter()
        count = await self._count(prompt, **fields)
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

    async def latencies(self, prompt: str) -> list[float]:
        """Read a paced stream; return how long each event took, in µs."""
        call, found = self.start(prompt), []
        while (message := await call.read()) is not grpc.aio.EOF:
            now = time.perf_counter_ns()
            events = agent_service_pb2.StartTurnResponse.FromString(message).events
            texts = (event.item_delta.text for event in events if event.HasField("item_delta"))
            found.extend((now - int(text.split()[0])) / 1e3 for text in texts)
        return found

    @contextlib.asynccontextmanager
    async def _program(self, prompt: str, streams: int) -> AsyncIterator[asyncio.StreamReader]:
        """Run the caller's end of the program; yield what it says.

        Raises:
            RuntimeError: a call failed.
        """
        pipe = asyncio.subprocess.PIPE
        words = (*_program("call"), self._address, str(streams))
        running = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
        assert running.stdin
        assert running.stdout
        assert running.stderr
        running.stdin.write(_asked(prompt).SerializeToString())
        running.stdin.close()
        try:
            yield running.stdout
        except ValueError as error:
            raise RuntimeError((await running.stderr.read()).decode()) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                running.kill()
            await running.wait()


def _asked(prompt: str, **fields: Any) -> agent_service_pb2.StartTurnRequest:
    return agent_service_pb2.StartTurnRequest(
        workspace_id="demo",
        input=[options_pb2.InputPart(text=prompt)],
        delivery=options_pb2.Delivery(on_disconnect=options_pb2.ON_DISCONNECT_INTERRUPT),
        **fields,
    )


async def _drain(call: "grpc.aio.UnaryStreamCall[bytes, bytes]") -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
