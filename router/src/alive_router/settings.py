"""The variables the router reads, with the prefix ``ALIVE_``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from alive_kit.settings import ListenSettings
from alive_kit.tls import TlsFiles
from alive_kit.validation import is_slug


class RouterSettings(ListenSettings):
    """Which providers there are, and where the router serves and keeps what it knows."""

    listen: str = "127.0.0.1:50051"
    """Address to serve on: ``host:port`` or ``unix:/path/router.sock``."""

    providers: Annotated[Mapping[str, str], NoDecode]
    """The providers as ``id=endpoint``, separated by commas, for example ``red=unix:/run/red/agent.sock``."""

    tls_providers_ca_file: Path | None = None
    """Authorities that vouch for providers reached over TCP; the router shows them its own certificate."""

    disabled_providers: Annotated[frozenset[str], NoDecode] = frozenset()
    """Ids of providers that are switched off, separated by commas."""

    default_provider: str = ""
    """The provider that answers when nothing names another; without it, the first one of ``providers``."""

    workspaces: Path
    """Directory that holds one directory for each workspace."""

    state_dir: Path
    """The router's private directory."""

    database_url: str = ""
    """SQLAlchemy URL of the store; a SQLite file in ``state_dir`` without it."""

    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    drain_seconds: float = Field(default=30.0, ge=0)
    """How long running streams may go on after SIGTERM."""

    handover_bytes: int = Field(default=200_000, ge=0)
    """How much of what other providers did in a session is handed over when it moves."""

    @field_validator("providers", mode="before")
    @classmethod
    def _parse_providers(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return dict(_parse_provider(entry) for entry in _entries(value))

    @field_validator("disabled_providers", mode="before")
    @classmethod
    def _parse_disabled(cls, value: object) -> object:
        return frozenset(_entries(value)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if not self.providers:
            raise ValueError("ALIVE_PROVIDERS names no provider: write id=endpoint")
        named = {*self.disabled_providers, *([self.default_provider] if self.default_provider else [])}
        if unknown := named - self.providers.keys():
            raise ValueError(f"ALIVE_PROVIDERS has no {', '.join(sorted(unknown))}")
        return self

    @property
    def chosen_default(self) -> str:
        """The provider that answers when nothing names another."""
        return self.default_provider or next(iter(self.providers))

    @property
    def provider_tls(self) -> TlsFiles | None:
        """What the router shows to providers over TCP, and whom it trusts."""
        if not (self.tls and self.tls_providers_ca_file):
            return None
        return self.tls.model_copy(update={"authorities": self.tls_providers_ca_file})

    @property
    def store_url(self) -> str:
        """Where the store is."""
        return self.database_url or f"sqlite+aiosqlite:///{self.state_dir}/router.db"


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _parse_provider(entry: str) -> tuple[str, str]:
    provider_id, separator, endpoint = entry.partition("=")
    if not separator or not endpoint:
        raise ValueError(f"{entry!r} is not id=endpoint")
    if not is_slug(provider_id):
        raise ValueError(f"{provider_id!r} is not an id: lower-case letters, digits and '-'")
    return provider_id, endpoint
