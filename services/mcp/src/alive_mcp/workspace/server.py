"""The server alive-workspace."""

from alive_mcp.context import Context
from alive_mcp.serving import context_or_exit, server
from alive_mcp.tool import Tool, changes, reads
from alive_mcp.workspace.assets import copy_shared_asset
from alive_mcp.workspace.files import edit, glob, grep, list_directory, read, write
from alive_mcp.workspace.packages import CHECK_SECONDS, INSTALL_SECONDS, check_codebase, install_package
from alive_mcp.workspace.site import (
    SLOW_SECONDS,
    create_website,
    delete_file,
    restart_dev_server,
    switch_serve_mode,
)

NAME = "alive-workspace"

_INSTRUCTIONS = (
    "What changes the workspace and the website that runs from it. check_codebase before you say that you are done; "
    "restart_dev_server after changing configuration."
)

_GRACE_SECONDS = 5.0

TOOLS = (
    Tool(
        body=restart_dev_server,
        annotations=changes("Restart the website's server", idempotent=True),
        category="workspace",
        seconds=60 + _GRACE_SECONDS,
    ),
    Tool(
        body=install_package,
        annotations=changes("Install a package", idempotent=True, open_world=True),
        category="development",
        seconds=INSTALL_SECONDS + _GRACE_SECONDS,
    ),
    # It runs scripts of the workspace's own, which may do anything that the agent may.
    Tool(
        body=check_codebase,
        annotations=changes("Check the code", idempotent=True),
        category="development",
        seconds=CHECK_SECONDS + _GRACE_SECONDS,
    ),
    Tool(
        body=delete_file,
        annotations=changes("Delete a file", destructive=True, idempotent=True),
        category="workspace",
        seconds=60 + _GRACE_SECONDS,
    ),
    Tool(
        body=switch_serve_mode,
        annotations=changes("Switch the serve mode", idempotent=True),
        category="workspace",
        seconds=SLOW_SECONDS + _GRACE_SECONDS,
    ),
    Tool(
        body=copy_shared_asset,
        annotations=changes("Copy a shared asset", destructive=True, idempotent=True),
        category="development",
    ),
    Tool(
        body=create_website,
        annotations=changes("Make a website", open_world=True),
        category="composite",
        seconds=SLOW_SECONDS + _GRACE_SECONDS,
    ),
)

FILE_TOOLS = (
    Tool(body=read, annotations=reads("Read a file"), category="workspace"),
    Tool(body=write, annotations=changes("Write a file", destructive=True, idempotent=True), category="workspace"),
    Tool(body=edit, annotations=changes("Edit a file", destructive=True), category="workspace"),
    Tool(body=glob, annotations=reads("Find files"), category="workspace"),
    Tool(body=grep, annotations=reads("Search in files"), category="workspace"),
    Tool(body=list_directory, named="list", annotations=reads("List a directory"), category="workspace"),
)


def tools(context: Context) -> tuple[Tool, ...]:
    """Return the server's tools: those for files only for agents that have none of their own."""
    return (*TOOLS, *FILE_TOOLS) if context.file_tools else TOOLS


def main() -> None:
    """Serve over standard input and output."""
    context = context_or_exit(NAME)
    server(NAME, _INSTRUCTIONS, tools(context), context).run("stdio")
