"""What outlives the service: its turns, its sessions, and every event that anybody saw."""

import asyncio
import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path

import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2, item_pb2, session_pb2
from alive_kit.database import STEPS, Unusable, open_database
from alive_kit.journal import Journal
from alive_kit.resume import Resume
from alive_kit.testing.fakes import (
    FakeProvider,
    answers,
    delta,
    message_completed,
    message_started,
    started,
    usage,
    waits_for_interrupt,
)
from alive_kit.testing.harness import calling, collect, request, serving


async def test_a_turn_that_was_cut_off_ends_as_crashed(tmp_path: Path) -> None:
    """The service's files as they were while an item was open are what the next service starts with."""
    script = [started(), usage(10, 2), message_started(), delta("Half "), delta("a word"), waits_for_interrupt]
    async with serving(FakeProvider({"half": script}), tmp_path / "before") as caller:
        call = caller.start("half", turn_id="cut")
        seen: list[event_pb2.Event] = []
        while sum(event.HasField("item_delta") for event in seen) < 2:
            seen.extend((await call.read()).events)
        shutil.copytree(tmp_path / "before/state", tmp_path / "after/state")
    provider = FakeProvider()
    async with serving(provider, tmp_path / "after") as caller:
        events = await caller.watch("cut")
        rest = await caller.watch("cut", after_seq=len(seen))
        again = await caller.run("go", session_id=seen[0].session_id)

    assert events[: len(seen)] == seen
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert rest == events[len(seen) :]
    assert [event.WhichOneof("kind") for event in rest] == ["item_completed", "turn_failed"]
    assert rest[0].item_completed.item.message.text == "Half a word"
    assert rest[0].item_completed.item.status == item_pb2.ITEM_STATUS_FAILED
    assert rest[1].turn_failed.error.reason == error_pb2.FAILURE_REASON_CRASHED
    assert rest[1].turn_failed.usage.input_tokens == 10
    assert again[-1].HasField("turn_completed")
    assert provider.specs[0].resume == Resume(native_session=f"native-{seen[0].session_id}", is_settled=False)


SERVICE = """
import sys
from pathlib import Path
from alive_kit.service import main
from alive_kit.testing.fakes import FakeProvider, delta, message_started, started
flood = [started(), message_started(), *[delta(f"{number} ") for number in range(100_000)]]
main(lambda: FakeProvider({"flood": flood}))
"""


async def test_every_event_that_anybody_saw_outlives_a_kill(directory: Path) -> None:
    """A service killed in mid-flood, its events kept in batches: the reader is never ahead of the journal."""
    (directory / "workspaces/demo").mkdir(parents=True)
    variables = {
        "ALIVE_LISTEN": f"unix:{directory}/agent.sock",
        "ALIVE_WORKSPACES": str(directory / "workspaces"),
        "ALIVE_STATE_DIR": str(directory / "state"),
    }
    service = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVICE, env=variables)
    seen: list[event_pb2.Event] = []
    async with calling(variables["ALIVE_LISTEN"], directory / "workspaces") as caller:
        call = caller.stub.StartTurn(request("flood", turn_id="cut"), wait_for_ready=True, timeout=30)
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (response := await call.read()) is not grpc.aio.EOF:
                seen.extend(response.events)
                if len(seen) > 5_000 and service.returncode is None:
                    service.kill()
        await service.wait()
    async with serving(FakeProvider(), directory) as caller:
        events = await caller.watch("cut")

    assert 5_000 < len(seen) < 100_000
    assert events[: len(seen)] == seen
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_CRASHED


async def test_an_ended_turn_is_watched_and_repeated_after_a_restart(tmp_path: Path) -> None:
    """The same call re-attaches, another one under the same id is refused; the transcript is there."""
    async with serving(FakeProvider(), tmp_path) as caller:
        before = await caller.run("go", turn_id="done")
        brief = await caller.run("go", turn_id="brief", ephemeral=True)
    async with serving(FakeProvider(), tmp_path) as caller:
        watched = await caller.watch("done")
        repeated = await caller.run("go", turn_id="done")
        interrupted = await caller.interrupt("done")
        with pytest.raises(grpc.aio.AioRpcError) as mismatch:
            await caller.run("other", turn_id="done")
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await caller.watch("brief")
        asked = session_pb2.ListItemsRequest(workspace_id="demo", session_id=before[0].session_id)
        items = (await caller.stub.ListItems(asked)).items

    assert watched == repeated == before
    assert interrupted == agent_service_pb2.INTERRUPT_RESULT_ALREADY_ENDED
    assert mismatch.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert brief[-1].HasField("turn_completed")
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    assert [entry.item.message.text for entry in items] == ["go", "Hello."]


async def test_an_item_that_was_cut_is_read_whole(tmp_path: Path) -> None:
    """A message of 1 MiB, before and after a restart; one that was not cut has nothing more to read."""
    text = "ä" * (1 << 19)
    script = [started(), message_started(), message_completed(text), *answers("Short.")[1:2]]
    asked = agent_service_pb2.ReadItemContentRequest(workspace_id="demo", turn_id="long", item_id="message-1")
    async with serving(FakeProvider({"long": script}), tmp_path) as caller:
        events = await caller.run("long", turn_id="long")
        before = await content(caller.stub.ReadItemContent(asked))
    async with serving(FakeProvider(), tmp_path) as caller:
        after = await content(caller.stub.ReadItemContent(asked))
        asked.item_id = "long-input"
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await content(caller.stub.ReadItemContent(asked))
    shown = next(event.item_completed.item for event in events if event.item_completed.item.item_id == "message-1")

    assert shown.omitted_bytes > 0
    assert before.message.text == after.message.text == text
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_old_turns_are_forgotten_and_transcripts_stay(tmp_path: Path) -> None:
    """How long is a setting; what is too old goes when the next turn starts."""
    async with serving(FakeProvider(), tmp_path) as caller:
        before = await caller.run("go", turn_id="old")
    async with serving(FakeProvider(), tmp_path, keep_seconds=1e-9) as caller:
        await caller.run("go", turn_id="new")
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await caller.watch("old")
        asked = session_pb2.ListItemsRequest(workspace_id="demo", session_id=before[0].session_id)
        items = (await caller.stub.ListItems(asked)).items

    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    assert len(items) == 2


async def test_events_that_cannot_be_kept_fail_the_turn(tmp_path: Path) -> None:
    """The table of events is gone while a turn runs: what cannot be kept is not shown, but the end is."""
    script = [started(), message_started(), waits_for_interrupt]
    async with serving(FakeProvider({"half": script}), tmp_path) as caller:
        call = caller.start("half", turn_id="cut")
        await call.read()
        with sqlite3.connect(tmp_path / "state/turns.sqlite") as database:
            database.execute("DROP TABLE events")
        events, _ = await asyncio.gather(collect(call), caller.interrupt("cut"))

    assert [event.WhichOneof("kind") for event in events[-1:]] == ["turn_interrupted"]


async def test_events_that_the_disk_does_not_take_are_not_shown(tmp_path: Path) -> None:
    """And the turn fails, though its agent is at work; its number follows the last event that was shown."""
    go_on = asyncio.Event()
    stop = [lambda _: go_on.wait(), delta("lost"), waits_for_interrupt]
    script = [started(), message_started(), delta("kept"), *stop]
    async with serving(FakeProvider({"half": script}), tmp_path) as caller:
        call = caller.start("half", turn_id="cut")
        seen: list[event_pb2.Event] = []
        while not any(event.HasField("item_delta") for event in seen):
            seen.extend((await call.read()).events)
        with sqlite3.connect(tmp_path / "state/turns.sqlite") as database:
            database.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        go_on.set()
        rest = await collect(call)

    assert [event.WhichOneof("kind") for event in rest] == ["turn_failed"]
    assert rest[0].turn_failed.error.reason == error_pb2.FAILURE_REASON_STORAGE
    assert rest[0].seq == seen[-1].seq + 1


async def test_a_database_of_before_keeps_its_events(tmp_path: Path) -> None:
    """Each turn its own, in order; and they go with their turn."""
    path = tmp_path / "turns.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        for number, step in enumerate(STEPS[:3], 1):
            old.executescript(f"{step} PRAGMA user_version = {number};")
        old.executemany("INSERT INTO turns VALUES (?, 'demo', ?, 's', x'00', 1, 0)", [(1, "t1"), (2, "t2")])
        old.executemany("INSERT INTO events VALUES (?, ?, ?)", [(2, 1, b"d"), (1, 3, b"b"), (1, 1, b"a")])
    with contextlib.closing(open_database(path)) as database:
        journal = Journal(database)
        journal.append(1, 4, b"c")
        kept = [list(journal.frames(turn)) for turn in (1, 2)]
        journal.forget(1)
        left = [list(journal.frames(turn)) for turn in (1, 2)]

    assert kept == [[b"a", b"b", b"c"], [b"d"]]
    assert left == [[], [b"d"]]


async def test_a_turn_that_cannot_be_written_down_is_refused(tmp_path: Path) -> None:
    """Nothing of it is left, its session neither; the same call is taken once there is room."""
    async with serving(FakeProvider(), tmp_path) as caller:
        with sqlite3.connect(tmp_path / "state/turns.sqlite") as database:
            database.execute("CREATE TRIGGER full BEFORE INSERT ON begun BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("hello", turn_id="t")
        listed = await caller.stub.ListSessions(session_pb2.ListSessionsRequest(workspace_id="demo"))
        with sqlite3.connect(tmp_path / "state/turns.sqlite") as database:
            database.execute("DROP TRIGGER full")
        events = await caller.run("hello", turn_id="t")

    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "is its disk full?" in str(refusal.value.details())
    assert list(listed.sessions) == []
    assert events[-1].HasField("turn_completed")


async def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    """It is left as it is."""
    open_database(tmp_path / "turns.sqlite").execute("PRAGMA user_version = 99")
    with pytest.raises(Unusable, match="newer release"):
        open_database(tmp_path / "turns.sqlite")


async def content(call: "grpc.aio.UnaryStreamCall[object, agent_service_pb2.ReadItemContentResponse]") -> item_pb2.Item:
    """Return the item that a stream of chunks carries."""
    whole = b""
    while (chunk := await call.read()) is not grpc.aio.EOF:
        whole += chunk.data
    return item_pb2.Item.FromString(whole)
