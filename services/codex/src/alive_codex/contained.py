"""Knows which items leave the CLI as it was. As of codex 0.163.0.

Codex runs commands and patches in a sandbox of its own, with processes of its own and a home that they cannot write:
nothing there can change the CLI. Without that sandbox they run beside it, as stdio MCP servers do, under its UID and in
its home, and the CLI cannot be shown to be the one that was started.
"""

from collections.abc import Mapping
from typing import Any

from alive_codex.app_server import Notification
from alive_kit.provider import TurnSpec

_SPEAKING = frozenset({"userMessage", "agentMessage", "reasoning", "plan", "webSearch", "contextCompaction"})
_WALLED = frozenset({"commandExecution", "fileChange"})
_WALLED_CALLS = frozenset({"exec_command", "write_stdin", "apply_patch"})
_CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call"})
_SPEAKING_CALLS = frozenset({"update_plan", "request_user_input"})


class Trace:
    """What the turns of an agent may have left behind."""

    def __init__(self, spec: TurnSpec, *, is_walled: bool) -> None:
        self._is_walled = is_walled
        self._remote = frozenset(server.name for server in spec.mcp_servers if server.HasField("http"))
        self.is_clean = True
        """Whether nothing that ran can have changed the CLI, its MCP servers or its home."""

    def hear(self, notification: Notification) -> None:
        """Take note of what the CLI says that it does."""
        item = notification.params.get("item") or {}
        match notification.method:
            case "item/started" | "item/completed":
                self.is_clean &= self._is_harmless(item)
            case "rawResponseItem/completed" if item.get("type") in _CALLS:
                self.is_clean &= self._is_harmless_call(item)

    def _is_harmless(self, item: Mapping[str, Any]) -> bool:
        kind = item.get("type")
        if kind == "mcpToolCall":
            return item.get("server") in self._remote
        return kind in _SPEAKING or (self._is_walled and kind in _WALLED)

    def _is_harmless_call(self, call: Mapping[str, Any]) -> bool:
        """Look at a call by itself too: those that the sandbox refused have no item."""
        name, space = str(call.get("name", "")), str(call.get("namespace") or "")
        if space.startswith("mcp__") or name.startswith("mcp__"):
            return (space or name).removeprefix("mcp__").partition("__")[0] in self._remote
        return name in _SPEAKING_CALLS or (self._is_walled and name in _WALLED_CALLS)
