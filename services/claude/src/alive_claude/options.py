"""Turns a turn's request into Claude Code's options. What has no option here is refused in `refusals`."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions
from claude_agent_sdk.types import (
    CanUseTool,
    HookContext,
    HookInput,
    HookJSONOutput,
    HookMatcher,
    PermissionMode,
    SystemPromptFile,
    SystemPromptPreset,
)

from alive.agent.v1 import agent_service_pb2, options_pb2
from alive_claude.approvals import QUESTIONS
from alive_claude.models import DEFAULT, MODELS
from alive_claude.prices import PRICES
from alive_kit.launch import Launch
from alive_kit.provider import PLAN_INSTRUCTIONS, TurnSpec, Unsupported
from alive_kit.refusals import model_refusals, tool_refusals

_READING = ("Read", "Glob", "Grep", "TodoWrite")
_WRITING = ("Bash", "Edit", "Write", "NotebookEdit", "Agent")
_ASKING = frozenset({options_pb2.APPROVAL_POLICY_ASK, options_pb2.APPROVAL_POLICY_ACCEPT_EDITS})
WEB = ("WebSearch", "WebFetch")
_FILES = frozenset({"Read", "Glob", "Grep", "Edit", "Write", "NotebookEdit"})

_MESSAGE_BYTES = 64 << 20
"""The largest message of the CLI; the SDK's own limit of 1 MiB breaks on a large file (0.2.187)."""


def refusals(request: agent_service_pb2.StartTurnRequest, *, boxed: bool) -> Iterator[Unsupported]:
    """Yield every option that would not be honoured, in a box or without one."""
    permissions = request.permissions
    if not boxed and permissions.sandbox not in {options_pb2.SANDBOX_UNSPECIFIED, options_pb2.SANDBOX_FULL_ACCESS}:
        yield Unsupported(field="permissions.sandbox", why="without a launcher there is no box; only FULL_ACCESS")
    if permissions.extra_directories:
        yield Unsupported(field="permissions.extra_directories", why="an agent has its own workspace only")
    if not boxed and permissions.HasField("network") and not permissions.network:
        yield Unsupported(field="permissions.network", why="without a launcher there is no box; it cannot be cut off")
    yield from tool_refusals(request, (*_READING, *_WRITING, *WEB, QUESTIONS))
    yield from model_refusals(request, request.agent.model or DEFAULT, MODELS, PRICES)


def cli_options(
    spec: TurnSpec, launch: Launch, on_stderr: Callable[[str], None], can_use_tool: CanUseTool
) -> ClaudeAgentOptions:
    """Return the options that start the CLI for a turn."""
    request = spec.request
    options = ClaudeAgentOptions(
        cli_path=launch.executable,
        cwd=launch.cwd,
        # The workspace is not trusted: with the SDK's default its settings could run hooks and redirect the API.
        setting_sources=[],
        strict_mcp_config=True,
        resume=spec.resume.native_session if spec.resume else None,
        fork_session=bool(spec.resume and spec.resume.fork_at is not None),
        resume_session_at=(spec.resume and spec.resume.fork_at) or None,
        model=request.agent.model or None,
        effort=request.agent.effort or None,  # type: ignore[arg-type]  # checked against the model's efforts
        system_prompt=_system_prompt(spec, launch),
        output_format=_output_format(request.agent),
        permission_mode=_permission_mode(request),
        tools=builtin_tools(request.permissions),
        allowed_tools=list(_allowed(spec)),
        disallowed_tools=list(_denied(spec)),
        mcp_servers=_mcp_config(spec, launch),
        max_turns=request.limits.max_turns or None,
        include_partial_messages=True,
        forward_subagent_text=True,
        max_buffer_size=_MESSAGE_BYTES,
        stderr=on_stderr,
        extra_args=_extra_arguments(spec, launch),
    )
    if asks(request) or is_plan(request):
        options.can_use_tool = can_use_tool
    if asks(request):
        # Without it the CLI runs commands without asking that it thinks only read.
        options.hooks = {"PreToolUse": [HookMatcher(matcher="Bash", hooks=[_ask_always])]}
    options.env = launch.variables()
    return options


async def _ask_always(_input: HookInput, _tool_use_id: str | None, _context: HookContext) -> HookJSONOutput:
    return {"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "ask"}}


def asks(request: agent_service_pb2.StartTurnRequest) -> bool:
    """Whether the caller is asked for permission."""
    return request.permissions.approval_policy in _ASKING


def is_plan(request: agent_service_pb2.StartTurnRequest) -> bool:
    """Whether nothing may be changed."""
    return request.permissions.approval_policy == options_pb2.APPROVAL_POLICY_PLAN


def may_use(request: agent_service_pb2.StartTurnRequest, name: str) -> bool:
    """Whether a tool may be called at all, when the caller lets it."""
    server_name = name.split("__")[1] if name.startswith("mcp__") else ""
    allowed = request.permissions.tools.allowed
    own = next((server.tools.allowed for server in request.mcp_servers if server.name == server_name), ())
    if server_name:
        return (not allowed or name in allowed) and (not own or name.removeprefix(f"mcp__{server_name}__") in own)
    return True  # Only tools that may be used exist.


def builtin_tools(permissions: options_pb2.Permissions) -> list[str]:
    """Return the names of the CLI's own tools that exist for the agent."""
    tools = [*_READING]
    if permissions.approval_policy != options_pb2.APPROVAL_POLICY_PLAN:
        tools += _WRITING
    if permissions.web_search:
        tools += WEB
    if permissions.approval_policy in _ASKING:
        tools.append(QUESTIONS)
    allowed, denied = set(permissions.tools.allowed), set(permissions.tools.denied)
    return [tool for tool in tools if (not allowed or tool in allowed) and tool not in denied]


def has_file_tools(permissions: options_pb2.Permissions) -> bool:
    """Whether any of the CLI's own tools for files exists for the agent."""
    return not _FILES.isdisjoint(builtin_tools(permissions))


def _permission_mode(request: agent_service_pb2.StartTurnRequest) -> PermissionMode:
    if asks(request) or is_plan(request):
        return "default"  # In its own plan mode the CLI refuses tools that only read, too (2.1.330).
    if _has_allow_list(request):
        return "dontAsk"  # What is not allowed by name is refused instead of asked.
    return "bypassPermissions"


def _has_allow_list(request: agent_service_pb2.StartTurnRequest) -> bool:
    return bool(request.permissions.tools.allowed) or any(server.tools.allowed for server in request.mcp_servers)


def _allowed(spec: TurnSpec) -> Iterator[str]:
    request = spec.request
    if asks(request) or is_plan(request) or not _has_allow_list(request):
        return
    yield from builtin_tools(request.permissions)
    wanted = set(request.permissions.tools.allowed)
    for server in request.mcp_servers:
        names = [f"mcp__{server.name}__{tool}" for tool in server.tools.allowed]
        if not wanted:
            yield from names or [f"mcp__{server.name}"]
        else:
            of_server = {name for name in wanted if name.startswith(f"mcp__{server.name}__")}
            yield from of_server.intersection(names) if names else of_server


def _denied(spec: TurnSpec) -> Iterator[str]:
    yield from spec.request.permissions.tools.denied
    for server in spec.request.mcp_servers:
        yield from (f"mcp__{server.name}__{tool}" for tool in server.tools.denied)


def _system_prompt(spec: TurnSpec, launch: Launch) -> SystemPromptPreset | SystemPromptFile:
    """Return the system prompt. Long texts go through a file: an argument is limited to 128 KiB and world-readable."""
    if spec.request.agent.system_prompt.WhichOneof("text") == "replace":
        text = _joined(spec.request.agent.system_prompt.replace, spec.project_instructions, _plan(spec))
        return {"type": "file", "path": launch.hand_over(_prompt_file(spec), text)}
    return {"type": "preset", "preset": "claude_code"}


def _extra_arguments(spec: TurnSpec, launch: Launch) -> dict[str, str | None]:
    # Without it a resumed session keeps the prompt of its first turn.
    arguments: dict[str, str | None] = {"system-prompt-snapshot": "off"}
    append = _joined(spec.request.agent.system_prompt.append, spec.project_instructions, _plan(spec))
    if append and spec.request.agent.system_prompt.WhichOneof("text") != "replace":
        arguments["append-system-prompt-file"] = launch.hand_over(_prompt_file(spec), append)
    if spec.request.ephemeral:
        arguments["no-session-persistence"] = None
    return arguments


def _output_format(agent: options_pb2.AgentOptions) -> dict[str, Any] | None:
    return {"type": "json_schema", "schema": json.loads(agent.output_schema)} if agent.output_schema else None


def _mcp_config(spec: TurnSpec, launch: Launch) -> str | dict[str, Any]:
    """Return where the MCP servers are declared: a private file, because arguments are world-readable."""
    if not spec.mcp_servers:
        return {}
    servers = {server.name: _mcp_server(server, launch) for server in spec.mcp_servers}
    path = spec.workspace.tmp / f"{spec.request.turn_id}.mcp.json"
    return launch.hand_over(path, json.dumps({"mcpServers": servers}))


def _mcp_server(server: options_pb2.McpServer, launch: Launch) -> dict[str, Any]:
    timeout = {"timeout": server.tool_timeout.ToMilliseconds() or 60_000}
    if server.HasField("http"):
        return {"type": "http", "url": server.http.url, "headers": dict(server.http.headers), **timeout}
    return {
        "type": "stdio",
        "command": server.stdio.command,
        "args": list(server.stdio.args),
        "env": {**server.stdio.env, **launch.marker},
        **timeout,
    }


def _plan(spec: TurnSpec) -> str:
    return PLAN_INSTRUCTIONS if is_plan(spec.request) else ""


def _prompt_file(spec: TurnSpec) -> Path:
    return spec.workspace.tmp / f"{spec.request.turn_id}.prompt.md"


def _joined(*texts: str) -> str:
    return "\n\n".join(_nonempty(texts))


def _nonempty(texts: Iterable[str]) -> Iterator[str]:
    return (text for text in texts if text)
