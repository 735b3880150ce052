"""Runs the server: ``python -m alive_mcp.email``."""

from alive_mcp.email.server import main

main()
