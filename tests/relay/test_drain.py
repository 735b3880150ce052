"""The router as a process of its own, asked to end and started again."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from alive.agent.v1 import event_pb2
from alive_kit.testing.fakes import FakeProvider, delta, message_completed, message_started, started
from alive_kit.testing.harness import Caller, calling, collect, serving

BOUND = 20


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return an empty directory with a short path: those of sockets are bounded."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def process(directory: Path, workspaces: Path) -> AsyncIterator[tuple[Caller, asyncio.subprocess.Process]]:
    """Run a router in front of provider ``red``, and yield a caller of it once it serves."""
    address = f"unix:{directory}/router.sock"
    own = {
        "ALIVE_LISTEN": address,
        "ALIVE_PROVIDERS": f"red=unix:{directory}/agent.sock",
        "ALIVE_WORKSPACES": str(workspaces),
        "ALIVE_STATE_DIR": f"{directory}/router",
        "ALIVE_DRAIN_SECONDS": "1",
    }
    (directory / "router").mkdir(exist_ok=True)
    quiet = asyncio.subprocess.DEVNULL
    router = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alive_router"), env={**os.environ, **own}, stderr=quiet
    )
    try:
        async with calling(address, workspaces) as caller:
            async with asyncio.timeout(BOUND):
                await health_pb2_grpc.HealthStub(caller.channel).Check(
                    health_pb2.HealthCheckRequest(), wait_for_ready=True
                )
            yield caller, router
    finally:
        if router.returncode is None:
            router.kill()
        await router.wait()


async def test_a_router_that_is_asked_to_end_loses_nothing(directory: Path) -> None:
    """One stream ends in time, one is told where to go on; the next router shows the rest of it."""
    soon, late = asyncio.Event(), asyncio.Event()

    async def until_soon(_: object) -> None:
        await soon.wait()

    async def until_late(_: object) -> None:
        await late.wait()

    script = [started(), message_started(), delta("one")]
    provider = FakeProvider(provider_id="red")
    provider.scripts["short"] = [*script, until_soon, message_completed("one")]
    provider.scripts["long"] = [*script, until_late, message_completed("one")]
    async with serving(provider, directory) as direct:
        async with process(directory, direct.workspaces) as (caller, router):
            calls = {name: caller.start(name, turn_id=name) for name in ("short", "long")}
            seen = {name: await until_delta(call) for name, call in calls.items()}
            router.send_signal(signal.SIGTERM)
            while not (refused := await refusal(caller)):
                pass
            soon.set()
            seen["short"] += await collect(calls["short"])
            with pytest.raises(grpc.aio.AioRpcError) as lost:
                seen["long"] += await collect(calls["long"])
            assert await router.wait() == 0
        async with process(directory, direct.workspaces) as (caller, _):
            watching = asyncio.create_task(caller.watch("long", after_seq=len(seen["long"])))
            late.set()
            rest = await watching
            whole = await direct.watch("long")

    assert "SHUTTING_DOWN" in refused
    assert seen["short"][-1].HasField("turn_completed")
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "STREAM_LOST" in str(dict(lost.value.trailing_metadata() or ()))
    assert "'long'" in (lost.value.details() or "")
    assert [*seen["long"], *rest] == whole
    assert rest[-1].HasField("turn_completed")


async def until_delta(call: object) -> list[event_pb2.Event]:
    """Read a stream until its first delta."""
    events: list[event_pb2.Event] = []
    while not any(event.HasField("item_delta") for event in events):
        events += (await call.read()).events
    return events


async def refusal(caller: Caller) -> str:
    """Return why a turn is refused; empty when it is not."""
    try:
        await collect(caller.start("go", validate_only=True))
    except grpc.aio.AioRpcError as error:
        return str(dict(error.trailing_metadata() or ()))
    return ""
