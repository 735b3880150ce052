"""Which tools Codex offers, by the rules of a turn. As of codex 0.163.0."""

from collections.abc import Iterable, Iterator

from alive.agent.v1 import agent_service_pb2, options_pb2
from alive_kit.provider import Unsupported
from alive_kit.refusals import tool_refusals

_HANDS = ("exec_command", "write_stdin", "apply_patch", "view_image")
"""Tools that work in an environment: where a turn has one they all exist, where it has none they do not."""

_OWN = (*_HANDS, "update_plan", "web_search", "request_user_input")


def refusals(request: agent_service_pb2.StartTurnRequest) -> Iterator[Unsupported]:
    """Yield rules that would not be kept."""
    yield from tool_refusals(request, _OWN)
    kept = [name for name in _HANDS if exists(name, request.permissions.tools)]
    if kept and len(kept) < len(_HANDS):
        why = f"{', '.join(_HANDS)} come together: name all of them or none"
        yield Unsupported(field="permissions.tools", why=why)


def exists(name: str, rules: options_pb2.ToolRules) -> bool:
    """Whether a tool exists by the rules."""
    return (not rules.allowed or name in rules.allowed) and name not in rules.denied


def has_hands(rules: options_pb2.ToolRules) -> bool:
    """Whether there are tools that run commands and change files."""
    return exists(_HANDS[0], rules)


def server_rules(server: options_pb2.McpServer, rules: options_pb2.ToolRules) -> dict[str, list[str]]:
    """Return which tools of an MCP server exist: those that its own rules and the turn's let exist."""
    prefix = f"mcp__{server.name}__"
    config = {"disabled_tools": [*server.tools.denied, *_without(prefix, rules.denied)]}
    named = set(_without(prefix, rules.allowed))
    if server.tools.allowed and rules.allowed:
        config["enabled_tools"] = sorted(named.intersection(server.tools.allowed))
    elif server.tools.allowed or rules.allowed:
        config["enabled_tools"] = sorted(named.union(server.tools.allowed))
    return config


def _without(prefix: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
