"""What the operator lets agents reach through the key gateway beside their model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PRODUCT_URL = "ALIVE_PRODUCT_URL"
"""The product's API."""

PRODUCT_KEY_FILE = "ALIVE_PRODUCT_SECRET_FILE"
"""File of the secret that the gateway shows to the product, as ``X-Internal-Tools-Secret``."""

PRODUCT = "product"
"""What the gateway's copy of that secret is called."""

PRODUCT_CALLS = "ALIVE_PRODUCT_CALLS"
"""What of it may be called, with commas: ``POST /api/files/delete``. Unset: what the product's own tools need."""

MCP_SERVERS = "ALIVE_MCP_SERVERS"
"""The HTTP MCP servers that agents may reach: ``linear=https://mcp.linear.app/mcp``, several with commas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apis:
    """The operator's variables, as the gateway and the providers read them."""

    environment: Mapping[str, str]

    @property
    def key_file(self) -> Path | None:
        """The operator's file of the product's secret; None where it has none."""
        name = self.environment.get(PRODUCT_KEY_FILE)
        return Path(name) if name and self.environment.get(PRODUCT_URL) else None

    def gateway_settings(self, kept: Path) -> Mapping[str, str]:
        """Return what the gateway is told, which finds the product's secret in a file of its own."""
        settings = {"ALIVE_GATEWAY_MCP_SERVERS": self._servers()}
        if upstream := self.environment.get(PRODUCT_URL):
            product: dict[str, object] = {"upstream": upstream}
            if self.key_file:
                product["key_file"] = str(kept)
            if calls := self.environment.get(PRODUCT_CALLS):
                product["calls"] = [call.split() for call in calls.split(",")]
            settings["ALIVE_GATEWAY_PRODUCT"] = json.dumps(product)
        return settings

    def provider_settings(self, gateway_url: str) -> Mapping[str, str]:
        """Return what a provider is told whose agents find the gateway at a URL."""
        has_product = bool(self.environment.get(PRODUCT_URL))
        return {
            "ALIVE_GATEWAY_URL": gateway_url,
            "ALIVE_GATEWAY_HAS_PRODUCT": str(has_product).lower(),
            "ALIVE_GATEWAY_MCP_SERVERS": self._servers(),
        }

    def _servers(self) -> str:
        given = self.environment.get(MCP_SERVERS, "")
        return json.dumps(dict(entry.strip().split("=", 1) for entry in given.split(",") if "=" in entry))
