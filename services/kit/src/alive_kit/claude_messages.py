"""Projects events onto the messages that front ends of Claude Code read, whichever provider the events come from.

A pure function of the events: the same ones always give the same messages. Shapes as claude-agent-sdk 0.2.187 gives
them (``system``, ``assistant``, ``user``, ``result``). Deltas, counts of tokens and approvals have no message there:
who shows them reads the events.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from alive.agent.v1 import error_pb2, event_pb2, item_pb2, options_pb2, usage_pb2

Message = dict[str, Any]

_MODES = {
    options_pb2.APPROVAL_POLICY_PLAN: "plan",
    options_pb2.APPROVAL_POLICY_ASK: "default",
    options_pb2.APPROVAL_POLICY_ACCEPT_EDITS: "acceptEdits",
}

_SERVER_STATES = {
    event_pb2.MCP_SERVER_STATUS_READY: "connected",
    event_pb2.MCP_SERVER_STATUS_STARTING: "pending",
}

_ERRORS = {
    error_pb2.FAILURE_REASON_AUTH: "authentication_failed",
    error_pb2.FAILURE_REASON_QUOTA: "billing_error",
    error_pb2.FAILURE_REASON_RATE_LIMIT: "rate_limit",
    error_pb2.FAILURE_REASON_INVALID_REQUEST: "invalid_request",
    error_pb2.FAILURE_REASON_OVERLOADED: "server_error",
    error_pb2.FAILURE_REASON_NETWORK: "server_error",
}

_SUBTYPES = {
    error_pb2.FAILURE_REASON_MAX_TURNS: "error_max_turns",
    error_pb2.FAILURE_REASON_BUDGET: "error_max_budget_usd",
    error_pb2.FAILURE_REASON_OUTPUT_INVALID: "error_max_structured_output_retries",
}

_STEPS = {
    item_pb2.PLAN_STEP_STATE_IN_PROGRESS: "in_progress",
    item_pb2.PLAN_STEP_STATE_COMPLETED: "completed",
}

_STOPS = {
    event_pb2.STOP_REASON_MAX_TOKENS: "max_tokens",
    event_pb2.STOP_REASON_REFUSAL: "refusal",
}


class ClaudeMessages:
    """The messages of one turn."""

    def __init__(self) -> None:
        self._model = ""
        self._text = ""
        self._shown: set[str] = set()
        self._retracted: set[str] = set()

    def project(self, event: event_pb2.Event) -> Iterator[Message]:
        """Yield the messages that an event becomes, none for many."""
        for message in self._messages(event):
            message["session_id"] = event.session_id
            message.setdefault("uuid", f"{event.turn_id}-{event.seq}-{message.pop('part', 1)}")
            yield message

    def _messages(self, event: event_pb2.Event) -> Iterator[Message]:
        match event.WhichOneof("kind"):
            case "turn_started":
                self._model = event.turn_started.model
                yield _init(event.turn_started)
            case "notice":
                yield _informational(event.notice)
            case "item_started":
                yield from self._begin(event.item_started.item)
            case "item_retracted":
                self._retracted.add(event.item_retracted.item_id)
            case "item_completed" if event.item_completed.item.item_id not in self._retracted:
                yield from self._complete(event.item_completed.item)
            case "turn_completed" | "turn_failed" | "turn_interrupted":
                yield from self._end(event)

    def _begin(self, item: item_pb2.Item) -> Iterator[Message]:
        """Yield a tool's use as soon as its input is known."""
        if item.command.command or item.tool_call.arguments_json or item.subagent.description:
            yield from self._uses(item)

    def _complete(self, item: item_pb2.Item) -> Iterator[Message]:
        match item.WhichOneof("content"):
            case "message" if item.message.role == item_pb2.ROLE_AGENT:
                self._text = self._text if item.parent_item_id else item.message.text
                yield self._assistant(item, {"type": "text", "text": item.message.text})
            case "message":
                return  # The front end shows what its user said by itself.
            case "reasoning":
                yield self._assistant(item, {"type": "thinking", "thinking": item.reasoning.text, "signature": ""})
            case "context_compaction":
                yield {"type": "system", "subtype": "compact_boundary", "compact_metadata": {"trigger": "auto"}}
            case _:
                yield from self._uses(item)
                yield from _results(item)

    def _uses(self, item: item_pb2.Item) -> Iterator[Message]:
        if item.item_id in self._shown:
            return
        self._shown.add(item.item_id)
        for part, (name, arguments) in enumerate(_tools(item), start=1):
            block = {"type": "tool_use", "id": _tool_id(item, part), "name": name, "input": arguments}
            yield {**self._assistant(item, block), "part": part}

    def _assistant(self, item: item_pb2.Item, block: Message) -> Message:
        message = {"id": item.item_id, "type": "message", "role": "assistant", "model": self._model, "content": [block]}
        return {"type": "assistant", "message": message, "parent_tool_use_id": item.parent_item_id or None}

    def _end(self, event: event_pb2.Event) -> Iterator[Message]:
        kind = str(event.WhichOneof("kind"))
        terminal = getattr(event, kind)
        subtype, errors, stop_reason = "success", [], "end_turn"
        if kind == "turn_failed":
            error = event.turn_failed.error
            subtype, errors = _SUBTYPES.get(error.reason, "error_during_execution"), [error.message]
            yield {**self._failed(error), "part": 1}
        elif kind == "turn_interrupted":
            subtype = "error_during_execution"
        elif event.turn_completed.stop_reason == event_pb2.STOP_REASON_MAX_TURNS:
            subtype = "error_max_turns"
        else:
            stop_reason = _STOPS.get(event.turn_completed.stop_reason, stop_reason)
        result: Message = {
            "type": "result",
            "subtype": subtype,
            "is_error": subtype != "success",
            "result": self._text,
            "errors": errors,
            "stop_reason": stop_reason,
            "num_turns": terminal.usage.model_requests,
            "duration_ms": terminal.duration.ToMilliseconds(),
            "usage": _usage(terminal.usage),
            "part": 2,
        }
        if terminal.usage.HasField("cost"):
            result["total_cost_usd"] = terminal.usage.cost.nano_usd / 1e9
        if kind == "turn_completed" and event.turn_completed.structured_output:
            result["structured_output"] = json.loads(event.turn_completed.structured_output)
        yield result

    def _failed(self, error: error_pb2.TurnError) -> Message:
        message = {
            "id": "error",
            "type": "message",
            "role": "assistant",
            "model": "<synthetic>",
            "content": [{"type": "text", "text": error.message}],
        }
        kind = _ERRORS.get(error.reason, "unknown")
        return {"type": "assistant", "message": message, "parent_tool_use_id": None, "error": kind}


def project(events: Iterable[event_pb2.Event]) -> Iterator[Message]:
    """Yield the messages of a turn's events, from the first on."""
    messages = ClaudeMessages()
    for event in events:
        yield from messages.project(event)


def _init(started: event_pb2.TurnStarted) -> Message:
    servers = [
        {"name": server.name, "status": _SERVER_STATES.get(server.status, "failed")} for server in started.mcp_servers
    ]
    return {
        "type": "system",
        "subtype": "init",
        "model": started.model,
        "tools": list(started.tools),
        "mcp_servers": servers,
        "permissionMode": _MODES.get(started.approval_policy, "bypassPermissions"),
    }


def _informational(notice: event_pb2.Notice) -> Message:
    level = "warning" if notice.severity == event_pb2.SEVERITY_WARNING else "info"
    return {"type": "system", "subtype": "informational", "content": notice.message, "level": level}


def _tool_id(item: item_pb2.Item, part: int) -> str:
    return item.item_id if part == 1 else f"{item.item_id}-{part}"


def _tools(item: item_pb2.Item) -> Iterator[tuple[str, Message]]:
    """Yield Claude Code's names of the tools that an item stands for, with their inputs."""
    return _TOOLS[str(item.WhichOneof("content"))](item)


def _command(item: item_pb2.Item) -> Iterator[tuple[str, Message]]:
    yield "Bash", {"command": item.command.command}


def _file_change(item: item_pb2.Item) -> Iterator[tuple[str, Message]]:
    for change in item.file_change.changes:
        name = "Write" if change.kind == item_pb2.FILE_CHANGE_KIND_ADD else "Edit"
        yield name, {"file_path": change.new_path or change.path, "diff": change.diff}


def _tool_call(item: item_pb2.Item) -> Iterator[tuple[str, Message]]:
    call = item.tool_call
    name = f"mcp__{call.server}__{call.tool}" if call.server else call.tool
    yield name, json.loads(call.arguments_json or "{}")


def _plan(item: item_pb2.Item) -> Iterator[tuple[str, Message]]:
    if item.plan.text:
        yield "ExitPlanMode", {"plan": item.plan.text}
        return
    todos = [
        {"content": step.text, "status": _STEPS.get(step.state, "pending"), "activeForm": step.text}
        for step in item.plan.steps
    ]
    yield "TodoWrite", {"todos": todos}


def _web_search(item: item_pb2.Item) -> Iterator[tuple[str, Message]]:
    yield "WebSearch", {"query": item.web_search.query}


def _subagent(item: item_pb2.Item) -> Iterator[tuple[str, Message]]:
    yield "Agent", {"description": item.subagent.description, "prompt": item.subagent.description}


def _image(item: item_pb2.Item) -> Iterator[tuple[str, Message]]:
    yield "Read", {"file_path": item.image.path}


_TOOLS: dict[str, Callable[[item_pb2.Item], Iterator[tuple[str, Message]]]] = {
    "command": _command,
    "file_change": _file_change,
    "tool_call": _tool_call,
    "plan": _plan,
    "web_search": _web_search,
    "subagent": _subagent,
    "image": _image,
}


def _results(item: item_pb2.Item) -> Iterator[Message]:
    is_error = item.status != item_pb2.ITEM_STATUS_COMPLETED
    for part, _ in enumerate(_tools(item), start=1):
        block = {
            "type": "tool_result",
            "tool_use_id": _tool_id(item, part),
            "content": _result_text(item),
            "is_error": is_error,
        }
        message = {"role": "user", "content": [block]}
        # Behind the uses of the same event.
        yield {
            "type": "user",
            "message": message,
            "parent_tool_use_id": item.parent_item_id or None,
            "part": 100 + part,
        }


def _result_text(item: item_pb2.Item) -> str:
    match item.WhichOneof("content"):
        case "command":
            return item.command.output
        case "file_change":
            return "\n".join(change.diff for change in item.file_change.changes)
        case "tool_call":
            return item.tool_call.error or "\n".join(part.text for part in item.tool_call.result if part.text)
        case "web_search":
            return "\n".join(f"{page.title} {page.url}" for page in item.web_search.results)
        case "subagent":
            return item.subagent.result
        case _:
            return ""


def _usage(usage: usage_pb2.Usage) -> Message:
    """Return counts as Anthropic gives them: input that was not cached apart from the rest."""
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    return {
        "input_tokens": max(0, usage.input_tokens - cached - written),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": usage.output_tokens,
    }
