"""Completes the MCP servers of a turn: where their program is, what they see, and the secrets named by the caller.

A caller never sends a secret: it names a variable of the service whose name begins with ``MCP_``.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alive.agent.v1 import options_pb2
from alive_kit.errors import InvalidField
from alive_kit.workspaces import Workspace

PREFIX = "MCP_"
"""Only variables of the service that begin so may be named by a caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpLaunch:
    """What MCP servers are started with."""

    path: str
    """PATH on which their commands are found, and which they see."""
    environment: Mapping[str, str]
    """The service's own variables."""

    def complete(self, servers: Iterable[options_pb2.McpServer], workspace: Workspace) -> list[options_pb2.McpServer]:
        """Return copies of a request's servers with every name resolved.

        Raises:
            InvalidField: a variable that is named does not exist or may not be named.
        """
        return [self._complete(f"mcp_servers[{index}]", server, workspace) for index, server in enumerate(servers)]

    def _complete(self, field: str, server: options_pb2.McpServer, workspace: Workspace) -> options_pb2.McpServer:
        complete = options_pb2.McpServer()
        complete.CopyFrom(server)
        if complete.WhichOneof("transport") == "stdio":
            self._complete_stdio(f"{field}.stdio", complete.stdio, workspace)
        else:
            self._complete_http(f"{field}.http", complete.http)
        return complete

    def _complete_stdio(self, field: str, stdio: options_pb2.StdioTransport, workspace: Workspace) -> None:
        declared = dict(stdio.env)
        named = {name: self._value(f"{field}.env_names", name) for name in stdio.env_names}
        stdio.command = shutil.which(stdio.command, path=self.path) or stdio.command
        stdio.ClearField("env_names")
        stdio.env.update({"PATH": self.path, "HOME": str(workspace.home), "LANG": "C.UTF-8", **declared, **named})

    def _complete_http(self, field: str, http: options_pb2.HttpTransport) -> None:
        for header, name in http.header_env_names.items():
            http.headers[header] = self._value(f"{field}.header_env_names", name)
        if http.bearer_token_env_name:
            token = self._value(f"{field}.bearer_token_env_name", http.bearer_token_env_name)
            http.headers["Authorization"] = f"Bearer {token}"
        http.ClearField("header_env_names")
        http.ClearField("bearer_token_env_name")

    def _value(self, field: str, name: str) -> str:
        if not name.startswith(PREFIX):
            raise InvalidField({field: f"{name!r} may not be named: only variables that begin with {PREFIX}"})
        if name not in self.environment:
            raise InvalidField({field: f"the service has no variable {name!r}"})
        return self.environment[name]
