"""Turns a turn's request into the parameters of Codex's threads and turns. What has none is refused in `refusals`."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from alive.agent.v1 import agent_service_pb2, options_pb2, provider_pb2
from alive_codex import tools
from alive_codex.models import DEFAULT, MODELS
from alive_codex.prices import PRICES
from alive_codex.settings import CodexSettings
from alive_kit.inputs import read_image
from alive_kit.provider import PLAN_INSTRUCTIONS, TurnSpec, Unsupported
from alive_kit.refusals import model_refusals
from alive_kit.validation import image_type
from alive_kit.walls import WallLevel

_PROVIDER = "alive"
"""The name under which the CLI knows the endpoint."""

_SANDBOXES = {
    options_pb2.SANDBOX_READ_ONLY: "read-only",
    options_pb2.SANDBOX_WORKSPACE_WRITE: "workspace-write",
    options_pb2.SANDBOX_FULL_ACCESS: "danger-full-access",
}


def refusals(request: agent_service_pb2.StartTurnRequest, *, boxed: bool) -> Iterator[Unsupported]:
    """Yield every option that would not be honoured, in a box or without one."""
    permissions = request.permissions
    if permissions.extra_directories:
        yield Unsupported(field="permissions.extra_directories", why="an agent has its own workspace only")
    if not boxed:
        yield from _sandbox_refusals(request)
    yield from tools.refusals(request)
    yield from model_refusals(request, chosen_model(request.agent), MODELS, PRICES)


def asks(request: agent_service_pb2.StartTurnRequest) -> bool:
    """Whether the caller is asked for permission."""
    policy = request.permissions.approval_policy
    return policy in {options_pb2.APPROVAL_POLICY_ASK, options_pb2.APPROVAL_POLICY_ACCEPT_EDITS}


def chosen_model(agent: options_pb2.AgentOptions) -> str:
    """Return the model to ask."""
    return agent.model or DEFAULT


def sandbox_of(request: agent_service_pb2.StartTurnRequest, level: WallLevel) -> "options_pb2.Sandbox.ValueType":
    """Return the sandbox in force."""
    if request.permissions.approval_policy == options_pb2.APPROVAL_POLICY_PLAN:
        return options_pb2.SANDBOX_READ_ONLY
    is_open = level == provider_pb2.WALL_LEVEL_NONE and asks(request)
    return request.permissions.sandbox or (
        options_pb2.SANDBOX_FULL_ACCESS if is_open else options_pb2.SANDBOX_WORKSPACE_WRITE
    )


def thread_params(
    spec: TurnSpec, settings: CodexSettings, key: str, marker: Mapping[str, str], level: WallLevel
) -> dict[str, Any]:
    """Return what opens or resumes a thread. It goes over the CLI's standard input and is not written to disk."""
    request = spec.request
    params: dict[str, Any] = {
        "cwd": str(spec.workspace.path),
        "model": chosen_model(request.agent),
        "modelProvider": _PROVIDER,
        "approvalPolicy": "untrusted" if asks(request) else "never",
        "approvalsReviewer": "user",
        "sandbox": _inner_sandbox(request, level),
        "config": _config(spec, settings, key, marker),
        # Tells of commands that the CLI ran without an item for them.
        "experimentalRawEvents": True,
    }
    prompt = request.agent.system_prompt
    if prompt.WhichOneof("text") == "replace":
        params["baseInstructions"] = prompt.replace
    plan = PLAN_INSTRUCTIONS if request.permissions.approval_policy == options_pb2.APPROVAL_POLICY_PLAN else ""
    if append := "\n\n".join(text for text in (prompt.append, spec.project_instructions, plan) if text):
        params["developerInstructions"] = append
    if request.ephemeral:
        params["ephemeral"] = True
    return params


def turn_params(spec: TurnSpec) -> dict[str, Any]:
    """Return what starts a turn beside its input."""
    agent = spec.request.agent
    params: dict[str, Any] = {} if tools.has_hands(spec.request.permissions.tools) else {"environments": []}
    if agent.effort:
        params["effort"] = agent.effort
    if agent.output_schema:
        params["outputSchema"] = json.loads(agent.output_schema)
    return params


def turn_input(spec: TurnSpec) -> list[dict[str, Any]]:
    """Return the input of a turn."""
    return [turn_part(part, spec) for part in spec.input]


def _inner_sandbox(request: agent_service_pb2.StartTurnRequest, level: WallLevel) -> str:
    """Return Codex's own sandbox, which stands within the box.

    In a box that has no /proc of its own it cannot stand. And a command that the caller allowed and that it stopped is
    run a second time, outside of it (codex 0.163.0): where the caller is asked, the box is the only one.
    """
    if level == provider_pb2.WALL_LEVEL_SHARED_PROC or asks(request):
        return _SANDBOXES[options_pb2.SANDBOX_FULL_ACCESS]
    return _SANDBOXES[sandbox_of(request, level)]


def is_walled(request: agent_service_pb2.StartTurnRequest, level: WallLevel) -> bool:
    """Whether commands run in Codex's own sandbox."""
    return _inner_sandbox(request, level) != _SANDBOXES[options_pb2.SANDBOX_FULL_ACCESS]


def _sandbox_refusals(request: agent_service_pb2.StartTurnRequest) -> Iterator[Unsupported]:
    permissions, sandbox = request.permissions, sandbox_of(request, provider_pb2.WALL_LEVEL_NONE)
    if asks(request) and sandbox != options_pb2.SANDBOX_FULL_ACCESS:
        why = "where the caller is asked, only FULL_ACCESS: what was allowed may run outside of Codex's own sandbox"
        yield Unsupported(field="permissions.sandbox", why=why)
    if not permissions.HasField("network"):
        return
    if permissions.network and sandbox == options_pb2.SANDBOX_READ_ONLY:
        yield Unsupported(field="permissions.network", why="commands of a read-only sandbox have no network")
    if not permissions.network and sandbox == options_pb2.SANDBOX_FULL_ACCESS:
        yield Unsupported(field="permissions.network", why="without a sandbox it cannot be cut off")


def _config(spec: TurnSpec, settings: CodexSettings, key: str, marker: Mapping[str, str]) -> dict[str, Any]:
    permissions = spec.request.permissions
    rules = permissions.tools
    has_questions = asks(spec.request) and tools.exists("request_user_input", rules)
    return {
        "features": {"default_mode_request_user_input": has_questions},
        # Or each turn that asks is warned that the feature is new.
        "suppress_unstable_features_warning": True,
        "tools": {
            "experimental_request_user_input": {"enabled": has_questions},
            "update_plan": {"enabled": tools.exists("update_plan", rules)},
        },
        "model_providers": {_PROVIDER: _endpoint(settings, key)},
        # Otherwise the CLI trusts a workspace that has a .codex directory, and runs what it configures.
        "projects": {str(spec.workspace.path): {"trust_level": "untrusted"}},
        # The same as for Claude: instruction files of the workspace arrive only where its settings say so.
        "project_doc_max_bytes": 0,
        # Skills that lie in a workspace would be listed to the model, trusted or not (0.163.0).
        "skills": {"include_instructions": False},
        "web_search": "live" if permissions.web_search and tools.exists("web_search", rules) else "disabled",
        "shell_environment_policy": {"inherit": "core", "set": dict(marker)},
        "sandbox_workspace_write": {"network_access": permissions.network, "exclude_slash_tmp": True},
        "mcp_servers": {server.name: _mcp_server(server, spec, marker) for server in spec.mcp_servers},
    }


def _endpoint(settings: CodexSettings, key: str) -> dict[str, Any]:
    return {
        "name": _PROVIDER,
        "base_url": settings.openai_base_url,
        "wire_api": "responses",
        "experimental_bearer_token": key,
        "supports_websockets": False,
        # Retries multiply: of requests there are none, so that of streams are all there are.
        "request_max_retries": 0,
        "stream_max_retries": settings.codex_max_retries,
        "stream_idle_timeout_ms": round(settings.codex_silence_seconds * 1000),
    }


def _mcp_server(server: options_pb2.McpServer, spec: TurnSpec, marker: Mapping[str, str]) -> dict[str, Any]:
    permissions = spec.request.permissions
    config: dict[str, Any] = {
        "required": server.required,
        "startup_timeout_sec": server.startup_timeout.ToNanoseconds() / 1e9 or 10.0,
        "tool_timeout_sec": server.tool_timeout.ToNanoseconds() / 1e9 or 60.0,
        **tools.server_rules(server, permissions.tools),
    }
    if asks(spec.request):
        config["default_tools_approval_mode"] = "auto"  # Asks unless a tool says that it only reads.
    elif permissions.approval_policy != options_pb2.APPROVAL_POLICY_PLAN:
        # With the policy that never asks, tools that are not read-only are refused unless approved here.
        config["default_tools_approval_mode"] = "approve"
    if server.HasField("http"):
        return {**config, "url": server.http.url, "http_headers": dict(server.http.headers)}
    environment = {**server.stdio.env, **marker}
    return {**config, "command": server.stdio.command, "args": list(server.stdio.args), "env": environment}


def turn_part(part: options_pb2.InputPart, spec: TurnSpec) -> dict[str, Any]:
    """Return one part of a turn's input."""
    match part.WhichOneof("content"):
        case "image":
            data = read_image(part.image, spec.workspace)
            url = f"data:{image_type(data)};base64,{base64.b64encode(data).decode()}"
            return {"type": "image", "url": url}
        case "file":
            return {"type": "text", "text": f"Look at the file {part.file.path}."}
        case _:
            return {"type": "text", "text": part.text}
