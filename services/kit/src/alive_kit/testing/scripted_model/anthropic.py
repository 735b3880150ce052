"""The Anthropic Messages API, as Claude Code 2.1 speaks it."""

import json
import uuid
from collections.abc import Iterator
from typing import Any, assert_never

from alive_kit.testing.scripted_model.script import (
    Action,
    AskUser,
    CallTool,
    EditFile,
    Fault,
    RawTool,
    Reply,
    RunCommand,
    TokenUsage,
    UpdatePlan,
    WebSearch,
    WriteFile,
)
from alive_kit.testing.scripted_model.wire import Sent, event, pieces

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}

_SEARCH_TOOL = "web_search"


class Anthropic:
    """How the Messages API says things."""

    def session(self, headers: dict[str, str], body: dict[str, Any]) -> str:
        """Return the session id that the CLI sends with every request."""
        return headers.get("x-claude-code-session-id", "")

    def inputs(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the texts of user messages, newest first."""
        for message in reversed(body.get("messages", [])):
            if message.get("role") == "user":
                yield from reversed(list(_texts(message.get("content", ""))))

    def is_side_request(self, body: dict[str, Any]) -> bool:
        """Whether it is the CLI's WebSearch tool that asks, through the API's own search tool."""
        return any(str(tool.get("type", "")).startswith(_SEARCH_TOOL) for tool in body.get("tools", []))

    def stream(self, body: dict[str, Any], reply: Reply) -> Iterator[Sent]:
        """Yield the reply as the Messages API streams it."""
        message = _envelope(body, reply.usage)
        yield Sent(event("message_start", {"type": "message_start", "message": message}))
        for index, block in enumerate(self._blocks(body, reply)):
            yield from _stream_block(index, block, reply.chunk)
        ended = {
            "type": "message_delta",
            "delta": {"stop_reason": _stop_reason(reply), "stop_sequence": None},
            "usage": _usage(reply.usage),
        }
        yield Sent(event("message_delta", ended))
        yield Sent(event("message_stop", {"type": "message_stop"}))

    def whole(self, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        """Return the reply as one message."""
        return {
            **_envelope(body, reply.usage),
            "content": list(self._blocks(body, reply)),
            "stop_reason": _stop_reason(reply),
            "usage": _usage(reply.usage),
        }

    def error(self, fault: Fault) -> dict[str, Any]:
        """Return the vendor's error body."""
        kind = fault.code or _ERROR_TYPES.get(fault.status, "api_error")
        message = fault.message or f"scripted {kind}"
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}

    def error_event(self, fault: Fault) -> bytes:
        """Return the vendor's error event."""
        return event("error", self.error(fault))

    def _blocks(self, body: dict[str, Any], reply: Reply) -> Iterator[dict[str, Any]]:
        if self.is_side_request(body):
            yield from _search_blocks()
            return
        if reply.reasoning:
            yield {"type": "thinking", "thinking": reply.reasoning, "signature": "c2NyaXB0ZWQ="}
        if reply.text:
            yield {"type": "text", "text": reply.text}
        for action in reply.actions:
            name, arguments = _tool(action, body)
            yield {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": name, "input": arguments}


def _texts(content: str | list[dict[str, Any]]) -> Iterator[str]:
    if isinstance(content, str):
        yield content
        return
    for block in content:
        if block.get("type") == "text":
            yield block["text"]


def _tool(action: Action, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the input of the CLI's own tool for an action."""
    match action:
        case RunCommand():
            return "Bash", {"command": action.command, "description": "scripted"}
        case WriteFile():
            return "Write", {"file_path": action.path, "content": action.content}
        case EditFile():
            return "Edit", {"file_path": action.path, "old_string": action.old, "new_string": action.new}
        case CallTool():
            return f"mcp__{action.server}__{action.tool}", action.arguments
        case UpdatePlan():
            steps = [{"content": text, "activeForm": text, "status": state} for text, state in action.steps]
            return "TodoWrite", {"todos": steps}
        case WebSearch():
            return "WebSearch", {"query": action.query}
        case AskUser():
            options = [{"label": label, "description": label} for label in action.options]
            asked = {"header": "Question", "question": action.question, "options": options, "multiSelect": False}
            return "AskUserQuestion", {"questions": [asked]}
        case RawTool():
            return action.name, action.arguments
        case _:
            assert_never(action)


def _search_blocks() -> Iterator[dict[str, Any]]:
    """Yield what the API's own search tool answers: one page."""
    call = f"srvtoolu_{uuid.uuid4().hex[:24]}"
    page = {
        "type": "web_search_result",
        "title": "A scripted page",
        "url": "https://example.com/scripted",
        "encrypted_content": "c2NyaXB0ZWQ=",
        "page_age": None,
    }
    yield {"type": "server_tool_use", "id": call, "name": _SEARCH_TOOL, "input": {"query": "scripted"}}
    yield {"type": "web_search_tool_result", "tool_use_id": call, "content": [page]}
    yield {"type": "text", "text": "One page was found."}


def _stream_block(index: int, block: dict[str, Any], size: int) -> Iterator[Sent]:
    match block["type"]:
        case "text":
            empty, deltas = {**block, "text": ""}, _deltas("text", block["text"], size)
        case "thinking":
            empty = {**block, "thinking": "", "signature": ""}
            signature = {"type": "signature_delta", "signature": block["signature"]}
            deltas = [*_deltas("thinking", block["thinking"], size), signature]
        case "tool_use" | "server_tool_use":
            empty = {**block, "input": {}}
            deltas = [
                {"type": "input_json_delta", "partial_json": piece}
                for piece in pieces(json.dumps(block["input"]), max(size, 64))
            ]
        case _:
            empty, deltas = block, []
    yield Sent(event("content_block_start", {"type": "content_block_start", "index": index, "content_block": empty}))
    for delta in deltas:
        data = {"type": "content_block_delta", "index": index, "delta": delta}
        yield Sent(event("content_block_delta", data), is_delta=True)
    yield Sent(event("content_block_stop", {"type": "content_block_stop", "index": index}))


def _deltas(name: str, text: str, size: int) -> list[dict[str, Any]]:
    return [{"type": f"{name}_delta", name: piece} for piece in pieces(text, size)]


def _envelope(body: dict[str, Any], usage: TokenUsage) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "scripted"),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage(usage), "output_tokens": 1},
    }


def _usage(usage: TokenUsage) -> dict[str, Any]:
    """Return the counts; the vendor counts cached input apart from the rest of the input."""
    return {
        "input_tokens": usage.input - usage.cached - usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.cache_write,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def _stop_reason(reply: Reply) -> str:
    return "tool_use" if reply.actions and reply.stop == "end_turn" else reply.stop
