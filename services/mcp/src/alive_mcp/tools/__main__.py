"""Runs the server: ``python -m alive_mcp.tools``."""

from alive_mcp.tools.server import main

main()
