"""Knows which tools leave the CLI as it was. As of Claude Code 2.1.330.

Commands and stdio MCP servers run beside the CLI, under its UID and in its home: what runs there can change both, so
that the CLI cannot be shown to be the one that was started. Tools that the CLI carries out itself and that only read,
and MCP servers that are elsewhere, cannot.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from alive_claude.approvals import QUESTIONS
from alive_kit.provider import TurnSpec

_READING = frozenset({"Read", "Glob", "Grep", "TodoWrite", "WebSearch", "StructuredOutput", QUESTIONS})


def tools_called(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the tools that a message of the CLI says are called, by the agent or by a subagent."""
    message = raw.get("message")
    content = message.get("content") if raw.get("type") == "assistant" and isinstance(message, dict) else None
    for block in content if isinstance(content, list) else []:
        if str(block.get("type")).endswith("tool_use"):
            yield str(block.get("name"))


def leaves_no_trace(tool: str, spec: TurnSpec) -> bool:
    """Whether nothing of a call of a tool can be left in the CLI or its home."""
    remote = (f"mcp__{server.name}__" for server in spec.mcp_servers if server.HasField("http"))
    return tool in _READING or tool.startswith(tuple(remote))
