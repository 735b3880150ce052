"""The Codex CLI as a provider: looks at its surroundings, says what it can do, starts agents."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version

from openai_codex.errors import CodexError

from alive.agent.v1 import agent_service_pb2, error_pb2, options_pb2, provider_pb2
from alive_codex.agent import CodexAgent
from alive_codex.app_server import AppServer
from alive_codex.capabilities import capabilities
from alive_codex.environment import cli_environment, compact_databases, configure, version_environment
from alive_codex.models import MODELS
from alive_codex.options import refusals, thread_params
from alive_codex.settings import CodexSettings
from alive_kit.apis import Apis
from alive_kit.failures import failure
from alive_kit.provider import TurnSpec, Unsupported
from alive_kit.resume import Resume
from alive_kit.surroundings import NotReady, VendorCli, read_key
from alive_kit.walls import Walls, WallSettings
from alive_kit.workspaces import Workspace

_KEY_VARIABLE = "ALIVE_OPENAI_API_KEY_FILE"


class CodexProvider:
    """The Codex CLI through openai-codex's app-server client."""

    provider_id = "codex"
    per_turn = ("agent.output_schema", "limits.max_turns")

    def __init__(self, settings: CodexSettings, walls: Walls) -> None:
        self._settings = settings
        self._walls = walls
        self._starting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        tested = version("openai-codex-cli-bin")
        self._cli = VendorCli(program=settings.codex_cli, variable="ALIVE_CODEX_CLI", says="codex", tested=tested)

    async def probe(self) -> provider_pb2.ProviderInfo:
        """Look for the CLI and the key, and describe the provider."""
        info = provider_pb2.ProviderInfo(
            provider_id=self.provider_id,
            vendor="openai",
            display_name="Codex",
            versions=provider_pb2.Versions(service=version("alive-codex"), sdk=version("openai-codex")),
            readiness=provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_READY),
            capabilities=capabilities(self._walls),
            models=MODELS,
        )
        try:
            await self._walls.probe()
            info.versions.cli = await self._cli.version(version_environment())
            if not self._settings.authz_listen:
                read_key(self._settings.openai_api_key_file, _KEY_VARIABLE)
        except NotReady as finding:
            info.readiness.state = provider_pb2.READINESS_STATE_NOT_READY
            info.readiness.reason = str(finding)
        info.wall_level = self._walls.level
        return info

    def unsupported(self, request: agent_service_pb2.StartTurnRequest, resume: Resume | None) -> Iterable[Unsupported]:
        """Yield every option that would not be honoured."""
        yield from self._walls.refusals(request)
        yield from refusals(request, boxed=self._walls.stand)
        if request.ephemeral and resume:
            yield Unsupported(field="ephemeral", why="a turn of a session that is kept is kept with it")
        append = request.agent.system_prompt.append
        if append and resume and append != resume.system_append:
            yield Unsupported(field="agent.system_prompt.append", why="a resumed session keeps the text it began with")

    def has_file_tools(self, request: agent_service_pb2.StartTurnRequest) -> bool:
        """Return True: the CLI's own cannot be switched off (codex 0.163.0)."""
        return True

    async def start(self, spec: TurnSpec) -> CodexAgent:
        """Start an app-server for a turn and those that follow, with the session's thread resumed if there is one."""
        try:
            key = spec.token or read_key(self._settings.openai_api_key_file, _KEY_VARIABLE)
        except NotReady as finding:
            raise failure(error_pb2.FAILURE_REASON_AUTH) from finding
        environment = cli_environment(spec.workspace)
        launch = self._walls.launch(self._settings.codex_cli, environment, spec.workspace, spec.request.permissions)
        configure(launch, spec.workspace)
        agent = CodexAgent(spec, launch, level=self._walls.level)
        try:
            async with self._alone_in_home(spec.workspace):
                await agent.start()
            await agent.open(thread_params(spec, self._settings, key, launch.marker, self._walls.level))
        except BaseException:
            await agent.close()
            raise
        return agent

    def _alone_in_home(self, workspace: Workspace) -> contextlib.AbstractAsyncContextManager[object]:
        """Let one CLI at a time start in a home: two that make its databases at once both fail (codex 0.163.0)."""
        return contextlib.nullcontext() if self._walls.stand else self._starting[workspace.workspace_id]

    async def delete(self, workspace: Workspace, native_session: str) -> bool:
        """Have the CLI delete a thread: its rollout, and what its databases say of it. Forks refer to it (0.163.0)."""
        launch = self._walls.launch(
            self._settings.codex_cli, cli_environment(workspace), workspace, options_pb2.Permissions()
        )
        configure(launch, workspace)
        server = AppServer(launch)
        try:
            async with self._alone_in_home(workspace):
                await server.start()
            await server.request("thread/delete", {"threadId": native_session})
        except CodexError as error:
            if "forked history still references it" in str(error):
                return False
            if "not found" not in str(error) and "no rollout" not in str(error):
                raise
        finally:
            await server.close()
        if not self._walls.stand:  # In a box they are gone with it.
            await asyncio.to_thread(compact_databases, workspace)
        return True


def create_provider() -> CodexProvider:
    """Return the provider as its environment describes it."""
    return CodexProvider(CodexSettings(), Walls(WallSettings(), Apis()))
