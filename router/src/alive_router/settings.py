"""The variables the router reads, with the prefix ``ALIVE_``."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from alive.agent.v1 import workspace_service_pb2
from alive_kit.endpoints import Endpoints, entries
from alive_kit.settings import ListenSettings
from alive_kit.tls import TlsFiles, is_open
from alive_router.callers import CallersFile

_FLAGS = {"": None, "true": True, "1": True, "false": False, "0": False}


class RouterSettings(ListenSettings):
    """Which providers there are, and where the router serves and keeps what it knows."""

    listen: str = "127.0.0.1:50051"
    """Address to serve on: ``host:port`` or ``unix:/path/router.sock``."""

    providers: Endpoints
    """The providers as ``id=endpoint``, separated by commas, for example ``red=unix:/run/red/agent.sock``."""

    edge_listen: Annotated[str, Field(pattern="^(unix:/.*)?$")] = ""
    """Where the edge asks which provider a stream comes from, ``unix:/path``; no edge without it. With it, whoever may
    open a unix socket of ``listen`` is the edge: whose certificate it was shown is believed."""

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

    callers_file: Path | None = None
    """TOML file that says who may call (docs/security.md); without it whoever is on this host may do anything."""

    rollout: Annotated[Mapping[str, int], NoDecode] = Field(default_factory=dict)
    """For how many of a hundred workspaces a provider is, as ``id=percentage`` separated by commas; the others are for
    all. ``ENABLE_<ID>_PROVIDER=false`` takes one from everybody. Both hold until UpdateRollout says otherwise."""

    turn_keep_seconds: float = Field(default=90 * 86_400.0, gt=0)
    """How long it is known which provider has a turn; afterwards every provider is asked."""

    usage_keep_seconds: float = Field(default=400 * 86_400.0, gt=0)
    """How long usage is kept: longer than providers keep outcomes, or turns would be booked twice."""

    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    drain_seconds: float = Field(default=30.0, ge=0)
    """How long running streams may go on after SIGTERM."""

    handover_bytes: int = Field(default=200_000, ge=0)
    """How much of what other providers did in a session is handed over when it moves."""

    @field_validator("rollout", mode="before")
    @classmethod
    def _parse_rollout(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return dict(_parse_percentage(entry) for entry in entries(value))

    @field_validator("disabled_providers", mode="before")
    @classmethod
    def _parse_disabled(cls, value: object) -> object:
        return frozenset(entries(value)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if not self.providers:
            raise ValueError("ALIVE_PROVIDERS names no provider: write id=endpoint")
        named = {*self.disabled_providers, *self.rollout, *filter(None, [self.default_provider])}
        if unknown := named - self.providers.keys():
            raise ValueError(f"ALIVE_PROVIDERS has no {', '.join(sorted(unknown))}")
        if self.chosen_default in self.rollouts:
            raise ValueError(f"{self.chosen_default} is the default provider, which is for everybody")
        return self

    @model_validator(mode="after")
    def _check_callers(self) -> Self:
        if self.callers_file:
            CallersFile.read(self.callers_file)
        elif is_open(self.listen):
            raise ValueError(f"ALIVE_LISTEN={self.listen} can be reached from other hosts: set ALIVE_CALLERS_FILE")
        return self

    @property
    def rollouts(self) -> dict[str, workspace_service_pb2.Rollout]:
        """To whom providers are rolled out until it is changed through WorkspaceService.

        Raises:
            ValueError: a flag is neither true nor false.
        """
        flags = {provider_id: _flag(provider_id) for provider_id in self.providers}
        return {
            provider_id: workspace_service_pb2.Rollout(
                provider_id=provider_id, enabled=flag is not False, percentage=self.rollout.get(provider_id, 100)
            )
            for provider_id, flag in flags.items()
            if flag is False or provider_id in self.rollout
        }

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


def _flag(provider_id: str) -> bool | None:
    """Return what ``ENABLE_<ID>_PROVIDER`` says of a provider; None when it is not set."""
    name = f"ENABLE_{re.sub('[^a-z0-9]', '_', provider_id).upper()}_PROVIDER"
    value = os.environ.get(name, "").lower()
    if value not in _FLAGS:
        raise ValueError(f"{name} is neither true nor false")
    return _FLAGS[value]


def _parse_percentage(entry: str) -> tuple[str, int]:
    provider_id, _, percentage = entry.partition("=")
    if not percentage.isdecimal() or int(percentage) > 100:
        raise ValueError(f"{entry!r} is not id=percentage, from 0 to 100")
    return provider_id, int(percentage)
