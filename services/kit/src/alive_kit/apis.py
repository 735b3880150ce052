"""The APIs that agents reach through the key gateway beside their model: the product's, and HTTP MCP servers.

A box leads to the gateway and nowhere else. What a call shows there is its agent's token; what the API is shown instead
(the user's cookie, an MCP server's bearer) the gateway learns from this service, so that no agent ever holds it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

from alive.agent.v1 import agent_service_pb2, event_pb2, options_pb2, provider_pb2
from alive_kit.authz import TURN_HEADER, Grants
from alive_kit.capabilities import limited, supported, unsupported
from alive_kit.errors import InvalidField
from alive_kit.provider import Unsupported

_PASSED_ON = re.compile("authorization|api-key|cookie|x-.*")
_NO_PRODUCT = "no product is connected: set ALIVE_PRODUCT_URL"
_EXPOSED = (
    "there is no key gateway: the user's session and the product's secret are among the variables of Alive's tools, "
    "where the agent can read them"
)
_OWN_TOOLS = "alive-mcp-"
_NO_NETWORK = "a box leads to the model, and to the MCP servers of ALIVE_MCP_SERVERS"


class Apis(BaseSettings):
    """What the gateway leads to, by the variables that say so, with the prefix ``ALIVE_``."""

    model_config = SettingsConfigDict(env_prefix="ALIVE_", frozen=True, extra="ignore")

    gateway_url: str = ""
    """Where agents find the gateway; empty where there is none."""

    gateway_has_product: bool = False
    """Whether the product's API is beyond it."""

    gateway_mcp_servers: dict[str, str] = {}
    """The MCP servers beyond it, as JSON: name to address."""

    product_url: str = ""
    """The product's own address. Used only where neither a gateway nor a box stands: its secrets are exposed then."""

    product_secret_file: Path | None = None
    """File of the secret that the product is shown there."""

    launcher: Path | None = None
    """Set where agents have boxes."""

    @property
    def exposes_secrets(self) -> bool:
        """Whether tools get the user's session and the product's secret themselves, because no wall stands."""
        return bool(self.product_url) and not self.gateway_url and self.launcher is None

    @property
    def has_product(self) -> bool:
        """Whether tools can call the product."""
        return self.gateway_has_product or self.exposes_secrets

    def capabilities(self, *, boxed: bool) -> Iterator[provider_pb2.Capability]:
        """Yield what can be called, the same for every provider."""
        if self.exposes_secrets:
            yield limited("tool_context", _EXPOSED)
        else:
            yield supported("tool_context") if self.has_product else unsupported("tool_context", _NO_PRODUCT)
        if not boxed:
            yield supported("mcp_servers.http")
        elif self.gateway_mcp_servers:
            yield limited("mcp_servers.http", f"only {', '.join(self.gateway_mcp_servers.values())}")
        else:
            yield unsupported("mcp_servers.http", _NO_NETWORK)

    def refusals(self, request: agent_service_pb2.StartTurnRequest, *, boxed: bool) -> Iterator[Unsupported]:
        """Yield the options that need what is not beyond the gateway."""
        if request.HasField("tool_context") and not self.has_product:
            yield Unsupported(field="tool_context", why=_NO_PRODUCT)
        for index, server in enumerate(request.mcp_servers):
            if boxed and server.HasField("http") and self._name(server) is None:
                yield Unsupported(field=f"mcp_servers[{index}].http", why=_NO_NETWORK)

    def notices(self, request: agent_service_pb2.StartTurnRequest) -> Iterator[event_pb2.Notice]:
        """Yield what the caller has to know about a turn's secrets."""
        if request.HasField("tool_context") and self.exposes_secrets:
            yield event_pb2.Notice(severity=event_pb2.SEVERITY_WARNING, code="secrets_exposed", message=_EXPOSED)

    def grants(self, request: agent_service_pb2.StartTurnRequest, servers: Sequence[options_pb2.McpServer]) -> Grants:
        """Return what a turn may call, with the headers that the gateway adds; servers have their secrets.

        Raises:
            InvalidField: a header of an MCP server is none that the gateway adds.
        """
        grants: dict[str, Mapping[str, str]] = {}
        if request.HasField("tool_context"):
            grants["product"] = _product_headers(request)
        for index, server in enumerate(servers):
            if name := self._name(server):
                grants[f"mcp/{name}"] = _checked(server.http.headers, f"mcp_servers[{index}].http.headers")
        return grants

    def lead(
        self, request: agent_service_pb2.StartTurnRequest, servers: Sequence[options_pb2.McpServer], token: str
    ) -> list[options_pb2.McpServer]:
        """Return copies of a turn's servers that find the gateway, and show its token there."""
        return [self._led(request, server, token) for server in servers]

    def _led(
        self, request: agent_service_pb2.StartTurnRequest, server: options_pb2.McpServer, token: str
    ) -> options_pb2.McpServer:
        led = options_pb2.McpServer()
        led.CopyFrom(server)
        if name := self._name(server):
            led.http.url = f"{self.gateway_url}/mcp/{name}"
            led.http.headers.clear()
            led.http.headers[TURN_HEADER] = token
        elif server.HasField("stdio") and request.HasField("tool_context"):
            led.stdio.env.update(self._variables(request, server, token))
        return led

    def _variables(
        self, request: agent_service_pb2.StartTurnRequest, server: options_pb2.McpServer, token: str
    ) -> Mapping[str, str]:
        """Return for whom a server's tools act, and how they reach the product."""
        context = request.tool_context
        variables = {
            "ALIVE_WORKSPACE_ID": request.workspace_id,
            "ALIVE_USER_ID": context.user_id,
            "ALIVE_CONNECTED_PROVIDERS": ",".join(context.connected_providers),
        }
        if not self.exposes_secrets:
            return {**variables, "ALIVE_API_URL": f"{self.gateway_url}/product", "ALIVE_API_TOKEN": token}
        if not Path(server.stdio.command).name.startswith(_OWN_TOOLS):
            return variables
        secret = self.product_secret_file.read_text().strip() if self.product_secret_file else ""
        shown = {"ALIVE_SESSION_COOKIE": context.session_cookie, "ALIVE_INTERNAL_SECRET": secret}
        return {**variables, "ALIVE_API_URL": self.product_url, **shown}

    def _name(self, server: options_pb2.McpServer) -> str | None:
        """Return what the gateway calls an MCP server; None when it does not lead there."""
        if not server.HasField("http"):
            return None
        return next((name for name, url in self.gateway_mcp_servers.items() if url == server.http.url), None)


def _product_headers(request: agent_service_pb2.StartTurnRequest) -> Mapping[str, str]:
    headers = {
        "cookie": request.tool_context.session_cookie,
        "x-alive-user-id": request.tool_context.user_id,
        "x-alive-workspace-id": request.workspace_id,
        "x-alive-turn-id": request.turn_id,
    }
    return {name: value for name, value in headers.items() if value}


def _checked(headers: Mapping[str, str], field: str) -> Mapping[str, str]:
    for name in headers:
        if not _PASSED_ON.fullmatch(name.lower()):
            why = f"the gateway adds no {name!r}: only authorization, api-key, cookie, and names that begin with x-"
            raise InvalidField({field: why})
    return dict(headers)
