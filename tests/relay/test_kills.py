"""Turns are booked once each, whoever is killed: real processes, ended with SIGKILL in the middle of turns."""

import asyncio
import contextlib
import itertools
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from alive.agent.v1 import (
    agent_service_pb2_grpc,
    outcome_service_pb2,
    workspace_service_pb2,
    workspace_service_pb2_grpc,
)
from alive_kit.testing.harness import collect, request
from alive_kit.testing.processes import Processes, Program

from .conftest import SURROUNDINGS

BOUND = 90
ROUNDS = 2
AT_ONCE = 8


def programs(directory: Path, database: str, *, has_edge: bool) -> dict[str, Program]:
    """Return a provider and a router, and an edge where one is to be before it."""
    common = {"ALIVE_WORKSPACES": f"{directory}/workspaces"}
    providers = f"red=unix:{directory}/red.sock"
    found = {
        "provider": Program(
            words=[str(Path(__file__).with_name("red_provider.py"))],
            variables={
                **common,
                "ALIVE_LISTEN": f"unix:{directory}/red.sock",
                "ALIVE_STATE_DIR": f"{directory}/red",
                "ALIVE_DISCONNECT_GRACE_SECONDS": "60",
            },
        ),
        "router": Program(
            words=["-m", "alive_router"],
            variables={
                **common,
                "ALIVE_LISTEN": f"unix:{directory}/router.sock",
                "ALIVE_PROVIDERS": providers,
                "ALIVE_STATE_DIR": str(directory),
                "ALIVE_DATABASE_URL": database,
                "ALIVE_EDGE_LISTEN": f"unix:{directory}/authz.sock" if has_edge else "",
            },
        ),
    }
    edge = Program(
        words=["-m", "alive_edge"],
        variables={
            "ALIVE_LISTEN": f"unix:{directory}/edge.sock",
            "ALIVE_ROUTER": f"unix:{directory}/router.sock",
            "ALIVE_EDGE_AUTHZ": f"unix:{directory}/authz.sock",
            "ALIVE_PROVIDERS": providers,
            "ALIVE_STATE_DIR": f"{directory}/edge",
        },
    )
    return {**found, "edge": edge} if has_edge else found


@pytest.fixture
def processes(database: str) -> Iterator[tuple[Processes, Path, str]]:
    """Return what runs, where it keeps what it knows, and where callers reach it."""
    has_edge = bool(SURROUNDINGS["has_edge"])
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "workspaces/demo").mkdir(parents=True)
        running = Processes(directory, programs(directory, database, has_edge=has_edge))
        running.start()
        yield running, directory, f"unix:{directory}/{'edge' if has_edge else 'router'}.sock"
        running.close()


async def turns(address: str, ids: "itertools.count[int]", until: asyncio.Event) -> None:
    """Run turns, one after the other, each again and again until somebody has answered."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        while not until.is_set():
            asked = request("hello", turn_id=f"t{next(ids)}", ephemeral=next(ids) % 3 == 0)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await collect(stub.StartTurn(asked, timeout=BOUND, wait_for_ready=True))


_OPTIONS = (("grpc.max_reconnect_backoff_ms", 200), ("grpc.use_local_subchannel_pool", 1))


async def booked(address: str, count: int) -> list[workspace_service_pb2.UsageRow]:
    """Return what is booked, once there are so many turns."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = workspace_service_pb2_grpc.WorkspaceServiceStub(channel)
        asked = workspace_service_pb2.GetUsageRequest(workspace_id="demo")
        async with asyncio.timeout(BOUND):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):  # The router is away, and the edge says so.
                    rows = list((await stub.GetUsage(asked, wait_for_ready=True)).rows)
                    if sum(row.turns for row in rows) >= count:
                        return rows
                await asyncio.sleep(0.05)


async def outcomes(directory: Path) -> list[outcome_service_pb2.Outcome]:
    """Return what the provider keeps of turns, once all of them have ended."""
    with contextlib.closing(sqlite3.connect(directory / "red/turns.sqlite")) as database:
        async with asyncio.timeout(BOUND):
            while database.execute("SELECT count(*) FROM begun").fetchone() != (0,):
                await asyncio.sleep(0.05)
        found = database.execute("SELECT outcome FROM outcomes ORDER BY number").fetchall()
    return [outcome_service_pb2.Outcome.FromString(row[0]) for row in found]


async def test_every_turn_is_booked_once_whoever_is_killed(processes: tuple[Processes, Path, str]) -> None:
    """All, again and again, while eight callers run turns; the sums are what the provider's own records say."""
    running, directory, address = processes
    ids, until = itertools.count(), asyncio.Event()
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(turns(address, ids, until))
        seen = 0
        for victim in [*running._programs] * ROUNDS:
            rows = await booked(address, seen + AT_ONCE)  # Turns have ended since the last kill; others run.
            seen = sum(row.turns for row in rows)
            running.kill(victim)
            running.start(victim)
        await booked(address, seen + AT_ONCE)
        until.set()
    kept = await outcomes(directory)
    rows = await booked(address, len(kept))
    ended = Counter(each.terminal for each in kept)

    assert max(Counter((each.turn_id, each.attempt) for each in kept).values()) == 1
    assert ended[outcome_service_pb2.TERMINAL_COMPLETED] > 0
    assert ended[outcome_service_pb2.TERMINAL_FAILED] > 0
    assert sum(row.turns for row in rows) == len(kept)
    assert sum(row.usage.input_tokens for row in rows) == sum(each.usage.input_tokens for each in kept)
