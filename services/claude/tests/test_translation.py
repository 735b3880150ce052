"""What no scripted model makes the real CLI say: messages of versions to come, and broken attempts."""

from typing import Any

import pytest
from claude_agent_sdk._internal.message_parser import parse_message

from alive.agent.v1 import event_pb2, item_pb2
from alive_claude.events import Translator
from alive_claude.messages import Received
from alive_kit.testing.fakes import spec


def translate(*messages: dict[str, Any]) -> list[event_pb2.Event]:
    """Return the events for messages of the CLI, as it would send them."""
    translator = Translator(spec(), set())
    received = [Received(raw=message, message=parse_message(message)) for message in messages]
    return [event for message in received for event in translator.translate(message)]


def stream(event: dict[str, Any]) -> dict[str, Any]:
    """Return a streamed event of the API."""
    return {"type": "stream_event", "uuid": "u", "session_id": "s", "event": event, "parent_tool_use_id": None}


def unknown(event: event_pb2.Event) -> str:
    """Return the kind of an unknown event."""
    assert event.notice.code == "unknown_vendor_event"
    return event.notice.details["kind"]


def test_an_unknown_message_is_a_notice() -> None:
    """The SDK would skip it."""
    (event,) = translate({"type": "hologram", "session_id": "s"})
    assert unknown(event) == "hologram"


def test_an_unknown_system_message_is_a_notice() -> None:
    """Found by its subtype."""
    (event,) = translate({"type": "system", "subtype": "aurora", "session_id": "s"})
    assert unknown(event) == "system/aurora"


def test_an_unknown_block_of_an_answer_is_a_notice() -> None:
    """The SDK would leave it out."""
    content = [{"type": "smell", "data": "roses"}]
    message = {"role": "assistant", "id": "m", "model": "x", "content": content, "usage": {}}
    events = translate({"type": "assistant", "message": message, "session_id": "s", "parent_tool_use_id": None})
    assert unknown(events[0]) == "assistant/smell"


def test_an_unknown_streamed_event_is_a_notice() -> None:
    """Beside those of the API as it is."""
    start = {"type": "message_start", "message": {"id": "m", "model": "x", "usage": {}}}
    (event,) = translate(stream(start), stream({"type": "message_whisper"}))
    assert unknown(event) == "stream_event/message_whisper"


def test_a_streamed_event_outside_of_a_message_is_a_notice() -> None:
    """It does not break the turn."""
    (event,) = translate(stream({"type": "content_block_stop", "index": 0}))
    assert unknown(event) == "stream_event/content_block_stop outside of a message"


def test_what_was_streamed_and_not_stated_is_retracted() -> None:
    """A second attempt begins before the first one's text was stated."""
    start = {"type": "message_start", "message": {"id": "m1", "model": "x", "usage": {"input_tokens": 1}}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hal"}}
    again = {"type": "message_start", "message": {"id": "m2", "model": "x", "usage": {"input_tokens": 1}}}
    events = translate(*map(stream, (start, block, delta, again)))

    assert [event.WhichOneof("kind") for event in events] == [
        "item_started",
        "item_delta",
        "item_retracted",
        "item_completed",
    ]
    assert events[-1].item_completed.item.status == item_pb2.ITEM_STATUS_FAILED


def answer(*content: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of the model, stated whole."""
    message = {"role": "assistant", "id": "m", "model": "x", "content": list(content), "usage": {}}
    return {"type": "assistant", "message": message, "session_id": "s", "parent_tool_use_id": None}


@pytest.mark.parametrize(("kind", "status"), [("", "COMPLETED"), ("_error", "FAILED")])
def test_a_tool_that_the_api_runs_itself_is_an_item(kind: str, status: str) -> None:
    """It is called and answered within the model's own answer."""
    use = {"type": "server_tool_use", "id": "a1", "name": "advisor", "input": {"question": "Which bird?"}}
    result = {"type": f"advisor_result{kind}", "text": "The heron."}
    events = translate(answer(use), answer({"type": "advisor_tool_result", "tool_use_id": "a1", "content": result}))
    (item,) = (event.item_completed.item for event in events if event.HasField("item_completed"))

    assert [event.item_started.item.item_id for event in events if event.HasField("item_started")] == ["a1"]
    assert (item.tool_call.tool, item.tool_call.arguments_json) == ("advisor", '{"question": "Which bird?"}')
    assert "The heron." in (item.tool_call.error or item.tool_call.result[0].text)
    assert item.status == item_pb2.ItemStatus.Value(f"ITEM_STATUS_{status}")


def test_a_conversation_that_is_reset_is_a_notice() -> None:
    """What was said before is no longer known to the model."""
    (event,) = translate({"type": "conversation_reset", "new_conversation_id": "n", "uuid": "u", "session_id": "s"})
    assert event.notice.code == "conversation_reset"


def test_a_turn_that_was_told_to_have_started_starts_once() -> None:
    """The CLI says so too; what it says of itself that was not told is a notice."""
    state = {"type": "system", "subtype": "init", "session_id": "s", "model": "x", "tools": ["Read"]}
    server = {"name": "files", "status": "connected"}
    before = {**state, "mcp_servers": [server]}
    translator = Translator(spec(), set())
    (started,) = translator.begin(before)
    said = [before, {**state, "model": "y", "mcp_servers": [{**server, "status": "failed"}]}]
    received = [Received(raw=raw, message=parse_message(raw)) for raw in said]
    same, other = [[*translator.translate(message)] for message in received]

    assert (started.turn_started.model, list(started.turn_started.tools)) == ("x", ["Read"])
    assert same == []
    assert [event.notice.code for event in other] == ["mcp_server_failed", "model_changed"]
