"""The Codex CLI behind the contract."""

from alive_codex.provider import create_provider

__all__ = ["create_provider"]
