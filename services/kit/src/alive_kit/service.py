"""Runs a provider as a service, from its settings to its drain."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable

from pydantic import ValidationError

from alive.agent.v1 import agent_service_pb2, outcome_service_pb2, provider_pb2
from alive_kit import launch, logs
from alive_kit.admission import Admission
from alive_kit.apis import Apis
from alive_kit.authz import AuthzServer, TurnTokens
from alive_kit.database import Unusable, keep_checkpointing, open_database
from alive_kit.default_tools import DefaultTools, ToolSettings
from alive_kit.journal import Journal
from alive_kit.load import Load
from alive_kit.mcp_launch import McpLaunch
from alive_kit.outbox import Outbox
from alive_kit.outcome_servicer import OutcomeServicer
from alive_kit.provider import Provider
from alive_kit.readiness import Readiness
from alive_kit.recovery import end_crashed
from alive_kit.retention import Retention
from alive_kit.rpc import handler_of
from alive_kit.server import Server, until_signalled
from alive_kit.servicer import AgentServicer
from alive_kit.sessions import Sessions
from alive_kit.settings import ServiceSettings, explain
from alive_kit.turns import TurnTable
from alive_kit.validation import SETTINGS_BYTES
from alive_kit.warm import WarmAgents
from alive_kit.workspaces import Workspaces

logger = logging.getLogger(__name__)

_AGENT_SERVICE = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
_OUTCOME_SERVICE = outcome_service_pb2.DESCRIPTOR.services_by_name["OutcomeService"]

METADATA_BYTES = 2 * SETTINGS_BYTES
"""What is accepted of metadata: a workspace's settings travel there (`ResolvedTurn`), as base64."""

END_SECONDS = 1.0
"""How long streams may still deliver their last events once every turn has ended."""


class ProviderService:
    """A provider behind a gRPC server."""

    def __init__(self, provider: Provider, settings: ServiceSettings) -> None:
        self._settings = settings
        self.server = Server(settings.listen, settings.tls, metadata_bytes=METADATA_BYTES)
        workspaces = Workspaces(root=settings.workspaces, homes=settings.homes or settings.state_dir / "homes")
        mcp = McpLaunch(path=settings.mcp_path, environment=os.environ)
        tokens = TurnTokens() if settings.authz_listen else None
        self._authz = AuthzServer(tokens, settings.authz_listen) if tokens else None
        apis = Apis()
        self.agents = WarmAgents(provider, settings.warmth(), tokens, apis.lead)
        self._path = settings.state_dir / "turns.sqlite"
        self._database = open_database(self._path)
        self._journal = Journal(self._database)
        self._sessions = Sessions(self._database, provider.provider_id)
        self._outbox = Outbox(self._database, provider.provider_id)
        self._turns = TurnTable(
            provider=provider,
            workspaces=workspaces,
            bounds=settings.bounds(),
            mcp=mcp,
            tools=DefaultTools(settings=ToolSettings(), path=settings.mcp_path),
            apis=apis,
            agents=self.agents,
            journal=self._journal,
            sessions=self._sessions,
            outbox=self._outbox,
            retention=Retention(
                journal=self._journal,
                outbox=self._outbox,
                seconds=settings.keep_seconds,
                size=settings.keep_bytes,
                outcome_seconds=settings.outcome_keep_seconds,
            ),
            admission=Admission(settings.capacity(), time.monotonic),
            load=Load(busy=settings.busy_load, overloaded=settings.overload),
        )
        self._readiness = Readiness(provider, self._show_readiness)
        servicer = AgentServicer(self._turns, self._sessions, workspaces, self._readiness)
        self.server.add(_AGENT_SERVICE, handler_of(_AGENT_SERVICE, servicer))
        self.server.add(_OUTCOME_SERVICE, handler_of(_OUTCOME_SERVICE, OutcomeServicer(self._outbox)))
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def info(self) -> provider_pb2.ProviderInfo:
        """The provider as last probed."""
        return self._readiness.info

    async def start(self) -> None:
        """Serve; the provider is probed meanwhile, so that starting never waits for a CLI."""
        end_crashed(self._journal, self._sessions, self._outbox, self.info.provider_id)
        if self._authz:
            await self._authz.start()
        await self._show_readiness(provider_pb2.Readiness())
        await self.server.start()
        self._tasks = [
            asyncio.create_task(self._readiness.keep_probing(), name="probing"),
            asyncio.create_task(keep_checkpointing(self._path), name="checkpoints"),
        ]

    async def probed(self) -> None:
        """Return when the provider has been probed once, ready or not."""
        await self._readiness.probed.wait()

    async def stop(self, grace: float) -> None:
        """Take no new turns, let running ones end within a grace (seconds), and stop serving."""
        await self._readiness.drain()
        for task in self._tasks:
            task.cancel()
        await self._turns.drain(grace=grace)
        self._outbox.close()
        await self.server.stop(END_SECONDS)
        if self._authz:
            await self._authz.stop()
        self._database.close()

    async def _show_readiness(self, readiness: provider_pb2.Readiness) -> None:
        serving = readiness.state == provider_pb2.READINESS_STATE_READY
        await self.server.set_serving(["", _AGENT_SERVICE.full_name], serving=serving)


def main(create_provider: Callable[[], Provider]) -> None:
    """Run a provider's service until SIGTERM; exit with 2 and one line where it cannot start."""
    try:
        settings = ServiceSettings()  # type: ignore[call-arg]  # pydantic fills it from the environment
        provider = create_provider()
    except ValidationError as error:
        sys.exit(explain(error))
    os.umask(0o007)  # What agents write belongs to the workspace's group.
    logs.configure(settings.log_level, provider.provider_id)
    launch.adopt_orphans()
    try:
        asyncio.run(_serve(provider, settings))
    except Unusable as unusable:
        sys.stderr.write(f"{unusable}\n")
        sys.exit(2)


async def _serve(provider: Provider, settings: ServiceSettings) -> None:
    service = ProviderService(provider, settings)
    await service.start()
    logger.info("serving on %s", settings.listen)
    await until_signalled()
    logger.info("draining")
    await service.stop(settings.drain_seconds)
