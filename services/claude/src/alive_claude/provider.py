"""Claude Code as a provider: looks at its surroundings, says what it can do, starts agents."""

from collections.abc import Iterable
from importlib.metadata import version

from claude_agent_sdk._cli_version import __cli_version__

from alive.agent.v1 import agent_service_pb2, error_pb2, provider_pb2
from alive_claude.agent import ClaudeAgent
from alive_claude.capabilities import capabilities
from alive_claude.environment import cli_environment, version_environment
from alive_claude.models import MODELS
from alive_claude.options import has_file_tools, refusals
from alive_claude.settings import ClaudeSettings
from alive_kit.apis import Apis
from alive_kit.errors import TurnFailure
from alive_kit.failures import failure
from alive_kit.provider import TurnSpec, Unsupported
from alive_kit.resume import Resume
from alive_kit.surroundings import NotReady, VendorCli, read_key
from alive_kit.walls import Walls, WallSettings
from alive_kit.workspaces import Workspace

_KEY_VARIABLE = "ALIVE_ANTHROPIC_API_KEY_FILE"


class ClaudeProvider:
    """Claude Code through claude-agent-sdk."""

    provider_id = "claude"
    per_turn = ("agent.model",)

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

    def unsupported(self, request: agent_service_pb2.StartTurnRequest, resume: Resume | None) -> Iterable[Unsupported]:
        """Yield every option that would not be honoured."""
        yield from self._walls.refusals(request)
        yield from refusals(request, boxed=self._walls.stand)

    def has_file_tools(self, request: agent_service_pb2.StartTurnRequest) -> bool:
        """Whether any of the CLI's own is left: they can be switched off by name."""
        return has_file_tools(request.permissions)

    async def start(self, spec: TurnSpec) -> ClaudeAgent:
        """Start a CLI for a turn and those that follow, resuming the session if there is one."""
        try:
            key = spec.token or read_key(self._settings.anthropic_api_key_file, _KEY_VARIABLE)
        except NotReady as finding:
            raise failure(error_pb2.FAILURE_REASON_AUTH) from finding
        environment = cli_environment(self._settings, spec.workspace, key, spec.mcp_servers)
        launch = self._walls.launch(self._settings.claude_cli, environment, spec.workspace, spec.request.permissions)
        agent = ClaudeAgent(spec, launch)
        try:
            await agent.connect()
        except TurnFailure as error:
            await agent.close()
            if await self._is_unreadable(spec, error):
                raise failure(error_pb2.FAILURE_REASON_SESSION_CORRUPT) from error
            raise
        except BaseException:
            await agent.close()
            raise
        return agent

    async def _is_unreadable(self, spec: TurnSpec, error: TurnFailure) -> bool:
        """Whether a session is there that the CLI did not find: it says so of a transcript it cannot read."""
        if spec.resume is None or error.error.reason != error_pb2.FAILURE_REASON_SESSION_NOT_FOUND:
            return False
        return await self._walls.has(spec.workspace, [_transcript(spec.resume.native_session)])

    async def delete(self, workspace: Workspace, native_session: str) -> bool:
        """Delete what the CLI keeps of a session: its transcript, and files beside it (Claude Code 2.1.330)."""
        await self._walls.delete(workspace, [_transcript(native_session), *_beside(native_session)])
        return True


def _transcript(native_session: str) -> str:
    """Return where the CLI keeps what was said in a session (Claude Code 2.1.330)."""
    return f".claude/projects/*/{native_session}.jsonl"


def _beside(native_session: str) -> list[str]:
    """Return where else the CLI keeps things of a session."""
    places = ("projects/*", "todos", "file-history", "session-env", "debug")
    return [f".claude/{place}/{native_session}*" for place in places]


def create_provider() -> ClaudeProvider:
    """Return the provider as its environment describes it."""
    return ClaudeProvider(ClaudeSettings(), Walls(WallSettings(), Apis()))
