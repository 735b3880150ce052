"""Runs the router, from its settings to its drain."""

import asyncio
import contextlib
import logging
import sys
from datetime import UTC, datetime, timedelta
from typing import TypedDict

import uvloop
from pydantic import ValidationError

from alive.agent.v1 import agent_service_pb2, workspace_service_pb2
from alive_kit import logs
from alive_kit.errors import StoreUnavailable
from alive_kit.rpc import handler_of
from alive_kit.server import Server, until_signalled
from alive_kit.settings import explain
from alive_kit.workspaces import Workspaces
from alive_router.agent_servicer import AgentServicer
from alive_router.bookkeeper import Bookkeeper
from alive_router.busy import Busy
from alive_router.callers import Callers
from alive_router.database import Database
from alive_router.decisions import Decisions
from alive_router.edge import EdgeServer
from alive_router.handover import Handover
from alive_router.ledger import Ledger
from alive_router.planner import Planner
from alive_router.policy import Policy
from alive_router.providers import ProviderLinks
from alive_router.quota import Quota
from alive_router.relay import Relays
from alive_router.rollouts import Rollouts
from alive_router.settings import RouterSettings
from alive_router.standing import Standing
from alive_router.starts import Starts
from alive_router.store import Store
from alive_router.workspace_servicer import WorkspaceServicer

logger = logging.getLogger(__name__)

_AGENT = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
_WORKSPACE = workspace_service_pb2.DESCRIPTOR.services_by_name["WorkspaceService"]

_FORGET_SECONDS = 3600.0
"""How often it is looked for what is too old."""


class _Common(TypedDict):
    """What both services need."""

    policy: Policy
    links: ProviderLinks
    store: Store
    workspaces: Workspaces
    standing: Standing


END_SECONDS = 1.0
"""How long calls may still deliver how they ended."""


class RouterService:
    """The router behind a gRPC server."""

    def __init__(self, settings: RouterSettings, database: Database) -> None:
        self._database = database
        self._links = ProviderLinks(settings.providers, settings.provider_tls)
        self._callers = Callers(settings.callers_file, is_behind_edge=bool(settings.edge_listen))
        self._store = Store(database)
        self._ledger = Ledger(database, keep=timedelta(seconds=settings.usage_keep_seconds))
        self._turn_keep = timedelta(seconds=settings.turn_keep_seconds)
        default = settings.chosen_default
        common: _Common = {
            "policy": Policy(endpoints=settings.providers, disabled=settings.disabled_providers, default=default),
            "links": self._links,
            "store": self._store,
            "workspaces": Workspaces(root=settings.workspaces, homes=settings.state_dir),
            "standing": Standing(
                callers=self._callers,
                rollouts=Rollouts(database, list(settings.providers), settings.rollouts, default),
                quota=Quota(self._ledger),
            ),
        }
        self._planner = Planner(
            policy=common["policy"],
            store=self._store,
            standing=common["standing"],
            workspaces=common["workspaces"],
        )
        starts = Starts(
            planner=self._planner,
            links=self._links,
            store=self._store,
            relays=Relays(),
            handover=Handover(links=self._links, bytes=settings.handover_bytes),
            busy=Busy(links=self._links),
            is_behind_edge=bool(settings.edge_listen),
        )
        self._agents = AgentServicer(**common, starts=starts)
        self._edge = EdgeServer(self._decisions(starts), settings.edge_listen) if settings.edge_listen else None
        self.server = Server(settings.listen, settings.tls)
        self.server.add(_AGENT, handler_of(_AGENT, self._agents, self._callers.admit))
        workspace_servicer = WorkspaceServicer(**common, ledger=self._ledger)
        self.server.add(_WORKSPACE, handler_of(_WORKSPACE, workspace_servicer, self._callers.admit))
        self._tasks: list[asyncio.Task[None]] = []

    def _decisions(self, starts: Starts) -> Decisions:
        return Decisions(
            planner=self._planner,
            store=self._store,
            links=self._links,
            workspaces=self._planner.workspaces,
            callers=self._callers,
            busy=starts.busy,
        )

    @classmethod
    async def create(cls, settings: RouterSettings) -> "RouterService":
        """Open the store, bring its tables up to date, and return the router over it.

        Raises:
            OSError: the router's own directory cannot be made.
            StoreUnavailable: the store cannot be used.
        """
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # At once.
        database = Database(settings.store_url)
        await database.migrate()
        return cls(settings, database)

    async def start(self) -> None:
        """Serve, and book what the providers say of turns."""
        if not self._callers.are_declared:
            logger.warning("OPEN: anybody on this host may call, for every workspace: set ALIVE_CALLERS_FILE")
        await self.server.start()
        if self._edge:
            await self._edge.start()
        await self.server.set_serving(["", _AGENT.full_name, _WORKSPACE.full_name], serving=True)
        self._tasks = [asyncio.create_task(Bookkeeper(link, self._ledger).run()) for link in self._links]
        self._tasks.append(asyncio.create_task(self._keep_forgetting(), name="forgetting"))

    async def stop(self, grace: float) -> None:
        """Take no new turns, let running streams end within a grace (seconds), and stop serving.

        Streams that have not ended then end as lost: their turns run on, and their callers watch them elsewhere.
        """
        self._planner.is_draining = True
        await self.server.set_serving(["", _AGENT.full_name], serving=False)
        await self._agents.relays.end(grace)
        await self.server.stop(END_SECONDS)
        if self._edge:
            await self._edge.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._links.close()
        await self._database.close()

    async def _keep_forgetting(self) -> None:
        """Forget, again and again, what has been kept long enough."""
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self._store.forget_older(datetime.now(UTC) - self._turn_keep)
                await self._ledger.forget_older()
            await asyncio.sleep(_FORGET_SECONDS)


def main() -> None:
    """Run the router until SIGTERM; exit with 2 and one line when a setting is wrong, or its store cannot be used."""
    try:
        settings = RouterSettings()  # type: ignore[call-arg]  # pydantic fills it from the environment
    except ValidationError as error:
        sys.exit(explain(error))
    logs.configure(settings.log_level, "router")
    try:
        uvloop.run(_serve(settings))
    except (OSError, StoreUnavailable) as error:
        name = "ALIVE_DATABASE_URL" if settings.database_url else "ALIVE_STATE_DIR"
        why = str(error.__cause__ or error).splitlines()[0]
        sys.stderr.write(f"{name}: the store cannot be used ({why}): see to it that it is there, and may be written\n")
        sys.exit(2)


async def _serve(settings: RouterSettings) -> None:
    router = await RouterService.create(settings)
    await router.start()
    logger.info("serving on %s", settings.listen)
    await until_signalled()
    logger.info("draining")
    await router.stop(settings.drain_seconds)
