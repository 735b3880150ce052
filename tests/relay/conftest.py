"""A router in front of fake providers, everything over real sockets."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alive.agent.v1 import workspace_service_pb2_grpc
from alive_kit.testing.fakes import FakeProvider
from alive_kit.testing.harness import Caller, calling, serving
from alive_router.service import RouterService
from alive_router.settings import RouterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A router, two providers behind it, and a caller of it."""

    caller: Caller
    """Calls the router."""
    workspaces: "workspace_service_pb2_grpc.WorkspaceServiceAsyncStub"
    providers: dict[str, FakeProvider]
    services: dict[str, Caller]
    """Call the providers directly."""
    directory: Path
    router: RouterService


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Return a router in front of the providers ``red`` and ``blue``; red is the default."""
    async with running("red", "blue") as system:
        yield system


@contextlib.asynccontextmanager
async def running(*names: str, absent: str = "", **settings: Any) -> AsyncIterator[System]:
    """Run a router in front of fake providers, and of one that is configured and not there."""
    async with contextlib.AsyncExitStack() as exits:
        temporary = tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True)
        directory = Path(exits.enter_context(temporary))
        workspaces = directory / "workspaces"
        (workspaces / "demo").mkdir(parents=True)
        providers = {name: FakeProvider(provider_id=name) for name in names}
        services, endpoints = {}, {}
        for name, provider in providers.items():
            home = directory / name
            home.mkdir()
            services[name] = await exits.enter_async_context(serving(provider, home, workspaces=workspaces))
            endpoints[name] = f"unix:{home}/agent.sock"
        if absent:
            endpoints[absent] = f"unix:{directory}/absent.sock"
        values = {"listen": f"unix:{directory}/router.sock", "providers": endpoints, "workspaces": workspaces}
        router = await RouterService.create(RouterSettings(**{**values, "state_dir": directory, **settings}))
        await router.start()
        exits.push_async_callback(router.stop, 0.0)
        caller = await exits.enter_async_context(calling(str(values["listen"]), workspaces))
        stub = workspace_service_pb2_grpc.WorkspaceServiceStub(caller.channel)
        yield System(
            caller=caller,
            workspaces=stub,
            providers=providers,
            services=services,
            directory=directory,
            router=router,
        )
