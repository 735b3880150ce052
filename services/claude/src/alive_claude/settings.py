"""The variables the Claude service reads beside those of every service."""

from pathlib import Path

import claude_agent_sdk
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_BUNDLED_CLI = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"


class ClaudeSettings(BaseSettings):
    """Where the vendor is, and how patient its CLI is."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    anthropic_base_url: str = "https://api.anthropic.com"
    """The vendor's API, or any endpoint that speaks its Messages API."""

    anthropic_api_key_file: Path | None = None
    """File that holds the key. Read anew for each turn; not read at all where there is a key gateway."""

    authz_listen: str = ""
    """Set where there is a key gateway: agents then get tokens, and the base URL is the gateway's."""

    claude_cli: Path = _BUNDLED_CLI
    """Claude Code; the one that comes with the SDK unless another is named."""

    claude_max_retries: int = Field(default=3, ge=0, le=3)
    """How often the CLI asks the model again after an error."""

    claude_request_seconds: float = Field(default=120.0, gt=0)
    """How long the model may take to begin an answer."""

    claude_silence_seconds: float = Field(default=60.0, ge=10)
    """How long the model may pause inside an answer; the CLI does not go below 10."""
