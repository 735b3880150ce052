"""The variables the Codex service reads beside those of every service."""

from pathlib import Path

import codex_cli_bin
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CodexSettings(BaseSettings):
    """Where the vendor is, and how patient its CLI is."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    openai_base_url: str = "https://api.openai.com/v1"
    """The vendor's API, or any endpoint that speaks its Responses API."""

    openai_api_key_file: Path | None = None
    """File that holds the key. Read anew for each turn; not read at all where there is a key gateway."""

    authz_listen: str = ""
    """Set where there is a key gateway: agents then get tokens, and the base URL is the gateway's."""

    codex_cli: Path = Field(default_factory=codex_cli_bin.bundled_codex_path)
    """The Codex CLI; the one that comes with the SDK unless another is named."""

    codex_max_retries: int = Field(default=3, ge=0, le=3)
    """How often the CLI asks the model again after an error."""

    codex_silence_seconds: float = Field(default=60.0, gt=0)
    """How long the model may pause inside an answer."""
