"""Translates Claude Code's system messages, found by their subtype. As of Claude Code 2.1.330."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from claude_agent_sdk import SystemMessage

from alive.agent.v1 import event_pb2, item_pb2, options_pb2
from alive_kit.events import item_completed, item_started, model_retry, notice, unknown_vendor_event
from alive_kit.provider import TurnSpec

Data = Mapping[str, Any]
Events = Iterator[event_pb2.Event]

QUIET = {
    "background_tasks_changed": "not shown: what runs beside the turn ends with it",
    "per_turn_effort_changed": "not shown: it was asked for",
    "status": "not shown: that a request runs shows in its items",
    "thinking_tokens": "not shown: counted in usage",
}
"""Subtypes that are left out, and why."""

TRANSLATED = {
    "init": "turn_started, with notices for MCP servers that failed and for another model",
    "api_retry": "notice model_retry",
    "compact_boundary": "item context_compaction",
    "informational": "notice vendor_notice",
    "model_fallback": "notice model_changed",
    "permission_denied": "notice tool_denied; the item of its tool call is declined",
    "task_notification": "notice subagent",
    "task_progress": "notice subagent",
    "task_started": "notice subagent",
    "task_updated": "notice subagent",
}
"""Subtypes that become events, and which."""

_LATE = "it did not answer in time"


def translate_system(message: SystemMessage, spec: TurnSpec) -> Events:
    """Yield what a system message means."""
    if message.subtype == "init":
        yield from begun(message.data, spec)
    elif message.subtype in _TRANSLATIONS:
        yield _TRANSLATIONS[message.subtype](message.data)
    elif message.subtype == "compact_boundary":
        yield from _compaction(message.data)
    elif message.subtype not in QUIET:
        yield unknown_vendor_event(f"system/{message.subtype}")


def server_state(server: Data) -> event_pb2.McpServerState:
    """Return how an MCP server is, by what the CLI says of it once each was waited for."""
    name, said = str(server.get("name")), str(server.get("status"))
    if said == "connected":
        return event_pb2.McpServerState(name=name, status=event_pb2.MCP_SERVER_STATUS_READY)
    error = _LATE if said == "pending" else f"it is {said}"
    return event_pb2.McpServerState(name=name, status=event_pb2.MCP_SERVER_STATUS_FAILED, error=error)


def begun(state: Data, spec: TurnSpec) -> Events:
    """Yield that a turn has started, by what the CLI says of itself."""
    request = spec.request
    started = event_pb2.TurnStarted(
        model=state.get("model", ""),
        resumed=spec.resume is not None,
        approval_policy=request.permissions.approval_policy or options_pb2.APPROVAL_POLICY_BYPASS,
        sandbox=request.permissions.sandbox or options_pb2.SANDBOX_FULL_ACCESS,
        tools=state.get("tools", []),
        mcp_servers=_servers(state),
    )
    yield event_pb2.Event(turn_started=started)
    yield from _failed(started.mcp_servers)
    yield from _other_model(request.agent.model, started.model)


def changed(before: Data, state: Data) -> Events:
    """Yield what the CLI says of itself that is not as it was when the turn started."""
    known = _servers(before)
    yield from _failed(server for server in _servers(state) if server not in known)
    yield from _other_model(before.get("model", ""), state.get("model", ""))


def _servers(state: Data) -> list[event_pb2.McpServerState]:
    return [server_state(server) for server in state.get("mcp_servers", [])]


def _failed(servers: Iterable[event_pb2.McpServerState]) -> Events:
    for state in servers:
        if state.status == event_pb2.MCP_SERVER_STATUS_FAILED:
            yield notice(
                "mcp_server_failed",
                f"The MCP server {state.name} did not start; the turn goes on without its tools.",
                severity=event_pb2.SEVERITY_WARNING,
                server=state.name,
            )


def _other_model(asked: str, model: str) -> Events:
    if asked and model != asked:
        yield notice("model_changed", f"{model} answers.", asked=asked, model=model)


def _api_retry(data: Data) -> event_pb2.Event:
    status = data.get("error_status")
    return model_retry(
        f"The model's vendor answered {status}; asking again." if status else "The connection broke; asking again.",
        attempt=int(data.get("attempt", 1)),
        max_attempts=data.get("max_retries"),
        delay_ms=float(data.get("retry_delay_ms", 0)),
    )


def _model_fallback(data: Data) -> event_pb2.Event:
    asked, model = str(data.get("original_model")), str(data.get("fallback_model"))
    message = f"{model} answers instead of {asked}."
    return notice("model_changed", message, severity=event_pb2.SEVERITY_WARNING, asked=asked, model=model)


def _permission_denied(data: Data) -> event_pb2.Event:
    tool = str(data.get("tool_name", ""))
    return notice("tool_denied", f"The agent may not use {tool} here.", tool=tool)


def _informational(data: Data) -> event_pb2.Event:
    return notice("vendor_notice", str(data.get("content", "")))


def _task(data: Data) -> event_pb2.Event:
    status = str(data.get("status") or data.get("subtype") or "")
    return notice("subagent", str(data.get("description") or data.get("summary") or status), status=status)


_TRANSLATIONS: dict[str, Callable[[Data], event_pb2.Event]] = {
    "api_retry": _api_retry,
    "model_fallback": _model_fallback,
    "permission_denied": _permission_denied,
    "informational": _informational,
    "task_started": _task,
    "task_progress": _task,
    "task_updated": _task,
    "task_notification": _task,
}


def _compaction(data: Data) -> Events:
    item = item_pb2.Item(item_id=f"compaction-{data.get('uuid', '')}")
    item.context_compaction.SetInParent()
    yield item_started(item)
    yield item_completed(item)
