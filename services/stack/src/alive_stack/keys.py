"""Which providers' keys the gateway keeps, where it listens for them, and how a changed key reaches it."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alive_stack.apis import PRODUCT, Apis
from alive_stack.declarations import GATEWAY_UID, Declaration, GatewayRoute
from alive_stack.host import Host

_WATCH_SECONDS = 0.5

BOX_PORT = 43005
"""The port of its own loopback on which a box finds the gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptKey:
    """A provider whose agents reach their vendor through the gateway."""

    provider: Declaration
    route: GatewayRoute
    upstream: str
    source: Path
    """The operator's own file."""
    listen: str
    """Where the gateway listens for its agents: a unix socket that leads into their boxes, or a port of loopback."""

    @property
    def url(self) -> str:
        """The vendor's API as the agents know it."""
        return f"http://127.0.0.1:{BOX_PORT if self.listen.startswith('unix:') else self.listen}"


@dataclass(slots=True, kw_only=True)
class KeyRing:
    """The keys that the gateway keeps."""

    host: Host
    apis: Apis
    kept: list[KeptKey] = field(default_factory=list)
    _known: dict[str, str] = field(default_factory=dict)

    def refresh(self) -> None:
        """Hand over what has changed.

        Raises:
            OSError: a file cannot be read.
        """
        for name, source in self.sources().items():
            content = source.read_text()
            if content != self._known.get(name):
                self.host.keep_secret("gateway", name, content, GATEWAY_UID)
                self._known[name] = content

    def sources(self) -> Mapping[str, Path]:
        """Return the operator's files, by what the gateway's copies are called."""
        product = {PRODUCT: self.apis.key_file} if self.apis.key_file else {}
        return {**{key.provider.name: key.source for key in self.kept}, **product}

    async def watch(self) -> None:
        """Hand over every key that is replaced, for as long as this runs."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            with contextlib.suppress(OSError):  # It is being replaced; the next look finds it.
                self.refresh()

    def routes(self) -> str:
        """Return the gateway's routes, as it reads them."""
        return json.dumps([self._route(key) for key in self.kept])

    def settings_of(self, provider: Declaration) -> Mapping[str, str]:
        """Return what a provider is told instead of its key; nothing when the gateway does not keep it."""
        for key in self.kept:
            if key.provider is provider:
                return {
                    **self.apis.provider_settings(key.url),
                    key.route.base_url: key.url,
                    "ALIVE_AUTHZ_LISTEN": f"unix:{self.host.authz_socket(provider.name)}",
                }
        return {}

    def _route(self, key: KeptKey) -> Mapping[str, object]:
        return {
            "name": key.provider.name,
            "listen": key.listen,
            "upstream": key.upstream,
            "paths": key.route.paths,
            "header": key.route.header,
            "prefix": key.route.prefix,
            "key_file": str(self.host.gateway_key(key.provider.name)),
            "authz_socket": str(self.host.authz_socket(key.provider.name)),
        }
