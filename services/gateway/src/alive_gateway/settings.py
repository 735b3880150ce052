"""What the gateway is told: a route for each provider, the product, and MCP servers."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, HttpUrl, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict


class Destination(BaseModel):
    """An API beyond the gateway, and the credential that it is given there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """A provider's id for its vendor; for any other API where agents find it: ``mcp/some`` is below ``/mcp/some``."""

    upstream: HttpUrl
    """Its base URL; the path of it comes before that of a request."""

    header: str = ""
    """Header that carries the key."""

    prefix: str = ""
    """What stands before the key in the header."""

    key_file: Path | None = None
    """File that holds the key; watched. Without one only what the provider's service answers is added."""


class Route(Destination):
    """How one provider's agents reach their vendor: its header is also that in which the CLI shows its token."""

    listen: str
    """Where its CLIs find the gateway: ``unix:/path`` for those in boxes, else a port of loopback."""

    paths: str
    """Regular expression for the paths that are passed on; all others are not there."""

    authz_socket: Path
    """Unix socket of the provider's service, which knows the tokens of running turns."""


class Api(Destination):
    """An API that the agents of every provider may call, if the service says that their turn may."""

    calls: list[tuple[str, str]]
    """Methods and paths that are passed on, exactly as they are: ``["POST", "/api/files/delete"]``."""

    timeout_seconds: int
    """How long one call may take; 0 for ever."""


class Product(Api):
    """The product's own API, which its tools call back.

    For whom a call is the gateway tells, not the agent, in ``cookie``, ``x-alive-user-id``, ``x-alive-workspace-id``
    and ``x-alive-turn-id``: the product must believe these, and nothing else that a request says about it.
    """

    name: str = "product"

    header: str = "x-internal-tools-secret"

    calls: list[tuple[str, str]] = [
        ("POST", "/api/internal-tools/read-logs"),
        ("POST", "/api/internal-tools/switch-serve-mode"),
        ("POST", "/api/internal-tools/generate-persona"),
        ("GET", "/api/internal-tools/triggering-email"),
        ("POST", "/api/restart-workspace"),
        ("POST", "/api/files/delete"),
        ("POST", "/api/deploy-subdomain"),
        ("GET", "/api/sites"),
        ("GET", "/api/templates"),
    ]

    timeout_seconds: int = 180


def mcp_server(name: str, url: HttpUrl) -> Api:
    """Return an MCP server as an API: its one address, whose credentials come with the turn."""
    calls = [(method, "") for method in ("POST", "GET", "DELETE")]
    return Api(name=f"mcp/{name}", upstream=url, calls=calls, timeout_seconds=0)


class GatewaySettings(BaseSettings):
    """The variables the gateway reads, with the prefix ``ALIVE_``."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    gateway_routes: list[Route]
    """The routes, as JSON."""

    gateway_product: Product | None = None
    """The product's API, as JSON."""

    gateway_mcp_servers: dict[Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9_-]*$")], HttpUrl] = {}
    """The MCP servers that agents may reach, as JSON: name to address."""

    state_dir: Path
    """The gateway's private directory."""

    gateway_ca_file: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    """Certificates of the authorities that vouch for what is beyond."""

    @property
    def apis(self) -> list[Api]:
        """Everything beyond the gateway that is no vendor's."""
        servers = [mcp_server(name, url) for name, url in self.gateway_mcp_servers.items()]
        return [self.gateway_product, *servers] if self.gateway_product else servers

    @property
    def destinations(self) -> list[Destination]:
        """Everything beyond the gateway."""
        return [*self.gateway_routes, *self.apis]
