"""Sessions: memory, isolation, one turn at a time, their transcripts, forks and end."""

from pathlib import Path

import grpc
import pytest

from alive.agent.v1 import error_pb2, item_pb2, session_pb2
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply, RunCommand

from .conftest import Subject, said


@requirement("session:resume")
async def test_a_resumed_session_sends_the_model_what_was_said(subject: Subject) -> None:
    """The second request holds both sides of the first turn."""
    first = await subject.caller.run(subject.script("first", Reply(text="The word is heliotrope.")))
    prompt = subject.script("second", Reply(text="I remember."))
    second = await subject.caller.run(prompt, session_id=first[0].session_id)

    assert said(second) == "I remember."
    assert second[0].turn_started.resumed
    assert second[0].session_id == first[0].session_id
    assert "The word is heliotrope." in subject.sent("second")


@requirement("session:isolated")
async def test_a_session_is_not_found_in_another_workspace(subject: Subject) -> None:
    """Source: session.proto."""
    subject.workspace("elsewhere")
    first = await subject.caller.run(subject.script("here", Reply(text="Here.")))
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await subject.caller.run("go", session_id=first[0].session_id, workspace_id="elsewhere")

    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


@requirement("session:ephemeral")
async def test_an_ephemeral_turn_leaves_nothing(subject: Subject) -> None:
    """Neither a session nor a word of it in the vendor's home, where that of another turn is."""
    home = subject.directory / "homes/brief"
    subject.workspace("brief")
    kept = subject.script("kept", Reply(text="The word is cormorant."))
    brief = subject.script("brief", Reply(text="The word is gannet."))
    await subject.caller.run(kept, workspace_id="brief")
    events = await subject.caller.run(brief, workspace_id="brief", ephemeral=True)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await subject.caller.run("go", workspace_id="brief", session_id=events[0].session_id)
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())

    assert said(events) == "The word is gannet."
    assert b"cormorant" in written
    assert b"gannet" not in written
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


@requirement("session:busy")
async def test_a_session_takes_one_turn_at_a_time(subject: Subject) -> None:
    """Source: agent_service.proto, StartTurn."""
    call = subject.caller.start(
        subject.script("busy", Reply(text="Wait", fault=Fault(stall_after=1))), turn_id="busy-1"
    )
    started = await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await subject.caller.run("go", session_id=started.events[0].session_id)
    await subject.caller.interrupt("busy-1")

    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@requirement("session:list")
async def test_sessions_are_listed_latest_first_in_pages(subject: Subject) -> None:
    """Three sessions of a workspace of their own, in pages of two; the first one is used again."""
    subject.workspace("listed")
    opened = []
    for word in ("one", "two", "three"):
        prompt = subject.script(f"list-{word}", Reply(text=word))
        opened.append((await subject.caller.run(prompt, workspace_id="listed"))[0].session_id)
    await subject.caller.run("again", workspace_id="listed", session_id=opened[0])
    stub = subject.caller.stub
    first = await stub.ListSessions(session_pb2.ListSessionsRequest(workspace_id="listed", page_size=2))
    token = first.next_page_token
    rest = await stub.ListSessions(
        session_pb2.ListSessionsRequest(workspace_id="listed", page_size=2, page_token=token)
    )
    got = await stub.GetSession(session_pb2.GetSessionRequest(workspace_id="listed", session_id=opened[0]))

    assert [session.session_id for session in (*first.sessions, *rest.sessions)] == [opened[0], opened[2], opened[1]]
    assert not rest.next_page_token
    assert got.session == first.sessions[0]
    assert got.session.turn_count == 2
    assert got.session.state == session_pb2.SESSION_STATE_IDLE
    assert got.session.provider_id == subject.name
    assert got.session.title.startswith("[script:")
    assert got.session.model


@requirement("session:transcript")
async def test_a_transcript_has_the_items_of_every_turn(subject: Subject) -> None:
    """A command in the first turn, an answer in the second; in pages of two; the same items as were streamed."""
    prompt = subject.script("told", Reply(actions=[RunCommand(command="echo heron")]), Reply(text="One."))
    first = await subject.caller.run(prompt)
    session_id = first[0].session_id
    second = await subject.caller.run(subject.script("told-2", Reply(text="Two.")), session_id=session_id)
    listed = await transcript(subject, session_id, page_size=2)
    streamed = [event.item_completed.item for event in first + second if event.HasField("item_completed")]

    assert [entry.item.item_id for entry in listed] == [item.item_id for item in streamed]
    assert [entry.item.WhichOneof("content") for entry in listed] == ["message", "command"] + ["message"] * 3
    assert [entry.item.message.role for entry in listed if entry.item.HasField("message")] == [
        item_pb2.ROLE_USER,
        item_pb2.ROLE_AGENT,
        item_pb2.ROLE_USER,
        item_pb2.ROLE_AGENT,
    ]
    assert listed[1].item.command.output.strip() == "heron"
    assert {entry.turn_id for entry in listed} == {first[0].turn_id, second[0].turn_id}
    assert {entry.item.provider_id for entry in listed} == {subject.name}


@requirement("session:fork")
async def test_a_fork_has_the_memory_up_to_where_it_was_forked(subject: Subject) -> None:
    """The original goes on before the fork takes its first turn: the fork knows nothing of that, nor the original."""
    first = await subject.caller.run(subject.script("fork-1", Reply(text="The word is heron.")))
    original = first[0].session_id
    asked = session_pb2.ForkSessionRequest(workspace_id="demo", session_id=original)
    fork = (await subject.caller.stub.ForkSession(asked)).session
    await subject.caller.run(subject.script("fork-2", Reply(text="The word is stork.")), session_id=original)
    forked = await subject.caller.run(subject.script("fork-3", Reply(text="Yes.")), session_id=fork.session_id)
    again = await subject.caller.run(subject.script("fork-4", Reply(text="Still.")), session_id=original)

    assert fork.session_id != original
    assert fork.turn_count == 1
    assert (said(forked), said(again)) == ("Yes.", "Still.")
    assert "heron" in subject.sent("fork-3")
    assert "stork" not in subject.sent("fork-3")
    assert "stork" in subject.sent("fork-4")
    assert "Yes." not in subject.sent("fork-4")
    assert len(await transcript(subject, fork.session_id)) == 4


@requirement("session:delete")
async def test_a_deleted_session_leaves_nothing(subject: Subject) -> None:
    """Not a word of it in the vendor's home or the service's state; deleting it again is no error."""
    subject.workspace("deleted")
    home, state = subject.directory / "homes/deleted", subject.directory / "state"
    prompt = subject.script("deleted", Reply(text="The word is dotterel."))
    turn = (await subject.caller.run(prompt, workspace_id="deleted"))[0]
    asked = session_pb2.DeleteSessionRequest(workspace_id="deleted", session_id=turn.session_id)
    was_written = "dotterel" in written(home)
    await subject.caller.stub.DeleteSession(asked)
    await subject.caller.stub.DeleteSession(asked)
    with pytest.raises(grpc.aio.AioRpcError) as resumed:
        await subject.caller.run("go", workspace_id="deleted", session_id=turn.session_id)
    with pytest.raises(grpc.aio.AioRpcError) as watched:
        await subject.caller.watch(turn.turn_id, workspace_id="deleted")

    assert was_written
    assert "dotterel" not in written(home)
    assert "dotterel" not in written(state)
    assert resumed.value.code() is watched.value.code() is grpc.StatusCode.NOT_FOUND


@requirement("session:delete")
async def test_a_fork_outlives_its_original(subject: Subject) -> None:
    """The original is deleted before the fork took a turn; then both are gone from the vendor's home."""
    subject.workspace("heirs")
    home = subject.directory / "homes/heirs"
    prompt = subject.script("heir-1", Reply(text="The word is whimbrel."))
    original = (await subject.caller.run(prompt, workspace_id="heirs"))[0].session_id
    stub = subject.caller.stub
    fork = await stub.ForkSession(session_pb2.ForkSessionRequest(workspace_id="heirs", session_id=original))
    await stub.DeleteSession(session_pb2.DeleteSessionRequest(workspace_id="heirs", session_id=original))
    heir = fork.session.session_id
    prompt = subject.script("heir-2", Reply(text="Yes."))
    events = await subject.caller.run(prompt, workspace_id="heirs", session_id=heir)
    await stub.DeleteSession(session_pb2.DeleteSessionRequest(workspace_id="heirs", session_id=heir))

    assert said(events) == "Yes."
    assert "whimbrel" in subject.sent("heir-2")
    assert "whimbrel" not in written(home)


@requirement("session:lost")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [("gone", error_pb2.FAILURE_REASON_SESSION_NOT_FOUND), ("garbled", error_pb2.FAILURE_REASON_SESSION_CORRUPT)],
)
async def test_a_session_that_the_vendor_lost_fails_by_name(subject: Subject, damage: str, reason: int) -> None:
    """The vendor's file of the session is gone, or nothing but noise; the session is broken then, and says so."""
    workspace_id = f"lost-{damage}"
    subject.workspace(workspace_id)
    prompt = subject.script(workspace_id, Reply(text="The word is smew."))
    turn = (await subject.caller.run(prompt, workspace_id=workspace_id))[0]
    assert subject.caller.service
    await subject.caller.service.agents.park(workspace_id, turn.session_id)  # A warm CLI would still know it.
    for path in (subject.directory / "homes" / workspace_id).rglob("*.jsonl"):
        path.unlink() if damage == "gone" else path.write_bytes(b"\x00\xffnoise\n" * 99)
    events = await subject.caller.run("go", workspace_id=workspace_id, session_id=turn.session_id)
    asked = session_pb2.GetSessionRequest(workspace_id=workspace_id, session_id=turn.session_id)
    state = (await subject.caller.stub.GetSession(asked)).session.state

    assert events[-1].turn_failed.error.reason == reason
    assert state == session_pb2.SESSION_STATE_BROKEN


async def transcript(subject: Subject, session_id: str, page_size: int = 0) -> list[session_pb2.SessionItem]:
    """Return every item of a session of ``demo``."""
    found: list[session_pb2.SessionItem] = []
    request = session_pb2.ListItemsRequest(workspace_id="demo", session_id=session_id, page_size=page_size)
    while True:
        page = await subject.caller.stub.ListItems(request)
        found += page.items
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def written(directory: Path) -> str:
    """Return everything that is written below a directory."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file()).decode(errors="replace")
