"""A turn of the real CLI, from the request to its terminal event."""

import json

from alive.agent.v1 import event_pb2, item_pb2, options_pb2
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import (
    EditFile,
    Reply,
    RunCommand,
    UpdatePlan,
    WebSearch,
    WriteFile,
)

from .conftest import Subject, items, kinds, notices, said


@requirement("turn:stream")
async def test_a_turn_streams_deltas_and_one_terminal(subject: Subject) -> None:
    """Deltas add up to the message, numbers have no gaps, and nothing follows the terminal."""
    text = "Hello. This is said in many small pieces."
    events = await subject.caller.run(subject.script("hello", Reply(text=text, chunk=5)))
    deltas = "".join(event.item_delta.text for event in events if event.HasField("item_delta"))

    assert deltas == text == said(events)
    assert kinds(events)[0] == "turn_started"
    assert kinds(events)[-1] == "turn_completed"
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].turn_completed.stop_reason == event_pb2.STOP_REASON_END_TURN
    assert "unknown_vendor_event" not in notices(events)


@requirement("turn:raw")
async def test_the_vendors_json_comes_only_when_asked_for(subject: Subject) -> None:
    """Source: options.proto, Delivery.include_raw."""
    prompt = subject.script("raw", *[Reply(text="Raw.")] * 2)
    plain = await subject.caller.run(prompt)
    raw = await subject.caller.run(prompt, delivery=options_pb2.Delivery(include_raw=True))

    assert not any(event.raw_json for event in plain)
    assert all(json.loads(event.raw_json) for event in raw if event.HasField("item_delta"))


@requirement("turn:validate-only")
async def test_validate_only_starts_nothing(subject: Subject) -> None:
    """Source: agent_service.proto, StartTurnRequest.validate_only."""
    assert await subject.caller.run(subject.script("validate", Reply(text="No.")), validate_only=True) == []
    assert subject.bodies("validate") == []


@requirement("item:reasoning")
async def test_reasoning_is_an_item(subject: Subject) -> None:
    """What the model thought comes before what it said."""
    events = await subject.caller.run(subject.script("think", Reply(reasoning="First I think.", text="Then I speak.")))

    assert [item.reasoning.text for item in items(events, "reasoning")] == ["First I think."]


@requirement("item:command")
async def test_a_command_has_its_output_and_exit_code(subject: Subject) -> None:
    """One command succeeds, one fails."""
    prompt = subject.script(
        "command",
        Reply(actions=[RunCommand(command="echo out; echo more")]),
        Reply(actions=[RunCommand(command="echo bad; exit 3")]),
        Reply(text="Ran."),
    )
    good, bad = items(await subject.caller.run(prompt), "command")

    assert good.command.command == "echo out; echo more"
    assert good.command.cwd == "."
    assert good.command.output.strip() == "out\nmore"
    assert (good.status, good.command.exit_code) == (item_pb2.ITEM_STATUS_COMPLETED, 0)
    assert bad.command.output.strip() == "bad"
    assert (bad.status, bad.command.exit_code) == (item_pb2.ITEM_STATUS_FAILED, 3)


@requirement("item:file-change")
async def test_file_changes_have_diffs(subject: Subject) -> None:
    """A file is written, then edited; both are really there."""
    workspace = subject.workspace("changes")
    prompt = subject.script(
        "changes",
        Reply(actions=[WriteFile(path="note.txt", content="one\ntwo\n")]),
        Reply(actions=[EditFile(path="note.txt", old="two", new="three")]),
        Reply(text="Changed."),
    )
    events = await subject.caller.run(prompt, workspace_id="changes")
    added, updated = (item.file_change.changes[0] for item in items(events, "file_change"))

    assert (workspace / "note.txt").read_text() == "one\nthree\n"
    assert (added.path, added.kind) == ("note.txt", item_pb2.FILE_CHANGE_KIND_ADD)
    assert added.diff == "--- /dev/null\n+++ b/note.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n"
    assert (updated.path, updated.kind) == ("note.txt", item_pb2.FILE_CHANGE_KIND_UPDATE)
    assert updated.diff.startswith("--- a/note.txt\n+++ b/note.txt\n@@ ")
    assert "\n-two\n+three\n" in updated.diff


@requirement("item:plan")
async def test_a_plan_has_steps(subject: Subject) -> None:
    """The agent states its plan with one step done."""
    steps = [("read", "completed"), ("write", "in_progress"), ("test", "pending")]
    prompt = subject.script("plan", Reply(actions=[UpdatePlan(steps=steps)]), Reply(text="Planned."))
    (item,) = items(await subject.caller.run(prompt), "plan")

    assert [(step.text, item_pb2.PlanStepState.Name(step.state)[16:].lower()) for step in item.plan.steps] == steps


@requirement("item:web-search")
async def test_a_web_search_has_its_query(subject: Subject) -> None:
    """Only where the request allows it."""
    prompt = subject.script("search", Reply(actions=[WebSearch(query="alive agents")]), Reply(text="Searched."))
    events = await subject.caller.run(prompt, permissions=options_pb2.Permissions(web_search=True))

    assert [item.web_search.query for item in items(events, "web_search")] == ["alive agents"]
