"""Renders for Envoy what is behind the edge: the router, what it decides with, and the providers. As of Envoy 1.40."""

from typing import Any

from alive_edge.settings import EdgeSettings
from alive_edge.tls import Tls

Json = dict[str, Any]

ROUTER = "router"
"""The cluster of the router itself."""

AUTHZ = "authz"
"""The cluster in which it says where a stream comes from."""

WINDOW_BYTES = 65_536
"""How much of one stream may be on its way: what a reader that stalls costs at each end."""

_CONNECTION_BYTES = (1 << 31) - 1
"""How much of all streams may: no reader that stalls may hold up others, so that this is no limit."""

_STREAMS = 100_000
"""How many streams may run at once. Envoy's own limit, 1024, is meant for what comes from the world."""

_AUTHZ_CONNECTIONS = 32
"""How many questions are with the router at once: a thousand calls at the same moment would find its socket full."""

HTTP2: Json = {
    "max_concurrent_streams": _STREAMS,
    "initial_stream_window_size": WINDOW_BYTES,
    "initial_connection_window_size": _CONNECTION_BYTES,
    # A peer that is gone without a word is noticed.
    "connection_keepalive": {"interval": "30s", "timeout": "10s"},
}


def provider_cluster(provider_id: str) -> str:
    """Return the name of a provider's cluster."""
    return f"provider-{provider_id}"


def clusters(settings: EdgeSettings, tls: Tls) -> list[Json]:
    """Return everything that is behind the edge."""
    providers = [_provider(name, endpoint, tls) for name, endpoint in settings.providers.items()]
    authz = _cluster(AUTHZ, settings.edge_authz)
    authz["circuit_breakers"]["thresholds"][0]["max_connections"] = _AUTHZ_CONNECTIONS
    return [authz, _grpc(ROUTER, settings.router), *providers]


def _provider(provider_id: str, endpoint: str, tls: Tls) -> Json:
    cluster = _grpc(provider_cluster(provider_id), endpoint)
    if not endpoint.startswith("unix:"):
        cluster["transport_socket"] = tls.to_provider(endpoint.rpartition(":")[0].strip("[]"))
    return cluster


def _grpc(name: str, endpoint: str) -> Json:
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": HTTP2},
    }
    return {
        **_cluster(name, endpoint),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _cluster(name: str, endpoint: str) -> Json:
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _STREAMS)
    lb_endpoint = {"endpoint": {"address": address(endpoint)}}
    return {
        "name": name,
        "type": "STATIC" if endpoint.startswith("unix:") else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": WINDOW_BYTES,
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [lb_endpoint]}]},
    }


def address(endpoint: str) -> Json:
    """Return an address as Envoy has it: of ``unix:/path`` or ``host:port``."""
    if endpoint.startswith("unix:"):
        return {"pipe": {"path": endpoint.removeprefix("unix:"), "mode": 0o660}}
    host, _, port = endpoint.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
