"""What the gateway is told: one route for each provider."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict


class Route(BaseModel):
    """How one provider's agents reach their vendor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The provider's id."""

    listen: str
    """Where its CLIs find the vendor's API: ``unix:/path`` for those in boxes, else a port of loopback."""

    upstream: HttpUrl
    """Base URL of the vendor's API; its path comes before that of a request."""

    paths: str
    """Regular expression for the paths that are passed on; all others are not there."""

    header: str
    """Header in which the CLI shows its token, and which then carries the key."""

    prefix: str = ""
    """What stands before the key in the header."""

    key_file: Path
    """File that holds the key; watched."""

    authz_socket: Path
    """Unix socket of the provider's service, which knows the tokens of running turns."""


class GatewaySettings(BaseSettings):
    """The variables the gateway reads, with the prefix ``ALIVE_``."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    gateway_routes: list[Route]
    """The routes, as JSON."""

    state_dir: Path
    """The gateway's private directory."""

    gateway_ca_file: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    """Certificates of the authorities that vouch for the vendors."""
