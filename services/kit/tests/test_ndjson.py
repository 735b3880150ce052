"""The lines that Alive's front end reads, from recordings of both providers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2
from alive_kit.claude_messages import Message
from alive_kit.failures import turn_error
from alive_kit.ndjson import Asked, project
from alive_kit.testing import recordings

RECORDINGS = Path(__file__).with_name("recordings")
ASKED = Asked(request_id="r1", message="go", tab_id="tab", host="alive", cwd="/site")


@pytest.fixture(params=["claude", "codex"])
def provider(request: pytest.FixtureRequest) -> str:
    """Return each provider's name."""
    name: str = request.param
    return name


def lines(provider: str, name: str) -> list[Message]:
    """Return the lines of a recorded turn."""
    return list(project(ASKED, recordings.read(RECORDINGS / provider / f"{name}.jsonl")))


def outline(found: list[Message]) -> list[str]:
    """Return each line's type, and of messages what they carry."""
    return [_outline(line) for line in found if line["data"].get("content", {}).get("subtype") != "informational"]


def _outline(line: Message) -> str:
    content: dict[str, Any] = line["data"].get("content", {})
    blocks = content["message"]["content"] if content.get("type") in {"assistant", "user"} else []
    names = [block.get("name", block["type"]) for block in blocks]
    return " ".join(filter(None, [line["type"], content.get("type", ""), content.get("subtype", ""), *names]))


def test_a_turn_is_the_stream_that_the_front_end_reads(provider: str) -> None:
    """From its start to its end, the same of both providers."""
    assert outline(lines(provider, "work")) == [
        "stream_start",
        "stream_session",
        "stream_message system init",
        "stream_message assistant thinking",
        *("stream_message assistant Bash", "stream_message user tool_result"),
        *("stream_message assistant Write", "stream_message user tool_result"),
        *("stream_message assistant Edit", "stream_message user tool_result"),
        *("stream_message assistant mcp__notes__add", "stream_message user tool_result"),
        *("stream_message assistant TodoWrite", "stream_message user tool_result"),
        *("stream_message assistant Bash", "stream_message user tool_result"),
        "stream_message assistant text",
        "stream_complete",
        "stream_done",
    ]


def test_every_line_is_in_its_envelope(provider: str) -> None:
    """Numbered from 1 without gaps; whoever reads the same events again gets the same lines."""
    found = lines(provider, "work")

    assert [line["streamSeq"] for line in found] == list(range(1, len(found) + 1))
    assert [line["messageId"] for line in found] == [f"r1-{line['streamSeq']}" for line in found]
    assert {(line["requestId"], line["tabId"]) for line in found} == {("r1", "tab")}
    assert found[0]["data"] == {"host": "alive", "cwd": "/site", "message": "go", "messageLength": 2, "isResume": False}
    assert found == lines(provider, "work")


def test_tools_are_called_and_answered_by_their_ids(provider: str) -> None:
    """A command's output and its failure, a file's name, an MCP tool's arguments and result, a plan's steps."""
    contents = [line["data"]["content"] for line in lines(provider, "work") if line["type"] == "stream_message"]
    blocks = [block for content in contents if "message" in content for block in content["message"]["content"]]
    uses = [block for block in blocks if block["type"] == "tool_use"]
    results = {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}

    assert [use["id"] for use in uses] == list(results)
    assert [results[use["id"]]["is_error"] for use in uses] == [False, False, False, False, False, True]
    assert results[uses[0]["id"]]["content"].strip() == "heron"
    assert uses[1]["input"]["file_path"] == uses[2]["input"]["file_path"] == "a.txt"
    assert uses[3]["input"] == {"a": 1, "b": 41}
    assert "42" in results[uses[3]["id"]]["content"]
    assert [todo["status"] for todo in uses[4]["input"]["todos"]] == ["completed", "pending"]


def test_a_turn_that_completed_has_its_result(provider: str) -> None:
    """With what it used, as Anthropic counts."""
    (complete,) = (line["data"] for line in lines(provider, "work") if line["type"] == "stream_complete")

    assert (complete["totalTurns"], complete["result"]["subtype"], complete["result"]["result"]) == (
        7,
        "success",
        "Done.",
    )
    assert complete["result"]["usage"]["cache_read_input_tokens"] == 40


def test_what_is_denied_is_a_result_that_is_an_error(provider: str) -> None:
    """The turn goes on."""
    contents = [line["data"].get("content", {}) for line in lines(provider, "denied")]
    results = [content["message"]["content"][0] for content in contents if content.get("type") == "user"]

    assert [result["is_error"] for result in results] == [True]
    assert outline(lines(provider, "denied"))[-2:] == ["stream_complete", "stream_done"]


def test_a_failure_has_the_front_ends_code(provider: str) -> None:
    """A sentence for the user, and no text of the vendor's."""
    *_, said, error, done = lines(provider, "failed")

    assert said["data"]["content"]["error"] == "authentication_failed"
    assert (error["type"], error["data"]["code"], error["data"]["details"]) == (
        "stream_error",
        "API_AUTH_FAILED",
        {"reason": "AUTH"},
    )
    assert "scripted" not in error["data"]["message"]
    assert done["type"] == "stream_done"


def test_an_interrupted_turn_says_who_stopped_it(provider: str) -> None:
    """By its caller; the text until then stays."""
    *_, interrupted, done = lines(provider, "interrupted")

    assert (interrupted["type"], interrupted["data"]["source"]) == ("stream_interrupt", "stream_client_cancel")
    assert interrupted["data"]["status"] == "stopped"
    assert done["type"] == "stream_done"


def test_a_text_that_was_taken_back_is_not_shown(provider: str) -> None:
    """Only that of the second attempt is."""
    contents = [line["data"].get("content", {}) for line in lines(provider, "retracted")]
    texts = [content["message"]["content"][0]["text"] for content in contents if content.get("type") == "assistant"]

    assert texts == ["Whole."]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("QUOTA", "INSUFFICIENT_CREDITS"),
        ("RATE_LIMIT", "TOO_MANY_REQUESTS"),
        ("MODEL_UNAVAILABLE", "MODEL_NOT_AVAILABLE"),
        ("SESSION_CORRUPT", "SESSION_CORRUPT"),
        ("CRASHED", "STREAM_ERROR"),
        ("MCP", "QUERY_FAILED"),
    ],
)
def test_every_failure_has_a_code(reason: str, code: str) -> None:
    """Of those that the front end knows."""
    failed = event_pb2.TurnFailed(error=turn_error(error_pb2.FailureReason.Value(f"FAILURE_REASON_{reason}")))
    *_, error, _ = project(ASKED, [event_pb2.Event(turn_failed=failed)])

    assert error["data"]["code"] == code


def test_a_turn_that_reached_its_limit_is_complete() -> None:
    """The front end reads from the result what it was."""
    failed = event_pb2.TurnFailed(error=turn_error(error_pb2.FAILURE_REASON_BUDGET))
    *_, complete, _ = project(ASKED, [event_pb2.Event(turn_failed=failed)])

    assert (complete["type"], complete["data"]["result"]["subtype"]) == ("stream_complete", "error_max_budget_usd")


def test_a_turn_that_waits_says_where_it_stands() -> None:
    """In a line without an envelope."""
    queued = event_pb2.TurnQueued(reason="as many turns are running as may (1)", position=2)

    assert list(project(ASKED, [event_pb2.Event(turn_queued=queued)])) == [
        {"type": "stream_queued", "reason": "as many turns are running as may (1)", "position": 2}
    ]


def test_the_example_of_the_docs_runs(provider: str) -> None:
    """As it stands in docs/front-end.md."""
    text = (Path(__file__).parents[3] / "docs/front-end.md").read_text()
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)  # Our own words.
    events = recordings.read(RECORDINGS / provider / "work.jsonl")

    responses = [agent_service_pb2.StartTurnResponse(events=[event]) for event in events]
    stub = SimpleNamespace(StartTurn=lambda _request: responses)

    found = [json.loads(line) for line in names["stream"](stub, None, ASKED)]
    assert found == lines(provider, "work")
