"""Runs the router, from its settings to its drain."""

import asyncio
import logging
import sys

from pydantic import ValidationError

from alive.agent.v1 import agent_service_pb2, workspace_service_pb2
from alive_kit import logs
from alive_kit.rpc import handler_of
from alive_kit.server import Server, until_signalled
from alive_kit.settings import explain
from alive_kit.workspaces import Workspaces
from alive_router.agent_servicer import AgentServicer
from alive_router.handover import Handover
from alive_router.policy import Policy
from alive_router.providers import ProviderLinks
from alive_router.relay import Relays
from alive_router.settings import RouterSettings
from alive_router.starts import Starts
from alive_router.store import Store
from alive_router.workspace_servicer import WorkspaceServicer

logger = logging.getLogger(__name__)

_AGENT = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
_WORKSPACE = workspace_service_pb2.DESCRIPTOR.services_by_name["WorkspaceService"]


END_SECONDS = 1.0
"""How long calls may still deliver how they ended."""


class RouterService:
    """The router behind a gRPC server."""

    def __init__(self, settings: RouterSettings, store: Store) -> None:
        self._store = store
        self._links = ProviderLinks(settings.providers, settings.provider_tls)
        policy = Policy(
            endpoints=settings.providers, disabled=settings.disabled_providers, default=settings.chosen_default
        )
        workspaces = Workspaces(root=settings.workspaces, homes=settings.state_dir)
        starts = Starts(
            policy=policy,
            links=self._links,
            store=store,
            relays=Relays(),
            handover=Handover(links=self._links, bytes=settings.handover_bytes),
        )
        self._agents = AgentServicer(
            policy=policy, links=self._links, store=store, workspaces=workspaces, starts=starts
        )
        self.server = Server(settings.listen, settings.tls)
        self.server.add(_AGENT, handler_of(_AGENT, self._agents))
        workspace_servicer = WorkspaceServicer(policy, self._links, store, workspaces)
        self.server.add(_WORKSPACE, handler_of(_WORKSPACE, workspace_servicer))

    @classmethod
    async def create(cls, settings: RouterSettings) -> "RouterService":
        """Open the store and return the router over it."""
        return cls(settings, await Store.open(settings.store_url))

    async def start(self) -> None:
        """Serve."""
        await self.server.start()
        await self.server.set_serving(["", _AGENT.full_name, _WORKSPACE.full_name], serving=True)

    async def stop(self, grace: float) -> None:
        """Take no new turns, let running streams end within a grace (seconds), and stop serving.

        Streams that have not ended then end as lost: their turns run on, and their callers watch them elsewhere.
        """
        self._agents.is_draining = True
        await self.server.set_serving(["", _AGENT.full_name], serving=False)
        await self._agents.relays.end(grace)
        await self.server.stop(END_SECONDS)
        await self._links.close()
        await self._store.close()


def main() -> None:
    """Run the router until SIGTERM; exit with 2 and one line when a setting is wrong."""
    try:
        settings = RouterSettings()  # type: ignore[call-arg]  # pydantic fills it from the environment
    except ValidationError as error:
        sys.exit(explain(error))
    logs.configure(settings.log_level, "router")
    asyncio.run(_serve(settings))


async def _serve(settings: RouterSettings) -> None:
    router = await RouterService.create(settings)
    await router.start()
    logger.info("serving on %s", settings.listen)
    await until_signalled()
    logger.info("draining")
    await router.stop(settings.drain_seconds)
