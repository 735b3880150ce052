"""What a front end of Claude Code sees of every provider."""

import os

import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, approval_pb2, event_pb2, options_pb2
from alive_kit.claude_messages import Message, project
from alive_kit.testing import recordings
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import (
    CallTool,
    EditFile,
    Fault,
    Reply,
    RunCommand,
    TokenUsage,
    UpdatePlan,
    WriteFile,
)

from .conftest import CHECKOUT, Subject
from .test_approvals import ASK, DENY
from .test_mcp import notes

RECORDINGS = CHECKOUT / "services/kit/tests/recordings"

SCRIPTS = {
    "work": [
        Reply(reasoning="Let me see.", actions=[RunCommand(command="echo heron")]),
        Reply(actions=[WriteFile(path="a.txt", content="stork\n")]),
        Reply(actions=[EditFile(path="a.txt", old="stork", new="egret")]),
        Reply(actions=[CallTool(server="notes", tool="add", arguments={"a": 1, "b": 41})]),
        Reply(actions=[UpdatePlan(steps=[("Look", "completed"), ("Leap", "pending")])]),
        Reply(actions=[RunCommand(command="exit 3")]),
        Reply(text="Done.", usage=TokenUsage(input=100, cached=40, output=20)),
    ],
    "denied": [Reply(actions=[RunCommand(command="touch it")]), Reply(text="As you like.")],
    "failed": [Reply(fault=Fault(status=401), repeat=9)],
    "retracted": [Reply(text="Half of a sentence.", chunk=4, fault=Fault(drop_after=2)), Reply(text="Whole.")],
    "interrupted": [Reply(text="This goes on for ever.", chunk=4, fault=Fault(stall_after=2))],
}


def blocks(messages: list[Message]) -> list[Message]:
    """Return the content of what was said by the agent and its tools."""
    return [block for message in messages if "message" in message for block in message["message"]["content"]]


@requirement("projection")
async def test_a_turn_reads_like_one_of_claude_code(subject: Subject) -> None:
    """The same script gives the same messages on every provider, in tools of the same names."""
    subject.workspace("projected")
    prompt = subject.script(
        "projected",
        Reply(reasoning="Let me see.", actions=[RunCommand(command="echo heron")]),
        Reply(actions=[WriteFile(path="a.txt", content="stork\n")]),
        Reply(actions=[CallTool(server="notes", tool="add", arguments={"a": 1, "b": 41})]),
        Reply(actions=[UpdatePlan(steps=[("Look", "completed"), ("Leap", "pending")])]),
        Reply(text="Done.", usage=TokenUsage(input=100, cached=40, output=20)),
    )
    events = await subject.caller.run(prompt, workspace_id="projected", mcp_servers=[notes(subject)])
    messages = list(project(events))
    uses = [block for block in blocks(messages) if block["type"] == "tool_use"]
    results = {block["tool_use_id"]: block for block in blocks(messages) if block["type"] == "tool_result"}
    shown = [message for message in messages if message.get("subtype") != "informational"]

    assert (shown[0]["type"], shown[0]["subtype"], shown[0]["permissionMode"]) == (
        "system",
        "init",
        "bypassPermissions",
    )
    assert [use["name"] for use in uses] == ["Bash", "Write", "mcp__notes__add", "TodoWrite"]
    assert uses[0]["input"] == {"command": "echo heron"}
    assert uses[2]["input"] == {"a": 1, "b": 41}
    assert [todo["status"] for todo in uses[3]["input"]["todos"]] == ["completed", "pending"]
    assert set(results) == {use["id"] for use in uses}
    assert results[uses[0]["id"]]["content"].strip() == "heron"
    assert not any(result["is_error"] for result in results.values())
    assert {"type": "text", "text": "Done."} in blocks(messages)
    assert any(block["type"] == "thinking" for block in blocks(messages))
    assert (shown[-1]["type"], shown[-1]["subtype"], shown[-1]["result"]) == ("result", "success", "Done.")
    assert shown[-1]["num_turns"] == 5
    assert shown[-1]["usage"]["cache_read_input_tokens"] == 40
    assert len({message["uuid"] for message in messages}) == len(messages)
    assert {message["session_id"] for message in messages} == {events[0].session_id}


@requirement("projection")
@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_recording_is_what_the_provider_says(subject: Subject, name: str) -> None:
    """Its turns give the messages of the committed recordings, of both vendors; `make recordings` records them anew."""
    workspace = f"recorded-{name}"
    subject.workspace(workspace)
    prompt = subject.script(workspace, *SCRIPTS[name])
    servers = [notes(subject)] if name == "work" else []
    permissions = ASK if name == "denied" else options_pb2.Permissions()
    call = subject.caller.start(prompt, workspace_id=workspace, mcp_servers=servers, permissions=permissions)
    events: list[event_pb2.Event] = []
    while (response := await call.read()) is not grpc.aio.EOF:
        events.extend(response.events)
        for event in response.events:
            await react(subject, workspace, event, interrupts=name == "interrupted")
    if os.environ.get("ALIVE_RECORD") and not subject.boxed:
        recordings.write(RECORDINGS / subject.name / f"{name}.jsonl", events)

    for provider in ("claude", "codex"):
        recorded = recordings.read(RECORDINGS / provider / f"{name}.jsonl")
        assert recordings.shapes(project(events)) == recordings.shapes(project(recorded))


async def react(subject: Subject, workspace_id: str, event: event_pb2.Event, *, interrupts: bool) -> None:
    """Deny what is asked, and interrupt what is said where it is to be interrupted."""
    ids = {"workspace_id": workspace_id, "turn_id": event.turn_id}
    if event.HasField("approval_requested"):
        approval_id = event.approval_requested.approval_id
        answer = approval_pb2.ResolveApprovalRequest(**ids, approval_id=approval_id, decision=DENY)
        await subject.caller.stub.ResolveApproval(answer)
    elif interrupts and event.HasField("item_delta"):
        await subject.caller.stub.InterruptTurn(agent_service_pb2.InterruptTurnRequest(**ids))


@requirement("projection")
async def test_a_failure_reads_like_one_of_claude_code(subject: Subject) -> None:
    """An assistant's message with the kind of error, then a result that is one."""
    prompt = subject.script("projected-401", Reply(fault=Fault(status=401), repeat=9))
    *_, said, result = project(await subject.caller.run(prompt))

    assert (said["type"], said["error"]) == ("assistant", "authentication_failed")
    assert (result["type"], result["subtype"], result["is_error"]) == ("result", "error_during_execution", True)


@requirement("projection")
async def test_a_retracted_text_is_not_projected(subject: Subject) -> None:
    """Only what the second attempt says is."""
    broken = Reply(text="Half of a sentence.", chunk=4, fault=Fault(drop_after=2))
    prompt = subject.script("projected-drop", broken, Reply(text="Whole."))
    messages = list(project(await subject.caller.run(prompt)))

    assert [block["text"] for block in blocks(messages) if block["type"] == "text"] == ["Whole."]
