"""What became of turns: one record for each, whatever ended it, for the router and nobody else."""

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

import grpc
import pytest

from alive.agent.v1 import (
    agent_service_pb2_grpc,
    error_pb2,
    outcome_service_pb2,
    outcome_service_pb2_grpc,
    resolved_pb2,
)
from alive_kit.database import STEPS, open_database
from alive_kit.failures import failure
from alive_kit.outbox import Outbox
from alive_kit.servicer import RESOLVED_KEY
from alive_kit.testing.fakes import (
    FakeProvider,
    message_completed,
    message_started,
    started,
    usage,
    waits_for_interrupt,
)
from alive_kit.testing.harness import Caller, collect, request, serving

BOUND = 10
Outcome = outcome_service_pb2.Outcome

SCRIPTS = {
    "broken": [failure(error_pb2.FAILURE_REASON_SPAWN)],
    "wait": [started(), usage(7, 3), message_started(), waits_for_interrupt],
}


async def outcomes(caller: Caller, count: int, *, after: str = "") -> list[Outcome]:
    """Read outcomes, waiting until there are as many as asked for."""
    stub = outcome_service_pb2_grpc.OutcomeServiceStub(caller.channel)
    call = stub.WatchOutcomes(outcome_service_pb2.WatchOutcomesRequest(after_cursor=after))
    found: list[Outcome] = []
    async with asyncio.timeout(BOUND):
        while len(found) < count:
            response = await call.read()
            assert response is not grpc.aio.EOF
            found.extend(response.outcomes)
    call.cancel()
    return found


async def refusal(caller: Caller, cursor: str) -> grpc.aio.AioRpcError:
    """Return how a cursor is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await outcomes(caller, 1, after=cursor)
    return refused.value


async def test_every_turn_that_ended_has_one_outcome(tmp_path: Path) -> None:
    """Completed, failed before it started, interrupted, ephemeral: in the order in which they ended."""
    async with serving(FakeProvider(SCRIPTS), tmp_path) as caller:
        events = await caller.run("go", turn_id="completed")
        await caller.run("broken", turn_id="failed")
        call = caller.start("wait", turn_id="interrupted", ephemeral=True)
        await call.read()
        await asyncio.gather(collect(call), caller.interrupt("interrupted"))
        found = await outcomes(caller, 3)

    assert [(each.turn_id, each.terminal) for each in found] == [
        ("completed", outcome_service_pb2.TERMINAL_COMPLETED),
        ("failed", outcome_service_pb2.TERMINAL_FAILED),
        ("interrupted", outcome_service_pb2.TERMINAL_INTERRUPTED),
    ]
    first = found[0]
    assert (first.workspace_id, first.provider_id, first.attempt, first.model) == ("demo", "fake", 1, "fake-1")
    assert first.session_id == events[0].session_id
    assert first.usage == events[-1].turn_completed.usage
    assert first.start_time.ToNanoseconds() < first.end_time.ToNanoseconds()
    assert found[1].reason == error_pb2.FAILURE_REASON_SPAWN
    assert found[2].usage.input_tokens == 7


async def test_the_owner_and_the_attempt_come_from_the_router(tmp_path: Path) -> None:
    """In its metadata entry; without one nobody owns the turn."""
    resolved = resolved_pb2.ResolvedTurn(owner_id="acme", attempt=2)
    async with serving(FakeProvider(), tmp_path) as caller:
        stub = agent_service_pb2_grpc.AgentServiceStub(caller.channel)
        metadata = ((RESOLVED_KEY, resolved.SerializeToString()),)
        await collect(stub.StartTurn(request("go"), metadata=metadata))
        found = await outcomes(caller, 1)

    assert (found[0].owner_id, found[0].attempt) == ("acme", 2)


async def test_outcomes_follow_a_cursor_live_and_over_a_restart(tmp_path: Path) -> None:
    """Nothing twice, nothing missed."""
    async with serving(FakeProvider(), tmp_path) as caller:
        await caller.run("go", turn_id="a")
        first = (await outcomes(caller, 1))[0]
        following = asyncio.create_task(outcomes(caller, 2, after=first.cursor))
        await caller.run("go", turn_id="b")
        await caller.run("go", turn_id="c")
        live = await following
    async with serving(FakeProvider(), tmp_path) as caller:
        again = await outcomes(caller, 2, after=first.cursor)
        await caller.run("go", turn_id="d")
        new = await outcomes(caller, 1, after=live[-1].cursor)

    assert [each.turn_id for each in live] == ["b", "c"]
    assert again == live
    assert [each.turn_id for each in new] == ["d"]


async def test_turns_that_were_cut_off_have_an_outcome(tmp_path: Path) -> None:
    """The service's files while two turns run, one ephemeral, are what the next one starts with: both used tokens."""
    async with serving(FakeProvider(SCRIPTS), tmp_path / "before") as caller:
        await caller.run("go", turn_id="ended")
        for turn_id, ephemeral in (("kept", False), ("brief", True)):
            call = caller.start("wait", turn_id=turn_id, ephemeral=ephemeral)
            seen = 0
            while seen < 3:
                seen += len((await call.read()).events)
        shutil.copytree(tmp_path / "before/state", tmp_path / "after/state")
    for _ in range(2):  # Once is once, however often the service starts.
        async with serving(FakeProvider(), tmp_path / "after") as caller:
            await caller.run("go")
            found = await outcomes(caller, 4)

    cut = {each.turn_id: each for each in found[1:3]}
    assert found[0].turn_id == "ended"
    assert set(cut) == {"kept", "brief"}
    for each in cut.values():
        assert each.terminal == outcome_service_pb2.TERMINAL_FAILED
        assert each.reason == error_pb2.FAILURE_REASON_CRASHED
        assert (each.usage.input_tokens, each.model) == (7, "fake-1")
    assert [each.turn_id for each in found].count("kept") == 1


async def test_cursors_outside_of_what_is_kept_are_refused(tmp_path: Path) -> None:
    """Older than what is kept, newer than the newest, of another database; and what is no cursor."""
    async with serving(FakeProvider(), tmp_path) as caller:
        for turn_id in ("a", "b"):
            await caller.run("go", turn_id=turn_id)
        a, b = (each.cursor for each in await outcomes(caller, 2))
    async with serving(FakeProvider(), tmp_path, outcome_keep_seconds=1e-9) as caller:
        await caller.run("go", turn_id="c")
        refused = [await refusal(caller, cursor) for cursor in (a, b[:-1] + "9", "0" * 16 + "-2")]
        nonsense = await refusal(caller, "yesterday")
        after_b = await outcomes(caller, 1, after=b)

    assert {error.code() for error in refused} == {grpc.StatusCode.OUT_OF_RANGE}
    assert nonsense.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [each.turn_id for each in after_b] == ["c"]


async def test_only_the_router_reads_outcomes(tmp_path: Path) -> None:
    """A call over TCP without a certificate is nobody's."""
    async with serving(FakeProvider(), tmp_path, listen="127.0.0.1:0") as caller:
        assert caller.service is not None
        async with grpc.aio.insecure_channel(f"127.0.0.1:{caller.service.server.port}") as channel:
            stub = outcome_service_pb2_grpc.OutcomeServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.WatchOutcomes(outcome_service_pb2.WatchOutcomesRequest(), timeout=BOUND).read()

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_turn_ends_with_its_outcome_or_not_at_all(tmp_path: Path) -> None:
    """Where the outcome cannot be kept the turn has not ended: the next service ends it."""
    async with serving(FakeProvider(), tmp_path) as caller:
        assert caller.service is not None
        database = caller.service._database
        database.execute("CREATE TRIGGER full BEFORE INSERT ON outcomes BEGIN SELECT RAISE(FAIL, 'full'); END")
        events = await caller.run("go", turn_id="t")
        database.execute("DROP TRIGGER full")
        kept = database.execute("SELECT has_ended FROM turns").fetchone()[0]
    async with serving(FakeProvider(), tmp_path) as caller:
        found = await outcomes(caller, 1)
        watched = await caller.watch("t")

    assert events[-1].HasField("turn_completed")
    assert not kept
    assert found[0].reason == error_pb2.FAILURE_REASON_CRASHED
    assert watched[-1].HasField("turn_failed")


async def test_the_journal_stays_below_its_size(tmp_path: Path) -> None:
    """The oldest turns go first; their outcomes stay."""
    script = [started(), message_started(), message_completed("x" * 1_000_000)]
    async with serving(FakeProvider({"long": script}), tmp_path, keep_bytes=4 << 20) as caller:
        for number in range(6):
            await caller.run("long", turn_id=f"t{number}")
        await caller.run("go", turn_id="last")
        database = caller.service._database  # type: ignore[union-attr]
        kept = [row["turn_id"] for row in database.execute("SELECT turn_id FROM turns ORDER BY turn")]
        found = await outcomes(caller, 7)

    assert 2 <= len(kept) < 7
    assert kept == [*(f"t{number}" for number in range(6)), "last"][-len(kept) :]
    assert len(found) == 7


def test_a_database_of_an_older_release_gets_an_outbox(tmp_path: Path) -> None:
    """Its turns stay."""
    with contextlib.closing(sqlite3.connect(tmp_path / "turns.sqlite")) as old, old:
        old.executescript(f"{STEPS[0]} PRAGMA user_version = 1;")
        old.execute("INSERT INTO turns VALUES (1, 'demo', 't', 's', x'00', 1, 0)")
    database = open_database(tmp_path / "turns.sqlite")

    assert Outbox(database, "fake").begun() == []
    assert database.execute("SELECT count(*) FROM turns").fetchone()[0] == 1
    database.close()
