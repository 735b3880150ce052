"""The OpenAI Responses API, as the Codex CLI 0.163 speaks it."""

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

_ERROR_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class OpenAI:
    """How the Responses API says things."""

    def session(self, headers: dict[str, str], body: dict[str, Any]) -> str:
        """Return the thread that the CLI names as the key of its prompt cache."""
        return str(body.get("prompt_cache_key", ""))

    def inputs(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the texts of user messages, newest first."""
        for item in reversed(body.get("input", [])):
            if item.get("type") == "message" and item.get("role") == "user":
                yield from (part["text"] for part in reversed(item["content"]) if part.get("type") == "input_text")

    def is_side_request(self, body: dict[str, Any]) -> bool:
        """Never: the CLI searches and plans within its ordinary requests."""
        return False

    def stream(self, body: dict[str, Any], reply: Reply) -> Iterator[Sent]:
        """Yield the reply as the Responses API streams it."""
        response = {"id": f"resp_{uuid.uuid4().hex[:24]}", "object": "response", "status": "in_progress", "output": []}
        yield _sent("response.created", response=response)
        items = list(_items(reply))
        for index, item in enumerate(items):
            yield from _stream_item(index, item, reply.chunk)
        ended = {**response, "output": items, "usage": _usage(reply.usage)}
        if reply.stop == "max_tokens":
            reason = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
            yield _sent("response.incomplete", response={**ended, **reason})
        else:
            yield _sent("response.completed", response={**ended, "status": "completed"})

    def whole(self, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        """Return the reply as one response."""
        return {
            "id": f"resp_{uuid.uuid4().hex[:24]}",
            "object": "response",
            "status": "completed",
            "output": list(_items(reply)),
            "usage": _usage(reply.usage),
        }

    def error(self, fault: Fault) -> dict[str, Any]:
        """Return the vendor's error body."""
        code = fault.code or _ERROR_CODES.get(fault.status, "server_error")
        message = fault.message or f"scripted {code}"
        return {"error": {"message": message, "type": code, "param": None, "code": code}}

    def error_event(self, fault: Fault) -> bytes:
        """Return a response that failed."""
        code = fault.code or "server_error"
        error = {"code": code, "message": fault.message or f"scripted {code}"}
        response = {"id": "resp_scripted", "object": "response", "status": "failed", "error": error}
        return event("response.failed", {"type": "response.failed", "response": response})


def _items(reply: Reply) -> Iterator[dict[str, Any]]:
    if reply.reasoning:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        yield {"type": "reasoning", "id": _id("rs"), "summary": summary, "content": [], "encrypted_content": None}
    text = "I can't help with that." if reply.stop == "refusal" and not reply.text else reply.text
    if text:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        yield {"type": "message", "id": _id("msg"), "role": "assistant", "status": "completed", "content": content}
    for action in reply.actions:
        yield _call(action)


def _call(action: Action) -> dict[str, Any]:
    """Return the item that calls the CLI's own tool for an action."""
    match action:
        case RunCommand():
            return _function("exec_command", {"cmd": action.command})
        case WriteFile():
            added = "".join(f"+{line}\n" for line in action.content.splitlines())
            return _patch(f"*** Add File: {action.path}\n{added}")
        case EditFile():
            return _patch(f"*** Update File: {action.path}\n@@\n-{action.old}\n+{action.new}\n")
        case CallTool():
            # The CLI offers no hyphens (codex 0.163.0).
            return {**_function(action.tool, action.arguments), "namespace": f"mcp__{action.server.replace('-', '_')}"}
        case UpdatePlan():
            return _function("update_plan", {"plan": [{"step": text, "status": state} for text, state in action.steps]})
        case WebSearch():
            search = {"type": "search", "query": action.query}
            return {"type": "web_search_call", "id": _id("ws"), "status": "completed", "action": search}
        case AskUser():
            options = [{"label": label, "description": label} for label in action.options]
            asked = {"id": "q1", "header": "Question", "question": action.question, "options": options}
            return _function("request_user_input", {"questions": [asked]})
        case RawTool():
            return _function(action.name, action.arguments)
        case _:
            assert_never(action)


def _function(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": _id("fc"),
        "call_id": _id("call"),
        "name": name,
        "arguments": json.dumps(arguments),
        "status": "completed",
    }


def _patch(change: str) -> dict[str, Any]:
    patch = f"*** Begin Patch\n{change}*** End Patch\n"
    call = {"type": "custom_tool_call", "id": _id("ctc"), "call_id": _id("call"), "name": "apply_patch"}
    return {**call, "input": patch, "status": "completed"}


def _stream_item(index: int, item: dict[str, Any], size: int) -> Iterator[Sent]:
    where = {"item_id": item["id"], "output_index": index}
    match item["type"]:
        case "message":
            text = item["content"][0]["text"]
            yield _sent("response.output_item.added", output_index=index, item={**item, "content": []})
            part = {"type": "output_text", "text": "", "annotations": []}
            yield _sent("response.content_part.added", **where, content_index=0, part=part)
            for piece in pieces(text, size):
                yield _sent("response.output_text.delta", is_delta=True, **where, content_index=0, delta=piece)
            yield _sent("response.output_text.done", **where, content_index=0, text=text)
        case "reasoning":
            text = item["summary"][0]["text"]
            yield _sent("response.output_item.added", output_index=index, item={**item, "summary": []})
            part = {"type": "summary_text", "text": ""}
            yield _sent("response.reasoning_summary_part.added", **where, summary_index=0, part=part)
            for piece in pieces(text, size):
                yield _sent(
                    "response.reasoning_summary_text.delta", is_delta=True, **where, summary_index=0, delta=piece
                )
            yield _sent("response.reasoning_summary_text.done", **where, summary_index=0, text=text)
        case _:
            yield _sent("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
    yield _sent("response.output_item.done", output_index=index, item=item)


def _sent(kind: str, *, is_delta: bool = False, **fields: Any) -> Sent:
    return Sent(event(kind, {"type": kind, **fields}), is_delta=is_delta)


def _usage(usage: TokenUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:24]}"
