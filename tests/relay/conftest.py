"""A router in front of fake providers, everything over real sockets."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from alive.agent.v1 import workspace_service_pb2_grpc
from alive_edge.envoy import start
from alive_edge.settings import EdgeSettings
from alive_kit.testing.fakes import FakeProvider
from alive_kit.testing.harness import Caller, calling, serving
from alive_kit.testing.postgres import NoPostgres, Postgres, running_postgres
from alive_router.service import RouterService
from alive_router.settings import RouterSettings
from alive_stack.stack import free_address, listens

BOUND = 15


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
    address: str
    """Where callers reach it."""
    has_edge: bool
    """Whether that is the edge."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a PostgreSQL server; skip where there is none."""
    try:
        with running_postgres() as server:
            yield server
    except NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["sqlite", "postgresql", "edge"], autouse=True)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have every router of a test keep what it knows in an empty database, of each kind; return its URL.

    And once more, on SQLite, behind the edge.
    """
    SURROUNDINGS.update(database_url="", has_edge=request.param == "edge")
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        SURROUNDINGS["database_url"] = server.new_database()
    yield str(SURROUNDINGS["database_url"])
    SURROUNDINGS.update(database_url="", has_edge=False)


SURROUNDINGS: dict[str, Any] = {"database_url": "", "has_edge": False}
"""Where `running` has its routers keep what they know, empty for a file in their state directory; and whether callers
reach them by way of an edge."""


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Return a router in front of the providers ``red`` and ``blue``; red is the default."""
    async with running("red", "blue") as system:
        yield system


@contextlib.asynccontextmanager
async def running(
    *names: str, absent: str = "", service_settings: Mapping[str, Any] = MappingProxyType({}), **settings: Any
) -> AsyncIterator[System]:
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
            own = service_settings.get(name, {})
            services[name] = await exits.enter_async_context(serving(provider, home, workspaces=workspaces, **own))
            endpoints[name] = f"unix:{home}/agent.sock"
        if absent:
            endpoints[absent] = f"unix:{directory}/absent.sock"
        values: dict[str, Any] = {
            "listen": f"unix:{directory}/router.sock",
            "providers": endpoints,
            "workspaces": workspaces,
        }
        values |= {"state_dir": directory, "database_url": SURROUNDINGS["database_url"], **settings}
        has_edge = bool(SURROUNDINGS["has_edge"])
        address = str(values["listen"])
        if has_edge:
            values |= {"listen": f"unix:{directory}/router.sock", "edge_listen": f"unix:{directory}/authz.sock"}
        router = await RouterService.create(RouterSettings(**values))
        await router.start()
        exits.push_async_callback(router.stop, 0.0)
        if has_edge:
            address = await exits.enter_async_context(edge(address, values))
        elif router.server.port:
            address = f"localhost:{router.server.port}"
        caller = await exits.enter_async_context(calling(address, workspaces))
        stub = workspace_service_pb2_grpc.WorkspaceServiceStub(caller.channel)
        yield System(
            caller=caller,
            workspaces=stub,
            providers=providers,
            services=services,
            directory=directory,
            router=router,
            address=address,
            has_edge=has_edge,
        )


@contextlib.asynccontextmanager
async def edge(listen: str, values: Mapping[str, Any]) -> AsyncIterator[str]:
    """Run the edge in front of a router with these settings; yield its address once it listens."""
    address = free_address("localhost") if listen.endswith(":0") else f"{values['listen']}.edge"
    own: dict[str, Any] = {"listen": address, "router": values["listen"], "edge_authz": values["edge_listen"]}
    own |= {name: value for name, value in values.items() if name.startswith(("tls_", "edge_origins"))}
    state = Path(values["listen"].removeprefix("unix:")).with_suffix(".state")
    settings = EdgeSettings(**own, providers=values["providers"], state_dir=state)
    settings.state_dir.mkdir()
    envoy = await start(settings)
    try:
        async with asyncio.timeout(BOUND):
            while not await listens(address):
                await asyncio.sleep(0.01)
        yield address
    finally:
        envoy.terminate()
        await envoy.wait()


def beside(system: System) -> "contextlib.AbstractAsyncContextManager[System]":
    """Run a second router in front of a system's providers, on the same database."""
    endpoints = {name: f"unix:{system.directory}/{name}/agent.sock" for name in system.providers}
    return running(providers=endpoints, workspaces=system.caller.workspaces, state_dir=system.directory)
