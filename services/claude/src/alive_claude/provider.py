"""Claude Code as a provider: looks at its surroundings, says what it can do, starts agents."""

from collections.abc import Iterable
from importlib.metadata import version

from claude_agent_sdk._cli_version import __cli_version__

from alive.agent.v1 import agent_service_pb2, error_pb2, provider_pb2
from alive_claude.agent import ClaudeAgent
from alive_claude.capabilities import capabilities
from alive_claude.environment import cli_environment, version_environment
from alive_claude.models import MODELS
from alive_claude.options import refusals
from alive_claude.settings import ClaudeSettings
from alive_kit.apis import Apis
from alive_kit.failures import failure
from alive_kit.provider import TurnSpec, Unsupported
from alive_kit.surroundings import NotReady, VendorCli, read_key
from alive_kit.walls import Walls, WallSettings

_KEY_VARIABLE = "ALIVE_ANTHROPIC_API_KEY_FILE"


class ClaudeProvider:
    """Claude Code through claude-agent-sdk."""

    provider_id = "claude"

    def __init__(self, settings: ClaudeSettings, walls: Walls) -> None:
        self._settings = settings
        self._walls = walls
        self._cli = VendorCli(
            program=settings.claude_cli, variable="ALIVE_CLAUDE_CLI", says="Claude Code", tested=__cli_version__
        )

    async def probe(self) -> provider_pb2.ProviderInfo:
        """Look for the CLI and the key, and describe the provider."""
        info = provider_pb2.ProviderInfo(
            provider_id=self.provider_id,
            vendor="anthropic",
            display_name="Claude",
            versions=provider_pb2.Versions(service=version("alive-claude"), sdk=version("claude-agent-sdk")),
            readiness=provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_READY),
            capabilities=capabilities(self._walls),
            models=MODELS,
        )
        try:
            await self._walls.probe()
            info.versions.cli = await self._cli.version(version_environment())
            if not self._settings.authz_listen:
                read_key(self._settings.anthropic_api_key_file, _KEY_VARIABLE)
        except NotReady as finding:
            info.readiness.state = provider_pb2.READINESS_STATE_NOT_READY
            info.readiness.reason = str(finding)
        info.wall_level = self._walls.level
        return info

    def unsupported(self, request: agent_service_pb2.StartTurnRequest, native_session: str) -> Iterable[Unsupported]:
        """Yield every option that would not be honoured."""
        yield from self._walls.refusals(request)
        yield from refusals(request, boxed=self._walls.stand)

    async def start(self, spec: TurnSpec) -> ClaudeAgent:
        """Start a CLI for a turn, resuming its session if it has one."""
        try:
            key = spec.token or read_key(self._settings.anthropic_api_key_file, _KEY_VARIABLE)
        except NotReady as finding:
            raise failure(error_pb2.FAILURE_REASON_AUTH) from finding
        environment = cli_environment(self._settings, spec.workspace, key)
        launch = self._walls.launch(self._settings.claude_cli, environment, spec.workspace, spec.request.permissions)
        agent = ClaudeAgent(spec, launch)
        try:
            await agent.connect()
        except BaseException:
            await agent.close()
            raise
        return agent


def create_provider() -> ClaudeProvider:
    """Return the provider as its environment describes it."""
    return ClaudeProvider(ClaudeSettings(), Walls(WallSettings(), Apis()))
