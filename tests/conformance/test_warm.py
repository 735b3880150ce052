"""Turns that follow one another in a session: which of them share a CLI, and what of one reaches the next."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alive.agent.v1 import approval_pb2, event_pb2, options_pb2, session_pb2
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import CallTool, RawTool, Reply, RunCommand, TokenUsage

from .conftest import Subject, items, notices, said
from .test_approvals import ASK, Talk
from .test_endings import BOUND, processes
from .test_mcp import asking, notes


def agents(subject: Subject) -> set[int]:
    """Return the processes of a subject's agents that are there, the bridges to the model left out."""
    home = f"HOME={subject.directory}/homes/"
    found = (path for path in Path("/proc").iterdir() if path.name.isdigit() and home in read(path / "environ"))
    return {int(path.name) for path in found if read(path / "comm") != "socat\n"}


def read(path: Path) -> str:
    """Return what is said of a process; nothing when it is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


async def turn(subject: Subject, name: str, *replies: Reply, **fields: Any) -> list[event_pb2.Event]:
    """Run a turn that plays some replies."""
    events = await subject.caller.run(subject.script(f"warm-{name}", *replies), workspace_id="demo", **fields)
    assert events[-1].HasField("turn_completed"), events[-1]
    return events


@pytest.fixture
def warm(subject: Subject) -> Subject:
    """Return a subject whose agents wait for the next turn: without a box none does."""
    if not subject.boxed:
        pytest.skip("without a box no agent waits")
    return subject


@requirement("warm:reuse")
async def test_the_next_turn_has_the_same_cli(subject: Subject) -> None:
    """Three turns count their own tokens, remember, and say that they resumed. Without a box each has its own CLI."""
    usage = TokenUsage(input=1000, cached=600, output=50)
    before = agents(subject)
    first = await turn(subject, "one", Reply(text="The word is heliotrope.", usage=usage))
    after_first = agents(subject) - before
    session_id = first[0].session_id
    second = await turn(subject, "two", Reply(text="I remember.", usage=usage), session_id=session_id)
    third = await turn(subject, "three", Reply(reasoning="Hm.", text="Still.", usage=usage), session_id=session_id)

    assert agents(subject) - before == after_first
    assert bool(after_first) is subject.boxed
    assert [said(events) for events in (second, third)] == ["I remember.", "Still."]
    assert [events[0].turn_started.resumed for events in (first, second, third)] == [False, True, True]
    assert "heliotrope" in subject.sent("warm-two")
    for events in (first, second, third):
        counted = events[-1].turn_completed.usage
        assert (counted.input_tokens, counted.output_tokens, counted.model_requests) == (1000, 50, 1)
        assert "unknown_vendor_event" not in notices(events)
        assert len(items(events, "message")) == 1


@requirement("warm:reuse")
async def test_a_later_turn_is_asked_what_a_server_asks(warm: Subject) -> None:
    """By the CLI of the turn before, of its own caller."""
    server = asking(warm)
    before = agents(warm)
    first = await turn(warm, "asks-1", Reply(text="One."), mcp_servers=[server], permissions=ASK)
    old = agents(warm) - before
    call = Reply(actions=[CallTool(server="asking", tool="greet")])
    prompt = warm.script("warm-asks-2", call, Reply(text="Hello."))
    talk = Talk(warm, prompt, mcp_servers=[server], session_id=first[0].session_id)
    asked = await talk.question()
    serving = agents(warm) - before
    answer = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ANSWER, content_json='{"name": "Egret"}')
    await talk.answer(answer)
    (item,) = items(await talk.run(), "tool_call")

    assert old
    assert serving == old
    assert asked
    assert asked.elicitation.message == "Who are you?"
    assert json.loads(item.tool_call.result[0].text)["content"] == {"name": "Egret"}


DIFFERENT: dict[str, Mapping[str, Any]] = {
    "prompt": {"agent": options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt(replace="Obey the pelican."))},
    "policy": {"permissions": options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_PLAN)},
    "tools": {
        "permissions": options_pb2.Permissions(tools=options_pb2.ToolRules(denied=["mcp__notes__add"])),
    },
}


@requirement("warm:fresh")
@pytest.mark.parametrize("name", DIFFERENT)
async def test_what_is_fixed_is_never_inherited(warm: Subject, name: str) -> None:
    """Nor in the turn after it, which is as the first."""
    servers = [notes(warm)] if name == "tools" else []  # A rule must name a tool that there is.
    before = agents(warm)
    first = await turn(warm, f"{name}-1", Reply(text="One."), mcp_servers=servers)
    old = agents(warm) - before
    session_id = first[0].session_id
    await turn(warm, f"{name}-2", Reply(text="Two."), session_id=session_id, mcp_servers=servers, **DIFFERENT[name])
    new = agents(warm) - before
    await turn(warm, f"{name}-3", Reply(text="Three."), session_id=session_id, mcp_servers=servers)

    assert old
    assert new
    assert not old & new
    assert not new & agents(warm)
    assert "pelican" not in warm.sent(f"warm-{name}-3")
    assert name != "prompt" or "pelican" in warm.sent(f"warm-{name}-2")


@requirement("warm:fresh")
async def test_the_model_and_the_limits_are_those_of_the_turn(warm: Subject) -> None:
    """Whether the CLI is the same one or not; then again the default."""
    default, other = [model.model for model in warm.caller.service.info.models][:2]  # type: ignore[union-attr]
    session_id = (await turn(warm, "model-1", Reply(text="One.")))[0].session_id
    agent = options_pb2.AgentOptions(model=other)
    second = await turn(warm, "model-2", Reply(text="Two."), session_id=session_id, agent=agent)
    third = await turn(warm, "model-3", Reply(text="Three."), session_id=session_id)

    assert [warm.bodies(f"warm-model-{number}")[0]["model"] for number in (2, 3)] == [other, default]
    assert [events[0].turn_started.model for events in (second, third)] == [other, default]


@requirement("warm:fresh")
async def test_limits_and_schemas_are_those_of_the_turn(warm: Subject) -> None:
    """Requests to the model are counted anew in each turn, and a schema holds for its turn alone."""
    look = Reply(
        actions=[
            RunCommand(command="true") if warm.name == "codex" else RawTool(name="Glob", arguments={"pattern": "*"})
        ]
    )
    limits, session_id = options_pb2.Limits(max_turns=2), ""
    for number in (1, 2, 3):
        replies = (look, Reply(text="Seen."))
        events = await turn(warm, f"limit-{number}", *replies, session_id=session_id, limits=limits)
        session_id = events[0].session_id
        assert events[-1].turn_completed.stop_reason == event_pb2.STOP_REASON_END_TURN
    properties = {"canary": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": ["canary"], "additionalProperties": False}
    agent = options_pb2.AgentOptions(output_schema=json.dumps(schema))
    answer = (
        Reply(text='{"canary": "yes"}')
        if warm.name == "codex"
        else Reply(actions=[RawTool(name="StructuredOutput", arguments={"canary": "yes"})])
    )
    events = await turn(warm, "schema", answer, Reply(text="Done."), session_id=session_id, agent=agent)
    await turn(warm, "no-schema", Reply(text="Plain."), session_id=session_id)

    assert events[-1].turn_completed.structured_output
    assert "additionalProperties" in str(warm.bodies("warm-schema")[0])
    body = warm.bodies("warm-no-schema")[0]
    assert "canary" not in str([body.get("text"), [tool for tool in body["tools"] if "StructuredOutput" in str(tool)]])


@requirement("warm:trace")
async def test_what_ran_in_a_turn_is_gone_after_it(warm: Subject) -> None:
    """A daemon, and what was written into the vendor's home: the next turn finds neither."""
    word = f"canary-{warm.name}-trace"
    command = (
        f"setsid python3 -c 'import time; time.sleep(300)' {word} >/dev/null 2>&1 </dev/null &"
        ' echo "left" | tee "$HOME/left.txt"; echo "alias ls=false" > "$HOME/.bashrc"; cat "$HOME/left.txt"'
    )
    full = options_pb2.Permissions(sandbox=options_pb2.SANDBOX_FULL_ACCESS)
    replies = (Reply(actions=[RunCommand(command=command)]), Reply(text="Left."))
    first = await turn(warm, "trace-1", *replies, permissions=full)
    gone = not processes(word)
    look = RunCommand(command='ls -A "$HOME"; cat "$HOME/left.txt" "$HOME/.bashrc"')
    replies = (Reply(actions=[look]), Reply(text="Looked."))
    second = await turn(warm, "trace-2", *replies, permissions=full, session_id=first[0].session_id)

    assert gone
    assert "left" in items(first, "command")[0].command.output
    assert "left.txt: No such file" in items(second, "command")[0].command.output
    assert ".bashrc: No such file" in items(second, "command")[0].command.output


@requirement("warm:trace")
async def test_a_server_that_ran_a_tool_is_gone_after_the_turn(warm: Subject) -> None:
    """One whose tools were not called serves the next turn too; in both the tools are there."""
    server = notes(warm)
    before = agents(warm)
    first = await turn(warm, "served-1", Reply(text="One."), mcp_servers=[server])
    old = agents(warm) - before
    session_id = first[0].session_id
    replies = (Reply(actions=[CallTool(server="notes", tool="add", arguments={"a": 1, "b": 2})]), Reply(text="Two."))
    second = await turn(warm, "served-2", *replies, mcp_servers=[server], session_id=session_id)
    gone = not old & agents(warm)
    third = await turn(warm, "served-3", Reply(text="Three."), mcp_servers=[server], session_id=session_id)

    assert items(second, "tool_call")
    assert gone
    for events in (first, second, third):
        states = [state.status for state in events[0].turn_started.mcp_servers]
        assert states == [event_pb2.MCP_SERVER_STATUS_READY]


@requirement("warm:crash")
@pytest.mark.parametrize("victim", ["CLI", "server", "stuck CLI"])
async def test_what_dies_between_turns_is_replaced(warm: Subject, victim: str) -> None:
    """Or answers no more; the next turn has its memory and its tools."""
    server = notes(warm)
    first = await turn(warm, f"{victim[:4]}-1", Reply(text="The word is heron."), mcp_servers=[server])
    script = str(warm.directory / "bin/notes_server.py")
    word = script if victim == "server" else ("claude" if warm.name == "claude" else "app-server")
    killed = agents(warm) & set(processes(word))
    for process in killed:
        os.kill(process, signal.SIGSTOP if victim == "stuck CLI" else signal.SIGKILL)
    while victim != "stuck CLI" and killed & agents(warm):
        await asyncio.sleep(0.01)  # Nothing tells when a process that is not our child is gone.
    replies = (Reply(actions=[CallTool(server="notes", tool="add", arguments={"a": 1, "b": 2})]), Reply(text="Yes."))
    second = await turn(warm, f"{victim[:4]}-2", *replies, mcp_servers=[server], session_id=first[0].session_id)

    assert killed
    assert not killed & agents(warm)
    assert "heron" in warm.sent(f"warm-{victim[:4]}-2")
    assert len(items(second, "tool_call")) == 1


@requirement("warm:ahead")
async def test_a_cli_starts_ahead_of_the_next_turn(warm: Subject) -> None:
    """After a turn whose box had to end: the next one has the new CLI, its memory, and no start of its own."""
    full = options_pb2.Permissions(sandbox=options_pb2.SANDBOX_FULL_ACCESS)
    before = agents(warm)
    command = RunCommand(command='echo left > "$HOME/left.txt"; echo heron')
    replies = (Reply(actions=[command]), Reply(text="Written."))
    session_id = (await turn(warm, "ahead-1", *replies, permissions=full))[0].session_id
    left = agents(warm) - before
    asked = session_pb2.GetSessionRequest(workspace_id="demo", session_id=session_id, warm=True)
    async with asyncio.timeout(BOUND):
        while not (await warm.caller.stub.GetSession(asked)).session.warm:
            await asyncio.sleep(0.01)
    ahead = agents(warm) - before
    second = await turn(warm, "ahead-2", Reply(text="I remember."), session_id=session_id, permissions=full)

    assert not left
    assert ahead
    assert agents(warm) - before == ahead
    assert second[0].turn_started.resumed
    assert "heron" in warm.sent("warm-ahead-2")
