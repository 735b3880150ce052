"""Renders for Envoy what is shown and trusted over TCP. Files that are replaced are read anew. As of Envoy 1.40."""

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alive_kit.tls import TlsFiles

Json = dict[str, Any]

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The TLS of both sides, by way of files that Envoy watches."""

    directory: Path
    """Where those files are."""
    callers: TlsFiles | None
    """What callers are shown, and who vouches for them."""
    providers: TlsFiles | None
    """What providers are shown, and who vouches for them."""

    def to_callers(self) -> Json:
        """Return the side that callers see: each must show a certificate."""
        common = {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [self._sds("certificate")],
            "validation_context_sds_secret_config": self._sds("callers"),
        }
        return _socket("DownstreamTlsContext", common, require_client_certificate=True)

    def to_provider(self, host: str) -> Json:
        """Return the side that a provider sees, which must be who its host says."""
        exactly = {"san_type": _san_type(host), "matcher": {"exact": host}}
        trusted = {
            "default_validation_context": {"match_typed_subject_alt_names": [exactly]},
            "validation_context_sds_secret_config": self._sds("providers"),
        }
        common = {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [self._sds("certificate")],
            "combined_validation_context": trusted,
        }
        return _socket("UpstreamTlsContext", common, sni=host)

    def write(self) -> None:
        """Write the files that Envoy watches."""
        self.directory.mkdir(exist_ok=True)
        for name, content in self._secrets():
            secret = {"@type": f"{_TLS}.Secret", "name": name, **content}
            self._path(name).write_text(json.dumps({"resources": [secret]}))

    def _secrets(self) -> Iterator[tuple[str, Json]]:
        if ours := self.callers or self.providers:
            shown = {"certificate_chain": _file(ours.cert), "private_key": _file(ours.key)}
            yield "certificate", {"tls_certificate": {**shown, "watched_directory": _directory(ours.cert)}}
        for name, files in (("callers", self.callers), ("providers", self.providers)):
            if files:
                trusted = {"trusted_ca": _file(files.authorities), "watched_directory": _directory(files.authorities)}
                yield name, {"validation_context": trusted}

    def _sds(self, name: str) -> Json:
        return {"name": name, "sds_config": {"path_config_source": {"path": str(self._path(name))}}}

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def _socket(kind: str, common: Json, **fields: Any) -> Json:
    return {"name": "tls", "typed_config": {"@type": f"{_TLS}.{kind}", "common_tls_context": common, **fields}}


def _san_type(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "DNS"
    return "IP_ADDRESS"


def _file(path: Path) -> Json:
    return {"filename": str(path)}


def _directory(path: Path) -> Json:
    return {"path": str(path.parent)}
