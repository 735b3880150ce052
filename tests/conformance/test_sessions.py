"""Sessions: memory, isolation, one turn at a time."""

import grpc
import pytest

from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply

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
