"""What Claude Code sees: an allow-list, built from nothing. Names as of Claude Code 2.1.330."""

import os
from collections.abc import Iterable

from alive.agent.v1 import options_pb2
from alive_claude.settings import ClaudeSettings
from alive_kit.workspaces import Workspace

STARTUP_SECONDS = 10.0
"""How long an MCP server may take to start, unless it says otherwise."""

_FIXED = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    # Without it the CLI looks up hosts of the vendor beside the API it was given.
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    # Memory files of the vendor's own would outlive the session that wrote them.
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    # Background commands and schedules would outlive the turn.
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    # Tools of MCP servers are offered as they are instead of behind a search tool.
    "ENABLE_TOOL_SEARCH": "false",
    # MCP servers see what is declared for them instead of everything here.
    "CLAUDE_CODE_MCP_ALLOWLIST_ENV": "1",
    # The plan tool is TodoWrite; newer task tools have no list to show.
    "CLAUDE_CODE_ENABLE_TASKS": "0",
    # The only watchdog that ends a stream that stalls in its middle.
    "CLAUDE_ENABLE_BYTE_WATCHDOG": "1",
}


def cli_environment(
    settings: ClaudeSettings, workspace: Workspace, key: str, servers: Iterable[options_pb2.McpServer] = ()
) -> dict[str, str]:
    """Return everything that the CLI sees."""
    environment = {
        **_FIXED,
        "HOME": str(workspace.home),
        "CLAUDE_CONFIG_DIR": str(workspace.home / ".claude"),
        "TMPDIR": str(workspace.tmp),
        "CLAUDE_CODE_TMPDIR": str(workspace.tmp),
        "ANTHROPIC_BASE_URL": settings.anthropic_base_url,
        "ANTHROPIC_API_KEY": key,
        "CLAUDE_CODE_MAX_RETRIES": str(settings.claude_max_retries),
        "API_TIMEOUT_MS": str(round(settings.claude_request_seconds * 1000)),
        # One for all servers: the CLI begins only when each has started or has had as long as this (its own: 30 s).
        "MCP_TIMEOUT": str(round(max(map(startup_seconds, servers), default=STARTUP_SECONDS) * 1000)),
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(round(settings.claude_silence_seconds * 1000)),
    }
    if os.geteuid() == 0:
        # As root the CLI refuses to run without asking unless it is told that it is walled in.
        environment["IS_SANDBOX"] = "1"
    return environment


def startup_seconds(server: options_pb2.McpServer) -> float:
    """Return how long an MCP server may take to start."""
    return server.startup_timeout.ToNanoseconds() / 1e9 or STARTUP_SECONDS


def version_environment() -> dict[str, str]:
    """Return what the CLI sees when it is only asked for its version."""
    return {**_FIXED, "HOME": "/nonexistent"}
