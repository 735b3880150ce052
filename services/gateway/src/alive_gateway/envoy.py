"""Renders Envoy's configuration. As of Envoy 1.40.

For each provider a listener: a request shows a token; the provider's service is asked whether the token's turn runs,
and without a clear yes the request ends here. What the service answers beside the yes (the user's cookie, for whom the
turn runs) is put into the request. Then the request goes on, unbuffered, to the vendor or to another API, whose key
takes the token's place.
"""

from pathlib import Path
from typing import Any

from alive_gateway.clusters import TYPE, authz_cluster, authz_name, destination_cluster
from alive_gateway.settings import Api, Destination, GatewaySettings, Route

Json = dict[str, Any]

_TURN_HEADER = "x-turn-token"
"""Header in which tools show the token, so that every other credential is free for what the service adds."""
_NEVER_THE_AGENTS_OWN = ("cookie", "proxy-authorization", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
_CREDENTIALS = ("authorization", "x-api-key", "api-key")
_OURS = "x-alive-"

_NOT_REACHED = {"filter": {"response_flag_filter": {"flags": ["UF", "UC", "UR"]}}, "status_code": 504}
"""What is said of an API that could not be reached, or broke off: with 503, Envoy's own word for it, APIs say that they
have too much to do, and a turn would fail for another reason than its own."""


def configuration(settings: GatewaySettings, secrets: Path) -> Json:
    """Return the bootstrap; each key is read from its own file among the secrets."""
    listeners = [_listener(route, settings.apis) for route in settings.gateway_routes]
    clusters = [
        *(destination_cluster(one, secrets, settings.gateway_ca_file) for one in settings.destinations),
        *(authz_cluster(route) for route in settings.gateway_routes),
    ]
    return {
        "node": {"id": "alive-gateway", "cluster": "alive"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _listener(route: Route, apis: list[Api]) -> Json:
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
        "local_reply_config": {"mappers": [_NOT_REACHED]},
        "route_config": {"virtual_hosts": [_host(route, apis)]},
        "http_filters": [_forget(apis), _ask(route), _filter("router", "router.v3.Router")],
    }
    filters = [{"name": "http", "typed_config": manager}]
    return {"name": route.name, "address": _address(route.listen), "filter_chains": [{"filters": filters}]}


def _address(listen: str) -> Json:
    if listen.startswith("unix:"):
        # Anybody may connect: its directory, and the token, say who is let through.
        return {"pipe": {"path": listen.removeprefix("unix:"), "mode": 0o666}}
    return {"socket_address": {"address": "127.0.0.1", "port_value": int(listen)}}


def _forget(apis: list[Api]) -> Json:
    """Forget what an agent says and only the gateway may say, before anything is asked or added."""
    forged = [*_NEVER_THE_AGENTS_OWN, *(api.header for api in apis if api.header and api.header not in _CREDENTIALS)]
    mutations = [*map(_removed, forged), {"remove_on_match": {"key_matcher": {"prefix": _OURS}}}]
    return _filter("forget", "header_mutation.v3.HeaderMutation", mutations={"request_mutations": mutations})


def _host(route: Route, apis: list[Api]) -> Json:
    base = _base_path(route)
    to_vendor = {
        "match": {"safe_regex": {"regex": route.paths}},
        "route": _target(route, "^/", f"{base}/", timeout_seconds=0),
        "request_headers_to_remove": [name for name in (*_CREDENTIALS, _TURN_HEADER) if name != route.header],
    }
    return {"name": route.name, "domains": ["*"], "routes": [to_vendor, *(one for api in apis for one in _calls(api))]}


def _calls(api: Api) -> list[Json]:
    """Return the routes of an API: each method and path that may be called, with no credential of the agent's own."""
    mutations = {"request_mutations": [_removed(name) for name in _CREDENTIALS]}
    forget = {"@type": _http("header_mutation.v3.HeaderMutationPerRoute"), "mutations": mutations}
    return [
        {
            "match": {
                "path": f"/{api.name}{path}",
                "headers": [{"name": ":method", "string_match": {"exact": method}}],
            },
            "route": _target(api, f"^/{api.name}", _base_path(api, path), timeout_seconds=api.timeout_seconds),
            "typed_per_filter_config": {"forget": forget},
            "request_headers_to_remove": [_TURN_HEADER],
            # A session that is renewed in an answer would be the agent's from then on.
            "response_headers_to_remove": ["set-cookie"],
        }
        for method, path in api.calls
    ]


def _base_path(destination: Destination, path: str = "/") -> str:
    """Return the path of a base URL, so that one below it can be appended; with nothing to append, all of it."""
    whole = destination.upstream.path or "/"
    return whole.rstrip("/") if path else whole


def _target(destination: Destination, ours: str, theirs: str, *, timeout_seconds: int) -> Json:
    return {
        "cluster": destination.name,
        "timeout": f"{timeout_seconds}s",
        "host_rewrite_literal": _authority(destination),
        "regex_rewrite": {"pattern": {"regex": ours}, "substitution": theirs},
    }


def _removed(header: str) -> Json:
    return {"remove": header}


def _authority(destination: Destination) -> str:
    upstream = destination.upstream
    usual = {"https": 443, "http": 80}[upstream.scheme]
    return str(upstream.host) if upstream.port in {None, usual} else f"{upstream.host}:{upstream.port}"


def _ask(route: Route) -> Json:
    """Ask the provider's service; when it does not answer, the answer is no."""
    added = [{"exact": "authorization"}, {"exact": "api-key"}, {"exact": "cookie"}, {"prefix": "x-"}]
    service = {
        "server_uri": {"uri": "http://authz", "cluster": authz_name(route), "timeout": "2s"},
        "path_prefix": "/live",
        "authorization_response": {"allowed_upstream_headers": {"patterns": added}},
    }
    return _filter(
        "authz",
        "ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        failure_mode_allow=False,
        http_service=service,
        allowed_headers={"patterns": [{"exact": header} for header in (route.header, _TURN_HEADER)]},
    )


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
        "@type": f"{TYPE}.extensions.access_loggers.stream.v3.StderrAccessLog",
        "log_format": {"json_format": shown},
    }
    return {"name": "stderr", "typed_config": log}


def _filter(name: str, kind: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": {"@type": _http(kind), **fields}}


def _http(name: str, *, kind: str = "http") -> str:
    return f"{TYPE}.extensions.filters.{kind}.{name}"
