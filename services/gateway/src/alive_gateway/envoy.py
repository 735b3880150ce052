"""Renders Envoy's configuration. As of Envoy 1.40.

For each route: a request shows a token; the provider's service is asked whether the token's turn runs, and without a
clear yes the request ends here; then the token is replaced by the key, and the request goes on, unbuffered.
"""

from pathlib import Path
from typing import Any

from alive_gateway.settings import Route

Json = dict[str, Any]

_TYPE = "type.googleapis.com/envoy"
_STRIPPED = ["authorization", "x-api-key", "cookie", "proxy-authorization", "x-forwarded-for", "x-forwarded-proto"]


def configuration(routes: list[Route], secrets: Path, authorities: Path) -> Json:
    """Return the bootstrap for some routes; each key is read from its own file among the secrets."""
    clusters = [cluster for route in routes for cluster in (_vendor(route, authorities), _authz(route))]
    return {
        "node": {"id": "alive-gateway", "cluster": "alive"},
        "static_resources": {"listeners": [_listener(route, secrets) for route in routes], "clusters": clusters},
    }


def secret(route: Route, key: str) -> Json:
    """Return the file from which Envoy takes a key."""
    value = {"name": route.name, "generic_secret": {"secret": {"inline_string": route.prefix + key}}}
    return {"resources": [{"@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.Secret", **value}]}


def _listener(route: Route, secrets: Path) -> Json:
    manager = {
        "@type": _http("http_connection_manager.v3.HttpConnectionManager", kind="network"),
        "stat_prefix": route.name,
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "stream_idle_timeout": "600s",
        "request_headers_timeout": "10s",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "access_log": [_access_log(route)],
        "route_config": {"virtual_hosts": [_host(route)]},
        "http_filters": [_ask(route), _inject(route, secrets), _filter("router", "router.v3.Router")],
    }
    filters = [{"name": "http", "typed_config": manager}]
    return {"name": route.name, "address": _address(route.listen), "filter_chains": [{"filters": filters}]}


def _address(listen: str) -> Json:
    if listen.startswith("unix:"):
        # Anybody may connect: its directory, and the token, say who is let through.
        return {"pipe": {"path": listen.removeprefix("unix:"), "mode": 0o666}}
    return {"socket_address": {"address": "127.0.0.1", "port_value": int(listen)}}


def _host(route: Route) -> Json:
    prefix = (route.upstream.path or "").rstrip("/")
    target = {
        "cluster": f"{route.name}-vendor",
        "timeout": "0s",
        "host_rewrite_literal": route.upstream.host,
        "regex_rewrite": {"pattern": {"regex": "^/"}, "substitution": f"{prefix}/"},
    }
    routes = [{"match": {"safe_regex": {"regex": route.paths}}, "route": target}]
    stripped = [header for header in _STRIPPED if header != route.header]
    return {"name": route.name, "domains": ["*"], "request_headers_to_remove": stripped, "routes": routes}


def _ask(route: Route) -> Json:
    """Ask the provider's service; when it does not answer, the answer is no."""
    service = {
        "server_uri": {"uri": "http://authz", "cluster": f"{route.name}-authz", "timeout": "2s"},
        "path_prefix": "/live",
    }
    return _filter(
        "authz",
        "ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        failure_mode_allow=False,
        http_service=service,
        allowed_headers={"patterns": [{"exact": route.header}]},
    )


def _inject(route: Route, secrets: Path) -> Json:
    """Put the key where the token was."""
    source = {"path": str(secrets / f"{route.name}.json"), "watched_directory": {"path": str(secrets)}}
    generic = {
        "@type": f"{_TYPE}.extensions.http.injected_credentials.generic.v3.Generic",
        "header": route.header,
        "credential": {"name": route.name, "sds_config": {"path_config_source": source}},
    }
    credential = {"name": "envoy.http.injected_credentials.generic", "typed_config": generic}
    return _filter("key", "credential_injector.v3.CredentialInjector", overwrite=True, credential=credential)


def _vendor(route: Route, authorities: Path) -> Json:
    upstream = route.upstream
    address = {"address": str(upstream.host), "port_value": upstream.port}
    cluster: Json = {
        "name": f"{route.name}-vendor",
        "type": "STRICT_DNS",
        # Envoy's own choice is IPv6 wherever a name has it, which many hosts and containers cannot reach.
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "5s",
        "load_assignment": _endpoint(f"{route.name}-vendor", {"socket_address": address}),
    }
    if upstream.scheme == "https":
        name = {"san_type": "DNS", "matcher": {"exact": upstream.host}}
        trusted = {"trusted_ca": {"filename": str(authorities)}, "match_typed_subject_alt_names": [name]}
        tls = {
            "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": upstream.host,
            "common_tls_context": {"validation_context": trusted},
        }
        cluster["transport_socket"] = {"name": "tls", "typed_config": tls}
    return cluster


def _authz(route: Route) -> Json:
    endpoint = _endpoint(f"{route.name}-authz", {"pipe": {"path": str(route.authz_socket)}})
    return {"name": f"{route.name}-authz", "connect_timeout": "1s", "load_assignment": endpoint}


def _endpoint(cluster: str, address: Json) -> Json:
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _access_log(route: Route) -> Json:
    shown = {
        "time": "%START_TIME%",
        "provider": route.name,
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "status": "%RESPONSE_CODE%",
        "why": "%RESPONSE_CODE_DETAILS%",
        "milliseconds": "%DURATION%",
    }
    log = {
        "@type": f"{_TYPE}.extensions.access_loggers.stream.v3.StderrAccessLog",
        "log_format": {"json_format": shown},
    }
    return {"name": "stderr", "typed_config": log}


def _filter(name: str, kind: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": {"@type": _http(kind), **fields}}


def _http(name: str, *, kind: str = "http") -> str:
    return f"{_TYPE}.extensions.filters.{kind}.{name}"
