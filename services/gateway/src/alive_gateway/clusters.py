"""Renders what is beyond the gateway for Envoy: where it is, who vouches for it, and the key it is given.

The key is put in by the destination's own cluster, after a route has been chosen: a request can only ever carry the
key of where it goes. As of Envoy 1.40.
"""

from pathlib import Path
from typing import Any

from alive_gateway.settings import Destination, Route

Json = dict[str, Any]

TYPE = "type.googleapis.com/envoy"


def destination_cluster(destination: Destination, secrets: Path, authorities: Path) -> Json:
    """Return the cluster of a destination; its key is read from its own file among the secrets."""
    upstream = destination.upstream
    address = {"address": str(upstream.host), "port_value": upstream.port}
    cluster: Json = {
        "name": destination.name,
        "type": "STRICT_DNS",
        # Envoy's own choice is IPv6 wherever a name has it, which many hosts and containers cannot reach.
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "5s",
        "load_assignment": _endpoint(destination.name, {"socket_address": address}),
    }
    if upstream.scheme == "https":
        cluster["transport_socket"] = _tls(str(upstream.host), authorities)
    if destination.key_file:
        cluster["typed_extension_protocol_options"] = _key_injection(destination, secrets)
    return cluster


def authz_cluster(route: Route) -> Json:
    """Return the cluster of a provider's service, which knows the tokens."""
    name = authz_name(route)
    endpoint = _endpoint(name, {"pipe": {"path": str(route.authz_socket)}})
    return {"name": name, "connect_timeout": "1s", "load_assignment": endpoint}


def authz_name(route: Route) -> str:
    """Return the name of that cluster."""
    return f"{route.name}-authz"


def secret(destination: Destination, key: str) -> Json:
    """Return the file from which Envoy takes a key."""
    value = {"name": destination.name, "generic_secret": {"secret": {"inline_string": destination.prefix + key}}}
    return {"resources": [{"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.Secret", **value}]}


def secret_file(destination: Destination, secrets: Path) -> Path:
    """Return where that file is."""
    return secrets / f"{destination.name.replace('/', '.')}.json"


def _tls(name: str, authorities: Path) -> Json:
    exactly = {"san_type": "DNS", "matcher": {"exact": name}}
    trusted = {"trusted_ca": {"filename": str(authorities)}, "match_typed_subject_alt_names": [exactly]}
    tls = {
        "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": name,
        "common_tls_context": {"validation_context": trusted},
    }
    return {"name": "tls", "typed_config": tls}


def _key_injection(destination: Destination, secrets: Path) -> Json:
    source = {
        "path": str(secret_file(destination, secrets)),
        "watched_directory": {"path": str(secrets)},
    }
    generic = {
        "@type": f"{TYPE}.extensions.http.injected_credentials.generic.v3.Generic",
        "header": destination.header,
        "credential": {"name": destination.name, "sds_config": {"path_config_source": source}},
    }
    injector = {
        "@type": f"{TYPE}.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
    }
    codec = {"@type": f"{TYPE}.extensions.filters.http.upstream_codec.v3.UpstreamCodec"}
    options = {
        "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {}},
        "http_filters": [{"name": "key", "typed_config": injector}, {"name": "codec", "typed_config": codec}],
    }
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def _endpoint(cluster: str, address: Json) -> Json:
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
