"""Alive's own tools: attached to every turn that acts for a user of the product, the same for every provider.

They are MCP servers of a distribution of their own, started like any other by the vendor's CLI. A server of the same
name in the request takes the place of one of these; whatever is denied to the agent is denied of these too.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from alive.agent.v1 import agent_service_pb2, options_pb2
from alive_kit.workspaces import Workspace

_APPROVAL_SECONDS = 300
"""How long an approval may stay open unless the request says otherwise."""

_ASKING = frozenset({options_pb2.APPROVAL_POLICY_ASK, options_pb2.APPROVAL_POLICY_ACCEPT_EDITS})


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultServer:
    """One of the servers, as Alive's plan wants it started."""

    name: str
    required: bool = True
    startup_seconds: int = 10
    tool_seconds: int
    """Longer than each of its tools takes: they bound themselves, and say so better than a client can."""
    asks_user: bool = False
    """Whether a tool may wait for the caller's answer: for as long as an approval may stay open."""
    in_background: bool = False
    """Attached only to turns that nobody waits for, or when one of its tools is allowed by name."""

    @property
    def command(self) -> str:
        """The program that it is."""
        return self.name.replace("alive-", "alive-mcp-", 1)


SERVERS = (
    DefaultServer(name="alive-tools", tool_seconds=90, asks_user=True),
    DefaultServer(name="alive-workspace", tool_seconds=150),
    DefaultServer(name="alive-email", required=False, startup_seconds=15, tool_seconds=30, in_background=True),
)


class ToolSettings(BaseSettings):
    """The variables that say which of the tools there are, with the prefix ``ALIVE_``."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    tools: str | None = None
    """Names of the servers, with commas: ``alive-tools,alive-workspace``. Unset: those whose programs are found."""

    tools_startup_seconds: int | None = Field(default=None, ge=1)
    """How long each may take to start, on a machine that is slow or busy. Unset: 10 and 15 seconds."""

    tools_assets: Path | None = None
    """Directory of assets for `copy_shared_asset` beside those that come with it; a box must show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultTools:
    """The tools of a service."""

    settings: ToolSettings
    path: str
    """PATH on which commands of MCP servers are found."""

    def attach(
        self, request: agent_service_pb2.StartTurnRequest, workspace: Workspace, *, has_file_tools: bool
    ) -> None:
        """Add the servers that a complete request gets by default; those that it names itself stay as they are."""
        if not request.HasField("tool_context"):
            return
        named = {server.name for server in request.mcp_servers}
        environment = self._environment(request, workspace, has_file_tools=has_file_tools)
        for server in self._offered():
            if server.name not in named and _is_wanted(server, request):
                request.mcp_servers.append(self._declared(server, environment, request.permissions))

    def _offered(self) -> Iterator[DefaultServer]:
        wanted = None if self.settings.tools is None else {name.strip() for name in self.settings.tools.split(",")}
        for server in SERVERS:
            if server.name in wanted if wanted is not None else shutil.which(server.command, path=self.path):
                yield server

    def _environment(
        self, request: agent_service_pb2.StartTurnRequest, workspace: Workspace, *, has_file_tools: bool
    ) -> Mapping[str, str]:
        asks = request.permissions.approval_policy in _ASKING
        assets = self.settings.tools_assets
        return {
            "ALIVE_WORKSPACE_PATH": str(workspace.path),
            # With a policy that never asks Codex declines for the user (0.163.0): the front end shows it instead.
            "ALIVE_QUESTIONS": "ask" if asks else "show",
            **({"ALIVE_READ_ONLY": "1"} if _may_only_read(request.permissions) else {}),
            **({} if has_file_tools else {"ALIVE_FILE_TOOLS": "1"}),
            **({"ALIVE_ASSETS": str(assets)} if assets else {}),
        }

    def _declared(
        self, server: DefaultServer, environment: Mapping[str, str], permissions: options_pb2.Permissions
    ) -> options_pb2.McpServer:
        patience = permissions.approval_timeout.seconds or _APPROVAL_SECONDS
        tool_seconds = server.tool_seconds + (patience if server.asks_user else 0)
        return options_pb2.McpServer(
            name=server.name,
            stdio=options_pb2.StdioTransport(command=server.command, env=environment),
            required=server.required,
            startup_timeout=Duration(seconds=self.settings.tools_startup_seconds or server.startup_seconds),
            tool_timeout=Duration(seconds=tool_seconds),
        )


def _may_only_read(permissions: options_pb2.Permissions) -> bool:
    """Whether a turn changes nothing: its box would not hold back what the product does for the tools."""
    is_plan = permissions.approval_policy == options_pb2.APPROVAL_POLICY_PLAN
    return is_plan or permissions.sandbox == options_pb2.SANDBOX_READ_ONLY


def _is_wanted(server: DefaultServer, request: agent_service_pb2.StartTurnRequest) -> bool:
    """Whether a request gets a server: not when none of its tools could be called."""
    prefix = f"mcp__{server.name}__"
    allowed = request.permissions.tools.allowed
    is_named = any(name.startswith(prefix) for name in allowed)
    if allowed and not is_named:
        return False
    in_background = request.limits.workload_class == options_pb2.WORKLOAD_CLASS_BACKGROUND
    return is_named or in_background or not server.in_background
