"""How soon a caller hears of what died: a CLI, boxed and behind the router, and a provider's service."""

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

import grpc

from alive_kit.testing.harness import Caller, calling
from alive_kit.testing.scripted_model import Fault, Reply

from . import between
from .bare import BARE
from .processes import read
from .relay import provider
from .row import Row, against
from .system import System, system

_CLIS = (b"claude", b"codex")


async def measure(*, short: bool) -> list[Row]:
    """Measure both."""
    rounds = 4 if short else 20
    async with system() as running:
        rows = [await _cli(running, name, rounds) for name in BARE]
    times = [await _service() for _ in range(2 if short else 5)]
    lost, back = zip(*times, strict=True)
    return [
        *rows,
        against("provider service killed: STREAM_LOST after, ms", lost, 500, "ms"),
        against("provider service back: terminal by WatchTurn after, ms", back, 1_500, "ms"),
    ]


async def _cli(running: System, name: str, rounds: int) -> Row:
    reply = Reply(text="This is going to be cut off.", chunk=4, fault=Fault(stall_after=2))
    prompt = await running.script(f"{name}-killed", reply)
    took = []
    for _ in range(rounds):
        call = running.caller.start(prompt, provider_id=name, workspace_id="bench")
        while not any(event.HasField("item_delta") for event in (await call.read()).events):
            pass
        clis = [process for process in running.agents(name) if read(process, "comm").strip().startswith(_CLIS)]
        began = time.perf_counter()
        for process in clis:
            os.kill(process, signal.SIGKILL)
        while not any(event.HasField("turn_failed") for event in (await call.read()).events):
            pass
        took.append((time.perf_counter() - began) * 1e3)
    return against(f"{name}: CLI killed in its box, p95 to turn_failed, ms", [_p95(took)], 100, "ms")


async def _service() -> tuple[float, float]:
    """Return how long, in ms, the caller waits for STREAM_LOST, and for the terminal once the service is back."""
    async with contextlib.AsyncExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="alive-")))
        first = contextlib.AsyncExitStack()
        socket, process = await first.enter_async_context(provider(directory))
        await exits.enter_async_context(between.router(directory, socket))
        address = f"unix:{directory}/router.sock"
        caller: Caller = await exits.enter_async_context(calling(address, directory / "workspaces"))
        call = caller.start("hold", turn_id="held")
        await call.read()
        began = time.perf_counter()
        process.kill()
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        lost = (time.perf_counter() - began) * 1e3
        if await call.code() is not grpc.StatusCode.UNAVAILABLE or "'held'" not in (await call.details() or ""):
            raise RuntimeError(f"the stream ended with {await call.code()}: {await call.details()}")
        await first.aclose()
        await exits.enter_async_context(provider(directory))
        began = time.perf_counter()
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                if (await caller.watch("held"))[-1].HasField("turn_failed"):
                    return lost, (time.perf_counter() - began) * 1e3


def _p95(values: list[float]) -> float:
    return sorted(values)[max(0, round(len(values) * 0.95) - 1)]
