"""The clock jumps in the middle of a turn: a provider's service and the router see another time, by libfaketime."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import event_pb2, options_pb2, workspace_service_pb2, workspace_service_pb2_grpc
from alive_kit.testing.harness import Caller, calling, collect
from alive_kit.testing.processes import Processes, Program
from alive_kit.testing.scripted_model import Reply, ScriptedModel

from ..conformance.conftest import DECLARATIONS, KEY, configured

LIBRARY = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1")
ALL = os.environ.get("ALIVE_DRILLS") == "all"
BOUND = 30
LIMITS = options_pb2.Limits(deadline=Duration(seconds=20), idle_timeout=Duration(seconds=5))

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="no libfaketime: apt-get install libfaketime")


@contextlib.asynccontextmanager
async def running(provider: str, directory: Path, model: ScriptedModel) -> AsyncIterator[Caller]:
    """Run a provider's service and a router on the clock that the file ``clock`` says; yield a caller of the router."""
    (directory / "workspaces/demo").mkdir(parents=True)
    (directory / "key").write_text(KEY)
    (directory / "clock").write_text("+0")
    clock = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": f"{directory}/clock",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # A jump moves the clock on the wall, and no other.
    }
    common = {**clock, "ALIVE_WORKSPACES": f"{directory}/workspaces"}
    with configured(provider, model.url, directory / "key"):
        service = {
            **os.environ,
            **common,
            "ALIVE_LISTEN": f"unix:{directory}/agent.sock",
            "ALIVE_STATE_DIR": f"{directory}/state",
            "ALIVE_OVERLOAD": "1000",
        }
    router = {
        **common,
        "ALIVE_LISTEN": f"unix:{directory}/router.sock",
        "ALIVE_PROVIDERS": f"{provider}=unix:{directory}/agent.sock",
        "ALIVE_STATE_DIR": f"{directory}/router",
    }
    programs = {
        "service": Program(words=["-m", DECLARATIONS[provider].module], variables=service),
        "router": Program(words=["-m", "alive_router"], variables=router),
    }
    with contextlib.closing(Processes(directory, programs)) as processes:
        processes.start()
        async with calling(f"unix:{directory}/router.sock", directory / "workspaces") as caller:
            yield caller


async def ready(caller: Caller) -> None:
    """Return once the router has a provider that takes turns."""
    stub = workspace_service_pb2_grpc.WorkspaceServiceStub(caller.channel)
    asked = workspace_service_pb2.ListProvidersRequest(workspace_id="demo")
    async with asyncio.timeout(BOUND):
        while not all(entry.usable for entry in (await stub.ListProviders(asked, wait_for_ready=True)).providers):
            await asyncio.sleep(0.05)


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    """Return the scripted model."""
    async with ScriptedModel(key=KEY) as model:
        yield model


@pytest.mark.parametrize(
    ("provider", "jump"),
    [("claude", "+3600"), ("codex", "-3600"), *([("claude", "-3600"), ("codex", "+3600")] if ALL else [])],
)
async def test_a_turn_survives_a_jump_of_the_clock(
    directory: Path, model: ScriptedModel, provider: str, jump: str
) -> None:
    """An hour, in either direction: it completes within its limits, is kept and booked, and the next one works."""
    slow = model.script("slow", [Reply(text="This takes a while to say.", chunk=2, gap=0.1), Reply(text="Next.")])
    async with running(provider, directory, model) as caller:
        await ready(caller)
        call, events = caller.start(slow, turn_id="t", limits=LIMITS), list[event_pb2.Event]()
        while not any(event.HasField("item_delta") for event in events):
            events += (await call.read()).events
        (directory / "clock").write_text(jump)
        events += await collect(call)
        replay = await caller.watch("t")
        after = await caller.run(slow, session_id=events[0].session_id, limits=LIMITS)
        booked = await usage(caller, 2)

    times = [event.event_time.seconds for event in events]
    assert abs(times[-1] - times[0]) > 3000
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert replay == events
    assert events[-1].HasField("turn_completed")
    assert events[-1].turn_completed.duration.seconds < 20
    assert after[-1].HasField("turn_completed")
    assert booked == 2


async def usage(caller: Caller, count: int) -> int:
    """Return how many turns are booked, once there are so many."""
    stub = workspace_service_pb2_grpc.WorkspaceServiceStub(caller.channel)
    asked = workspace_service_pb2.GetUsageRequest(workspace_id="demo")
    async with asyncio.timeout(BOUND):
        while True:
            booked = sum(row.turns for row in (await stub.GetUsage(asked)).rows)
            if booked >= count:
                return booked
            await asyncio.sleep(0.05)
