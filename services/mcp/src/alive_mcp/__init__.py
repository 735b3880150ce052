"""Alive's own tools as three MCP servers over standard input and output."""
