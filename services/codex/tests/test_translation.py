"""What no scripted model makes the real CLI say: notifications of versions to come, hidden commands."""

import json
from typing import Any

import pytest

from alive.agent.v1 import event_pb2, item_pb2, options_pb2
from alive_codex.app_server import Notification
from alive_codex.events import Translator
from alive_kit.testing.fakes import spec


def translate(*notifications: tuple[str, dict[str, Any]]) -> list[event_pb2.Event]:
    """Return the events for notifications of the app-server."""
    translator = Translator(spec(), "m", options_pb2.SANDBOX_FULL_ACCESS)
    heard = [Notification(method=method, params=params) for method, params in notifications]
    return [event for notification in heard for event in translator.translate(notification)]


def unknown(event: event_pb2.Event) -> str:
    """Return the kind of an unknown event."""
    assert event.notice.code == "unknown_vendor_event"
    return event.notice.details["kind"]


def raw(item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a raw item of the model's answer."""
    return "rawResponseItem/completed", {"threadId": "x", "turnId": "y", "item": item}


def test_an_unknown_notification_is_a_notice() -> None:
    """Found by its method."""
    (event,) = translate(("turn/hologram", {}))
    assert unknown(event) == "turn/hologram"


def test_an_unknown_item_is_a_notice() -> None:
    """Once, not again when it completes."""
    item = {"type": "smell", "id": "i"}
    (event,) = translate(("item/started", {"item": item}), ("item/completed", {"item": item}))
    assert unknown(event) == "item/smell"


def test_a_command_without_an_item_is_shown() -> None:
    """Codex runs it and says nothing when it fails at once."""
    call = {"type": "function_call", "name": "exec_command", "call_id": "c", "arguments": '{"cmd": "touch /x"}'}
    output = {"type": "function_call_output", "call_id": "c", "output": "Permission denied"}
    started, completed = translate(raw(call), raw(output))
    item = completed.item_completed.item

    assert started.item_started.item.item_id == "c"
    assert (item.command.command, item.command.output) == ("touch /x", "Permission denied")
    assert item.status == item_pb2.ITEM_STATUS_FAILED


def test_a_command_with_an_item_is_shown_once() -> None:
    """The raw items only repeat it."""
    call = {"type": "function_call", "name": "exec_command", "call_id": "c", "arguments": '{"cmd": "true"}'}
    item = {"type": "commandExecution", "id": "c", "command": "/bin/bash -c true", "cwd": "/ws", "status": "completed"}
    output = {"type": "function_call_output", "call_id": "c", "output": "ok"}
    shown = translate(raw(call), ("item/started", {"item": item}), ("item/completed", {"item": item}), raw(output))

    assert [event.WhichOneof("kind") for event in shown] == ["item_started", "item_completed"]


def test_a_retry_retracts_what_was_streamed() -> None:
    """What the abandoned attempt still says is not shown."""
    item = {"type": "agentMessage", "id": "i", "text": ""}
    error = {"error": {"message": "Reconnecting... 2/5"}, "willRetry": True}
    events = translate(
        ("item/started", {"item": item}),
        ("item/agentMessage/delta", {"itemId": "i", "delta": "Hal"}),
        ("error", error),
        ("item/completed", {"item": item}),
    )

    assert [event.WhichOneof("kind") for event in events] == [
        "item_started",
        "item_delta",
        "item_retracted",
        "item_completed",
        "notice",
    ]
    assert (events[-1].notice.retry.attempt, events[-1].notice.retry.max_attempts) == (2, 5)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        (
            "model/safetyBuffering/updated",
            {"model": "m", "reasons": ["policy"], "showBufferingUi": True, "useCases": []},
        ),
        ("model/verification", {"verifications": ["trustedAccessForCyber"]}),
        ("turn/moderationMetadata", {"metadata": {"flagged": False}}),
    ],
)
def test_what_the_vendor_checks_is_a_notice(method: str, params: dict[str, Any]) -> None:
    """With what it says of it."""
    (event,) = translate((method, {"threadId": "x", "turnId": "y", **params}))
    assert event.notice.code == "vendor_check"
    assert json.loads(event.notice.details["found"]) == params


def test_a_turn_that_was_told_to_have_started_starts_once() -> None:
    """Codex says so too."""
    translator = Translator(spec(), "m", options_pb2.SANDBOX_FULL_ACCESS)
    started = translator.begin()
    said = Notification(method="turn/started", params={"turn": {"id": "t"}})

    assert started.turn_started.model == "m"
    assert [*translator.translate(said)] == []
