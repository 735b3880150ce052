"""Runs a server over standard input and output: only the protocol goes there, what is logged goes to standard error."""

import sys
from collections.abc import Iterable
from importlib.metadata import version

from mcp.server import MCPServer

from alive_mcp.context import Context, take_context
from alive_mcp.errors import Misconfigured
from alive_mcp.tool import Tool, offered, served


def server(name: str, instructions: str, tools: Iterable[Tool], context: Context) -> MCPServer[object]:
    """Return a server that offers tools in a context."""
    return MCPServer(
        name,
        instructions=instructions,
        version=version("alive-mcp"),
        tools=[served(tool, context) for tool in offered(tools, context)],
        log_level="WARNING",
    )


def context_or_exit(name: str) -> Context:
    """Return the context of this process; exit with 2 and one line when there is none."""
    try:
        return take_context()
    except Misconfigured as problem:
        sys.stderr.write(f"{name}: {problem}\n")
        sys.exit(2)
