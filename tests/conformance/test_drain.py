"""A provider's service that is asked to end, as a process of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from alive.agent.v1 import error_pb2, event_pb2
from alive_kit.testing.harness import Caller, calling, collect
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply, ScriptedModel

from .conftest import DECLARATIONS, KEY, PROVIDERS, configured, kinds, said

BOUND = 30


@contextlib.asynccontextmanager
async def process(name: str, directory: Path) -> AsyncIterator[tuple[Caller, asyncio.subprocess.Process]]:
    """Run a provider's service, and yield a caller of it once it is ready."""
    address = f"unix:{directory}/agent.sock"
    own = {
        "ALIVE_LISTEN": address,
        "ALIVE_WORKSPACES": f"{directory}/workspaces",
        "ALIVE_STATE_DIR": f"{directory}/state",
        "ALIVE_DRAIN_SECONDS": "6",
        "ALIVE_TURNS": "2",
        "ALIVE_OVERLOAD": "1000",
    }
    command = (sys.executable, "-m", DECLARATIONS[name].module)
    service = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **own}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with calling(address, directory / "workspaces") as caller:
            async with asyncio.timeout(BOUND):
                await ready(caller)
            yield caller, service
    finally:
        if service.returncode is None:
            service.kill()
        await service.wait()


async def ready(caller: Caller) -> None:
    """Return once a service takes turns."""
    watching = health_pb2_grpc.HealthStub(caller.channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
    async for answer in watching:
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            break


async def refusal(caller: Caller, **fields: object) -> str:
    """Return why a turn is refused; empty when it is not."""
    try:
        await collect(caller.start("go", **fields))
    except grpc.aio.AioRpcError as error:
        return str(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", error.details()))
    return ""


async def until(call: object, kind: str) -> list[event_pb2.Event]:
    """Read a stream until an event of a kind."""
    events: list[event_pb2.Event] = []
    while not any(event.HasField(kind) for event in events):
        events += (await call.read()).events
    return events


@requirement("turn:drain")
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_service_that_is_asked_to_end_loses_nothing(name: str, model: ScriptedModel, directory: Path) -> None:
    """One turn finishes in time, one does not, one waits; all of them are there when the service is back."""
    (directory / "key").write_text(KEY)
    (directory / "workspaces/demo").mkdir(parents=True)
    slow = model.script(f"{name}-slow", [Reply(text="Slowly but surely.", chunk=1, gap=0.08)])
    stalls = model.script(f"{name}-stalls", [Reply(text="Never to end.", chunk=2, fault=Fault(stall_after=2))])
    with configured(name, model.url, directory / "key"):
        async with process(name, directory) as (caller, service):
            calls = {"slow": caller.start(slow, turn_id="slow"), "stalls": caller.start(stalls, turn_id="stalls")}
            seen = {turn_id: await until(call, "item_delta") for turn_id, call in calls.items()}
            calls["waits"] = caller.start(slow, turn_id="waits")
            seen["waits"] = await until(calls["waits"], "turn_queued")
            service.send_signal(signal.SIGTERM)
            while "SHUTTING_DOWN" not in await refusal(caller, validate_only=True):
                assert service.returncode is None
            for turn_id, call in calls.items():
                seen[turn_id] += await collect(call)
            assert await service.wait() == 0
        async with process(name, directory) as (caller, _):
            watched = {turn_id: await caller.watch(turn_id) for turn_id in calls}

    assert watched == seen
    assert said(seen["slow"]) == "Slowly but surely."
    assert kinds(seen["slow"])[-1] == "turn_completed"
    assert seen["stalls"][-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_SHUTTING_DOWN
    assert kinds(seen["waits"]) == ["turn_queued", "turn_failed"]
    assert seen["waits"][-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_SHUTTING_DOWN
