"""Claude Code behind the contract."""

from alive_claude.provider import create_provider

__all__ = ["create_provider"]
