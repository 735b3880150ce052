"""The variables the edge reads, with the prefix ``ALIVE_``."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from alive_kit.endpoints import Endpoints, entries
from alive_kit.settings import ListenSettings
from alive_kit.tls import TlsFiles

_UNIX = "^unix:/"


class EdgeSettings(ListenSettings):
    """Where the edge serves, whom it asks, and where it leads streams."""

    router: Annotated[str, Field(pattern=_UNIX)]
    """The router's own address, ``unix:/path``: it answers everything that is no turn's stream."""

    edge_authz: Annotated[str, Field(pattern=_UNIX)]
    """Where the router says which provider a stream comes from, ``unix:/path``: its ``ALIVE_EDGE_LISTEN``."""

    providers: Endpoints
    """The providers, as the router has them."""

    tls_providers_ca_file: Path | None = None
    """Authorities that vouch for providers reached over TCP; the edge shows them its own certificate."""

    edge_origins: Annotated[
        frozenset[str], NoDecode, BeforeValidator(lambda text: entries(text) if isinstance(text, str) else text)
    ] = frozenset()
    """Origins of web pages that may call from a browser, separated by commas: ``https://app.example``."""

    state_dir: Path
    """The edge's private directory."""

    drain_seconds: float = Field(default=30.0, ge=0)
    """How long running streams may go on after SIGTERM."""

    @model_validator(mode="after")
    def _check_providers(self) -> Self:
        remote = [name for name, endpoint in self.providers.items() if not endpoint.startswith("unix:")]
        if remote and not self.provider_tls:
            raise ValueError(
                f"{remote[0]} is reached over TCP: set ALIVE_TLS_PROVIDERS_CA_FILE, and what ALIVE_TLS_CERT_FILE needs"
            )
        return self

    @property
    def provider_tls(self) -> TlsFiles | None:
        """What the edge shows to providers over TCP, and whom it trusts."""
        if not (self.tls and self.tls_providers_ca_file):
            return None
        return self.tls.model_copy(update={"authorities": self.tls_providers_ca_file})
