"""Sessions that move from one provider to another, and what is seen of them."""

import asyncio

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alive.agent.v1 import event_pb2, item_pb2, options_pb2, session_pb2, workspace_service_pb2
from alive_kit.testing.fakes import answers, waits_for_interrupt
from alive_router.handover import MESSAGE_BYTES, TEXT_BYTES, bounded, head_and_tail

from .conftest import System

BOUND = 10


async def circle(system: System, *path: str) -> str:
    """Run one turn of a session at each provider in turn, and return the session."""
    session_id = ""
    for number, provider_id in enumerate(path, 1):
        name = f"word-{number}"
        for provider in system.providers.values():
            provider.scripts[name] = answers(f"answer-{number}")
        session_id = (await system.caller.run(name, session_id=session_id, provider_id=provider_id))[0].session_id
    return session_id


def told(system: System, name: str) -> list[list[str]]:
    """Return what a provider was told of what others did, turn by turn."""
    return [[item.message.text for item in spec.request.history.items] for spec in system.providers[name].specs]


async def listed(system: System, session_id: str, page_size: int) -> list[session_pb2.SessionItem]:
    """Return a transcript, read in pages."""
    asked = session_pb2.ListItemsRequest(workspace_id="demo", session_id=session_id, page_size=page_size)
    found: list[session_pb2.SessionItem] = []
    while True:
        page = await system.caller.stub.ListItems(asked)
        assert len(page.items) <= page_size
        found += page.items
        asked.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def test_each_provider_is_told_what_it_has_not_seen_and_nothing_twice(system: System) -> None:
    """Back at the first one, its own session is resumed, and told of what happened in between."""
    session_id = await circle(system, "red", "red", "blue", "red", "red", "blue")

    assert told(system, "red") == [[], [], ["word-3", "answer-3"], []]
    assert told(system, "blue") == [
        ["word-1", "answer-1", "word-2", "answer-2"],
        ["word-4", "answer-4", "word-5", "answer-5"],
    ]
    resumed = [spec.resume is not None for spec in system.providers["red"].specs]
    assert resumed == [False, True, True, True]
    assert {spec.request.session_id for spec in system.providers["blue"].specs} == {session_id}


async def test_repeating_a_call_that_moved_a_session_is_the_same_call(system: System) -> None:
    """The history that went along makes no difference."""
    session_id = await circle(system, "red")
    moved = await system.caller.run("go", session_id=session_id, provider_id="blue", turn_id="t")
    again = await system.caller.run("go", session_id=session_id, provider_id="blue", turn_id="t")

    assert moved == again
    assert [event.notice.code for event in moved if event.HasField("notice")] == ["session_moved"]
    assert len(system.providers["blue"].agents) == 1


async def test_a_session_can_start_fresh(system: System) -> None:
    """Where the workspace says so; a notice says it too."""
    settings = workspace_service_pb2.WorkspaceSettings(fresh_on_switch=True)
    await system.workspaces.UpdateWorkspace(
        workspace_service_pb2.UpdateWorkspaceRequest(workspace_id="demo", settings=settings)
    )
    session_id = await circle(system, "red")
    events = await system.caller.run("go", session_id=session_id, provider_id="blue")

    assert told(system, "blue") == [[]]
    assert [event.notice.code for event in events if event.HasField("notice")] == ["session_fresh"]


async def test_a_session_does_not_move_while_a_turn_of_it_runs(system: System) -> None:
    """FAILED_PRECONDITION names the turn, also when its caller has gone; afterwards it moves."""
    session_id = await circle(system, "red")
    system.providers["red"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    call = system.caller.start("wait", turn_id="runs", session_id=session_id)
    await call.read()
    refusals = []
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await system.caller.run("go", session_id=session_id, provider_id="blue")
        refusals.append(refusal.value)
        call.cancel()
    await system.caller.interrupt("runs")
    moved = await system.caller.run("go", session_id=session_id, provider_id="blue")

    for refused in refusals:
        assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "'runs'" in (refused.details() or "")
    assert moved[0].provider_id == "blue"


@pytest.mark.parametrize("page_size", [1, 2, 3, 5, 100])
async def test_a_transcript_has_the_items_of_all_in_the_order_of_the_turns(system: System, page_size: int) -> None:
    """In pages of any size, none twice, each with who made it."""
    session_id = await circle(system, "red", "blue", "blue", "red", "blue")
    found = await listed(system, session_id, page_size)

    assert [entry.item.message.text for entry in found] == [
        f"{word}-{number}" for number in range(1, 6) for word in ("word", "answer")
    ]
    assert [entry.item.provider_id for entry in found] == ["red"] * 2 + ["blue"] * 4 + ["red"] * 2 + ["blue"] * 2


@pytest.mark.parametrize("token", ["?", "e30=", "WzAsIDFd", "WyIwIiwge31d"])
async def test_a_token_of_nonsense_is_refused(system: System, token: str) -> None:
    """By the field's name."""
    session_id = await circle(system, "red", "blue")
    asked = session_pb2.ListItemsRequest(workspace_id="demo", session_id=session_id, page_token=token)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await system.caller.stub.ListItems(asked)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "page_token" in (refusal.value.details() or "")


async def test_a_session_that_moved_is_one_session(system: System) -> None:
    """Listed once, with its latest provider, all its turns and its first words."""
    session_id = await circle(system, "red", "blue", "blue")
    other = await circle(system, "red")
    stub = system.caller.stub
    found = []
    asked = session_pb2.ListSessionsRequest(workspace_id="demo", page_size=1)
    while True:
        page = await stub.ListSessions(asked)
        found += page.sessions
        asked.page_token = page.next_page_token
        if not page.next_page_token:
            break
    got = (await stub.GetSession(session_pb2.GetSessionRequest(workspace_id="demo", session_id=session_id))).session

    assert [session.session_id for session in found] == [other, session_id]
    assert found[1] == got
    assert (got.provider_id, got.turn_count, got.title) == ("blue", 3, "word-1")


async def test_a_fork_of_a_session_that_moved_has_all_of_it(system: System) -> None:
    """It goes on at either provider, and outlives the original, which is deleted everywhere."""
    session_id = await circle(system, "red", "blue")
    ids = {"workspace_id": "demo", "session_id": session_id}
    stub = system.caller.stub
    fork = (await stub.ForkSession(session_pb2.ForkSessionRequest(**ids))).session
    await stub.DeleteSession(session_pb2.DeleteSessionRequest(**ids))
    at_blue = await system.caller.run("go", session_id=fork.session_id)
    at_red = await system.caller.run("go", session_id=fork.session_id, provider_id="red")
    items = await listed(system, fork.session_id, 3)
    left = [
        [session.session_id for session in (await caller.stub.ListSessions(
            session_pb2.ListSessionsRequest(workspace_id="demo"))).sessions]
        for caller in system.services.values()
    ]  # fmt: skip

    assert (fork.provider_id, fork.turn_count) == ("blue", 2)
    assert (at_blue[0].provider_id, at_red[0].provider_id) == ("blue", "red")
    assert told(system, "red")[-1] == ["word-2", "answer-2", "go", "Hello."]
    assert [entry.item.message.text for entry in items][:4] == ["word-1", "answer-1", "word-2", "answer-2"]
    assert left == [[fork.session_id], [fork.session_id]]


async def test_going_down_ends_streams_as_lost_and_loses_nothing(system: System) -> None:
    """No new turns; a stream that has not ended in time names its turn, which another router goes on to show.

    What goes past the router does not end with it.
    """
    system.providers["red"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    call = system.caller.start("wait", turn_id="t")
    seen = [*(await call.read()).events]
    rest = asyncio.create_task(drained(call, seen))
    stopping = asyncio.create_task(system.router.stop(0.3))
    while not system.router._planner.is_draining:
        await asyncio.wait({stopping}, timeout=0.01)
    with pytest.raises(grpc.aio.AioRpcError) as new:
        await system.caller.run("go")
    await asyncio.wait({stopping} if system.has_edge else {stopping, rest})
    await system.services["red"].interrupt("t")
    lost = await rest
    events = await system.services["red"].watch("t")

    assert new.value.code() is grpc.StatusCode.UNAVAILABLE
    if system.has_edge:
        assert (lost, seen) == (None, events)
    else:
        assert b"SHUTTING_DOWN" in dict(new.value.trailing_metadata() or ())["grpc-status-details-bin"]
        assert lost
        assert lost.code() is grpc.StatusCode.UNAVAILABLE
        assert b"STREAM_LOST" in dict(lost.trailing_metadata() or ())["grpc-status-details-bin"]
        assert "'t'" in (lost.details() or "")
    assert events[: len(seen)] == seen
    assert events[-1].HasField("turn_interrupted")


async def drained(call: object, seen: list[event_pb2.Event]) -> grpc.aio.AioRpcError | None:
    """Read a stream to its end, and return the error it ended with."""
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            seen += response.events
    except grpc.aio.AioRpcError as ended:
        return ended
    return None


ITEMS = st.lists(
    st.builds(
        lambda text, role: item_pb2.Item(message=item_pb2.MessageItem(role=role, text=text)),
        st.text(max_size=200),
        st.sampled_from([item_pb2.ROLE_USER, item_pb2.ROLE_AGENT]),
    ),
    max_size=40,
)


@given(ITEMS, st.integers(0, 3000))
def test_what_is_handed_over_is_the_newest_that_fits(items: list[item_pb2.Item], most: int) -> None:
    """And the number of those left out is said."""
    history = bounded(items, most)
    left_out = len(items) - len(history.items)

    assert sum(item.ByteSize() for item in history.items) <= most
    assert list(history.items) == items[left_out:]
    assert bool(history.omitted) == bool(left_out)
    if left_out:
        assert f"The {left_out} oldest of {len(items)}" in history.omitted
        assert sum(item.ByteSize() for item in items[left_out - 1 :]) > most


def test_long_outputs_lose_their_middle_and_thoughts_and_old_plans_are_left_out() -> None:
    """What another agent needs stays."""
    output = "first line\n" + "x" * 50_000 + "\nlast line"
    items = [
        item_pb2.Item(plan=item_pb2.PlanItem(text="old")),
        item_pb2.Item(reasoning=item_pb2.ReasoningItem(text="hm")),
        item_pb2.Item(command=item_pb2.CommandItem(command="cat x", output=output, exit_code=0)),
        item_pb2.Item(message=item_pb2.MessageItem(role=item_pb2.ROLE_AGENT, text="ä" * MESSAGE_BYTES)),
        item_pb2.Item(plan=item_pb2.PlanItem(text="new")),
    ]
    history = bounded(items, 1 << 20)
    command, message, plan = history.items

    assert history == options_pb2.History(items=[command, message, plan])
    assert command.command.output.startswith("first line\n")
    assert command.command.output.endswith("\nlast line")
    assert len(command.command.output) < TEXT_BYTES + 100
    assert "bytes left out" in command.command.output
    assert len(message.message.text.encode()) < MESSAGE_BYTES + 100
    assert plan.plan.text == "new"
    assert items[2].command.output == output


def test_a_text_that_fits_stays_as_it_is() -> None:
    """To the byte."""
    assert head_and_tail("ä" * 5, 10) == "ä" * 5
    assert head_and_tail("ä" * 6, 10) == "ää\n[2 bytes left out]\nää"
