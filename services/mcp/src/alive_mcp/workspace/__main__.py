"""Runs the server: ``python -m alive_mcp.workspace``."""

from alive_mcp.workspace.server import main

main()
