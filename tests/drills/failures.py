"""What fails, and how: each failure is caused, and cured once the turn may go on."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from .site import Site, send

AWAY_SECONDS = 2.0
"""How long what is stopped or gone for a while is away."""

Cause = Callable[[Site], AbstractAsyncContextManager[None]]
"""Causes a failure at once, and cures it at the end of the block."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One part that fails in one way."""

    cause: Cause
    ends: frozenset[str]
    """How a turn may end: ``completed``, or the reason of its failure."""
    phases: frozenset[str] = frozenset()
    """The phases of a turn in which it makes a difference; all without any."""


def _killed(find: Callable[[Site], list[int]]) -> Cause:
    @contextlib.asynccontextmanager
    async def cause(site: Site) -> AsyncIterator[None]:
        send(_found(find, site), signal.SIGKILL)
        yield

    return cause


def _stopped(find: Callable[[Site], list[int]], *, for_good: bool = False) -> Cause:
    """Have processes stand still: until the turn has ended, or for a while."""

    @contextlib.asynccontextmanager
    async def cause(site: Site) -> AsyncIterator[None]:
        processes = _found(find, site)
        send(processes, signal.SIGSTOP)
        try:
            if not for_good:
                await asyncio.sleep(AWAY_SECONDS)
                send(processes, signal.SIGCONT)
            yield
        finally:
            send(processes, signal.SIGCONT)

    return cause


def _found(find: Callable[[Site], list[int]], site: Site) -> list[int]:
    processes = find(site)
    assert processes, "there is nothing that could fail"
    return processes


@contextlib.asynccontextmanager
async def _database_gone(site: Site) -> AsyncIterator[None]:
    """Stop the database, and start it again after a while."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, site.database.stop)
    await asyncio.sleep(AWAY_SECONDS)
    await loop.run_in_executor(None, site.database.start)
    yield


@contextlib.asynccontextmanager
async def _disk_full(site: Site) -> AsyncIterator[None]:
    """Fill the disk on which the provider's service keeps turns, until the turn has ended."""
    filler = site.running.state / site.provider / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


def _cli(site: Site) -> list[int]:
    return site.agents("codex" if site.provider == "codex" else "claude")


def _mcp_server(site: Site) -> list[int]:
    return site.agents("drill_server.py")


def _service(module: str) -> Callable[[Site], list[int]]:
    return lambda site: site.service(module.format(provider=site.provider))


_PROVIDER, _ROUTER = _service("alive_{provider}"), _service("alive_router")
_GATEWAY, _MODEL = _service("alive_gateway"), _service("alive_kit.testing.scripted_model")

_COMPLETED = frozenset({"completed"})
_CUT = frozenset({"completed", "NETWORK"})
"""The way to the model breaks: the CLI asks again, as often as it may."""
_SILENT = frozenset({"IDLE_TIMEOUT", "TIMEOUT", "NETWORK"})
_WITH_SERVER = frozenset({"starting", "tool"})
_AT_THE_MODEL = frozenset({"asking", "speaking"})

FAILURES = {
    "CLI killed": Failure(cause=_killed(_cli), ends=frozenset({"CRASHED"})),
    "CLI stopped": Failure(cause=_stopped(_cli, for_good=True), ends=_SILENT),
    "MCP server killed": Failure(cause=_killed(_mcp_server), ends=_COMPLETED, phases=_WITH_SERVER),
    "MCP server stopped": Failure(
        cause=_stopped(_mcp_server, for_good=True), ends=_COMPLETED, phases=frozenset({"tool"})
    ),
    "provider killed": Failure(cause=_killed(_PROVIDER), ends=frozenset({"CRASHED"})),
    "provider stopped for a while": Failure(cause=_stopped(_PROVIDER), ends=_COMPLETED),
    "launcher killed": Failure(cause=_killed(Site.launcher), ends=frozenset({"CRASHED", "completed"})),
    "router killed": Failure(cause=_killed(_ROUTER), ends=_COMPLETED),
    "router stopped for a while": Failure(cause=_stopped(_ROUTER), ends=_COMPLETED),
    "gateway killed": Failure(cause=_killed(_GATEWAY), ends=_CUT),
    "gateway stopped for a while": Failure(cause=_stopped(_GATEWAY), ends=_COMPLETED),
    "model stopped for a while": Failure(cause=_stopped(_MODEL), ends=_COMPLETED),
    "model silent": Failure(cause=_stopped(_MODEL, for_good=True), ends=_SILENT, phases=_AT_THE_MODEL),
    "disk full": Failure(cause=_disk_full, ends=frozenset({"STORAGE", "completed"})),
    "database gone for a while": Failure(cause=_database_gone, ends=_COMPLETED),
}
