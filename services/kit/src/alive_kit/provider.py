"""The port: what a provider must be able to do.

A provider knows one vendor. It probes its surroundings, says which options it would not honour, and starts agents.
An agent is one running vendor CLI that serves one session, a turn at a time. Everything else (ids, numbering,
keeping, watching, deadlines, interrupts, the grammar of the stream) is the kit's.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from alive.agent.v1 import agent_service_pb2, approval_pb2, event_pb2, options_pb2, provider_pb2
from alive_kit.handover import handed_over
from alive_kit.resume import Resume
from alive_kit.workspaces import Workspace

PLAN_INSTRUCTIONS = "You are asked for a plan only. Read what you need, change nothing, and answer with the plan."
"""What an agent is told under the policy PLAN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSpec:
    """Everything a provider needs to run a turn."""

    request: agent_service_pb2.StartTurnRequest
    """The request with its ids chosen and the workspace's settings merged in."""

    workspace: Workspace
    """Where the agent works, and where the vendor keeps its files."""

    resume: Resume | None
    """What to continue; None when the session is new."""

    mcp_servers: Sequence[options_pb2.McpServer]
    """The request's MCP servers with every name resolved: they hold secrets."""

    token: str = ""
    """What the CLI shows to the key gateway instead of the vendor's key, for as long as it lives; empty where there is
    no gateway."""

    project_instructions: str
    """What the workspace's instruction files say; empty unless its settings let them reach the agent."""

    @property
    def input(self) -> Sequence[options_pb2.InputPart]:
        """What the vendor is asked: the request's input, and before it what was said with another provider."""
        return [*handed_over(self.request.history), *self.request.input]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """An option of a request that a provider would not honour."""

    field: str
    """The field's path in StartTurnRequest, for example ``permissions.sandbox``."""

    why: str
    """In words, for the caller."""


class Turn(Protocol):
    """A running turn, as its agent sees it."""

    spec: TurnSpec

    def emit(self, event: event_pb2.Event) -> None:
        """Say what happened. Only ``kind`` and ``raw_json`` are the agent's to set."""

    async def ask(self, asked: approval_pb2.ApprovalRequested) -> approval_pb2.Decision:
        """Ask the caller and return what is decided: only ids, decisions and times are not the agent's to set.

        Never longer than the approval timeout; a denial then. Waiting must not keep the agent from being interrupted.
        """

    def remember(self, native_session: str, native_mark: str = "") -> None:
        """Keep the vendor's own id of the session, to resume it with the next turn, and of what was said last."""


class Agent(Protocol):
    """One running vendor CLI.

    It serves its session turn by turn: `run`, `rest`, then `is_ready` and `run` again. `close` may come at any point,
    and does after the first turn that failed, or that `rest` returned False for.
    """

    async def run(self, turn: Turn) -> event_pb2.TurnCompleted | None:
        """Run one turn to its end and return how it completed, or None when the vendor was interrupted.

        The turn's spec differs from that of the start in `Provider.per_turn` and in what the kit sees to.

        Raises:
            TurnFailure: the turn failed; its error becomes the terminal event.
        """

    async def interrupt(self) -> None:
        """Ask the vendor to stop what runs; `run` then ends soon. Harmless when nothing runs."""

    async def steer(self, parts: Iterable[options_pb2.InputPart]) -> None:
        """Add input to what runs. Only called where the capability ``SteerTurn`` is declared."""

    async def rest(self) -> bool:
        """End what a turn left running, and return whether the agent may wait for another one.

        Only where it can be shown that nothing the turn ran is left, and that nothing it ran can have changed the CLI,
        its MCP servers or its home.
        """

    async def is_ready(self) -> bool:
        """Whether a rested agent could take a turn now: its CLI answers, and its MCP servers run. Quick."""

    async def close(self) -> None:
        """End the CLI and every process it started, within the kill grace. May be called twice."""


class Provider(Protocol):
    """A vendor's coding agent."""

    provider_id: str

    @property
    def per_turn(self) -> Collection[str]:
        """The fields of a request, as paths, that an agent takes anew with each turn.

        All others are fixed at its start: a turn in which one of them differs gets another agent.
        """

    async def probe(self) -> provider_pb2.ProviderInfo:
        """Look at the surroundings (CLI, version, key) and describe the provider, readiness included."""

    def unsupported(self, request: agent_service_pb2.StartTurnRequest, resume: Resume | None) -> Iterable[Unsupported]:
        """Yield every option of a merged request that would not be honoured in a session, new or resumed."""

    def has_file_tools(self, request: agent_service_pb2.StartTurnRequest) -> bool:
        """Whether an agent has tools of its own for files in a turn; else it is given Alive's."""

    async def start(self, spec: TurnSpec) -> Agent:
        """Start a CLI for a turn and those that follow in its session; resume the session where there is one.

        Raises:
            TurnFailure: it does not start, or the vendor does not have the session.
        """

    async def delete(self, workspace: Workspace, native_session: str) -> bool:
        """Delete what the vendor keeps of a session; return False while forks of it need it. Harmless when it is gone.

        Raises:
            Exception: something of it may be left; deleting may be tried again.
        """
