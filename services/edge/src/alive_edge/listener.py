"""Renders for Envoy what callers see. As of Envoy 1.40.

What callers say and only the router may say is forgotten first. Then pages (gRPC-Web) and scripts (JSON) are made to
speak gRPC. For the stream of a turn the router is asked, with the whole request, where it comes from: from a provider,
to which the stream then leads directly, or from the router itself. Everything else is the router's.
"""

import socket
from collections.abc import Iterator
from typing import Any

from alive_edge.clusters import AUTHZ, HTTP2, ROUTER, WINDOW_BYTES, address
from alive_edge.descriptors import SERVICES, descriptors
from alive_edge.settings import EdgeSettings
from alive_edge.tls import Tls

Json = dict[str, Any]

_OURS = "x-alive-"
_CLUSTER = "x-alive-cluster"
"""Where the router's answer says to which cluster a stream leads."""

_LOST = "x-alive-lost-bin"
"""Where it says how the call ends when that cluster cannot be reached: `grpc-status-details-bin`."""

_STREAMS = [f"/alive.agent.v1.AgentService/{name}" for name in ("StartTurn", "WatchTurn", "ReadItemContent")]

_REQUEST_BYTES = 17 << 20
"""How large a request may be: larger than what the router takes, so that the router is who refuses it."""

_CREDENTIALS = ("authorization", "cookie", "x-forwarded-client-cert", "x-forwarded-proto", _CLUSTER)
"""What no provider sees."""

_NO_CALL = "Calls are POST requests: gRPC, gRPC-Web, or JSON to /alive.agent.v1.AgentService/StartTurn and the like.\n"

_WANTED = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
"""Of a filter that a route wants."""

_UNREACHED = {"response_flag_filter": {"flags": ["UF", "UC", "UH", "UR", "UO"]}}


def listeners(settings: EdgeSettings, tls: Tls) -> list[Json]:
    """Return a listener for each address."""
    manager = _manager(settings)
    return [_listener(endpoint, manager, tls) for endpoint in settings.listen.split(",")]


def _listener(endpoint: str, manager: Json, tls: Tls) -> Json:
    chain: Json = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls.callers and not endpoint.startswith("unix:"):
        chain["transport_socket"] = tls.to_callers()
    return {
        "name": endpoint,
        "address": _own_address(endpoint),
        "per_connection_buffer_limit_bytes": WINDOW_BYTES,
        "filter_chains": [chain],
    }


def _own_address(endpoint: str) -> Json:
    """Return an address to listen on: Envoy wants no names there."""
    own = address(endpoint)
    if found := own.get("socket_address"):
        found["address"] = socket.getaddrinfo(found["address"], None, type=socket.SOCK_STREAM)[0][4][0]
    return own


def _manager(settings: EdgeSettings) -> Json:
    return {
        "@type": _type("http_connection_manager.v3.HttpConnectionManager", kind="network"),
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        # nghttp2 ends a connection on which more than 33 calls a second are cancelled, all the others with it.
        "http2_protocol_options": {**HTTP2, "use_oghttp2_codec": True},
        "stream_idle_timeout": "0s",
        "request_headers_timeout": "10s",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "generate_request_id": False,
        "skip_xff_append": True,
        "server_header_transformation": "PASS_THROUGH",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
        "local_reply_config": {"mappers": [_too_large(), _lost(), _away()]},
        "route_config": {"virtual_hosts": [_host(settings)]},
        "http_filters": list(_filters(settings)),
    }


def _filters(settings: EdgeSettings) -> Iterator[Json]:
    yield _filter(
        "forget",
        "header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [{"remove_on_match": {"key_matcher": {"prefix": _OURS}}}]},
    )
    if settings.edge_origins:
        yield _filter("envoy.filters.http.cors", "cors.v3.Cors")
    # Where a route wants them: a stream that is gRPC already does not pass them.
    yield {**_filter("grpc_web", "grpc_web.v3.GrpcWeb"), "disabled": True}
    yield {**_json(), "disabled": True}
    yield _ask()
    yield _filter("router", "router.v3.Router", suppress_envoy_headers=True)


def _json() -> Json:
    """Have scripts speak JSON: a POST to a call's path, one line for each message of a stream."""
    return _filter(
        "json",
        "grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor_bin=descriptors(),
        services=SERVICES,
        auto_mapping=True,
        convert_grpc_status=True,
        print_options={"preserve_proto_field_names": True, "stream_newline_delimited": True},
        max_request_body_size=_REQUEST_BYTES,
    )


def _ask() -> Json:
    """Ask the router; when it does not answer, a call cannot be made."""
    service = {
        "server_uri": {"uri": "http://authz", "cluster": AUTHZ, "timeout": "15s"},
        "authorization_response": {
            "allowed_upstream_headers": {"patterns": [{"exact": _CLUSTER}, {"exact": "x-alive-resolved-bin"}]},
            "dynamic_metadata_from_headers": {"patterns": [{"exact": _LOST}]},
        },
    }
    shown = ("authorization", "x-forwarded-client-cert", "grpc-encoding")
    return _filter(
        "authz",
        "ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        http_service=service,
        allowed_headers={"patterns": [{"exact": header} for header in shown]},
        with_request_body={"max_request_bytes": _REQUEST_BYTES},
        clear_route_cache=True,
        status_on_error={"code": "ServiceUnavailable"},
    )


def _host(settings: EdgeSettings) -> Json:
    host: Json = {"name": "all", "domains": ["*"], "routes": list(_routes())}
    if settings.edge_origins:
        origins = {
            "allow_origin_string_match": [{"exact": origin} for origin in sorted(settings.edge_origins)],
            "allow_methods": "POST",
            "allow_headers": "authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent",
            "expose_headers": "grpc-status,grpc-message,grpc-status-details-bin",
            "max_age": "3600",
        }
        cors = {"@type": _type("cors.v3.CorsPolicy"), **origins}
        host["typed_per_filter_config"] = {"envoy.filters.http.cors": cors}
    return host


def _routes() -> Iterator[Json]:
    """Yield where calls lead. A turn's stream has another route once the router has answered, and what was JSON too."""
    for path in _STREAMS:
        yield {
            "match": {"path": path, "headers": [{"name": _CLUSTER, "string_match": {"prefix": "provider-"}}]},
            "route": {"cluster_header": _CLUSTER, "timeout": "0s"},
            "request_headers_to_remove": list(_CREDENTIALS),
        }
    to_router = {"route": {"cluster": ROUTER, "timeout": "0s"}}
    no_call = {"direct_response": {"status": 404, "body": {"inline_string": _NO_CALL}}}
    for kind, filters in (("application/grpc-web", ("grpc_web",)), ("application/grpc", ()), ("", ("json",))):
        is_it = {"headers": [{"name": "content-type", "string_match": {"prefix": kind}}]} if kind else {}
        wanted = dict.fromkeys(filters, _WANTED)
        for path in _STREAMS:
            yield {"match": {"path": path, **is_it}, **to_router, "typed_per_filter_config": wanted}
        yield {
            "match": {"prefix": "/", **is_it},
            **(to_router if kind else no_call),
            "typed_per_filter_config": {**wanted, "authz": _UNASKED},
        }


_UNASKED = {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
    "disabled": True,
}
"""Of what the router is not asked about: it is led to itself."""


def _too_large() -> Json:
    """Return how a call ends whose request is too large, as it would without an edge: RESOURCE_EXHAUSTED."""
    is_it = {"comparison": {"op": "EQ", "value": {"default_value": 413, "runtime_key": "edge.too_large"}}}
    return {"filter": {"status_code_filter": is_it}, "headers_to_add": [_added("grpc-status", "8")]}


def _lost() -> Json:
    """Return how a stream ends that was led to a provider which is gone: as the router says that it would."""
    key = {"filter": "envoy.filters.http.ext_authz", "path": [{"key": _LOST}], "value": {"present_match": True}}
    is_led = {"metadata_filter": {"matcher": key, "match_if_key_not_found": False}}
    said = f"%DYNAMIC_METADATA(envoy.filters.http.ext_authz:{_LOST})%"
    return {
        "filter": {"and_filter": {"filters": [_UNREACHED, is_led]}},
        "headers_to_add": [_added("grpc-status-details-bin", said)],
        "body_format_override": {"text_format_source": {"inline_string": "the provider went away: watch the turn"}},
    }


def _away() -> Json:
    """Return how a call ends that the router cannot be asked about, or cannot answer."""
    return {
        "filter": {"or_filter": {"filters": [_UNREACHED, {"response_flag_filter": {"flags": ["UAEX"]}}]}},
        "status_code": 503,
        "body_format_override": {"text_format_source": {"inline_string": "the router cannot be reached: try again"}},
    }


def _added(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _filter(name: str, kind: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": {"@type": _type(kind), **fields}}


def _type(name: str, *, kind: str = "http") -> str:
    return f"type.googleapis.com/envoy.extensions.filters.{kind}.{name}"
