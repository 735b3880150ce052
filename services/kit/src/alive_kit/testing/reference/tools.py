"""The agent's own tools, and which of all tools there are by the rules of a turn."""

from collections.abc import Container

FILES = ("write_file", "edit_file")
OWN = ("run_command", *FILES, "update_plan", "ask_user")


def exists(name: str, *, allowed: Container[str], denied: Container[str]) -> bool:
    """Whether a tool exists by rules; where none is allowed by name, all are."""
    return (not allowed or name in allowed) and name not in denied
