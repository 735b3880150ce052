"""The turns of a service: starts each once, and lets callers watch, interrupt and, at the end, drain them.

A turn is (workspace id, turn id). Ended turns are kept for watchers until newer ones need the room.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator

from alive.agent.v1 import agent_service_pb2, event_pb2, resolved_pb2
from alive_kit.apis import Apis
from alive_kit.authz import TurnTokens
from alive_kit.errors import OptionUnsupported, ProviderNotFound, ShuttingDown, TurnMismatch, TurnNotFound
from alive_kit.inputs import check_files, read_instructions
from alive_kit.mcp_launch import McpLaunch
from alive_kit.merge import merge
from alive_kit.provider import Provider, TurnSpec
from alive_kit.sessions import Session, SessionTable
from alive_kit.turn import Bounds, LiveTurn, shutting_down
from alive_kit.validation import check_start_turn
from alive_kit.workspaces import Workspaces

logger = logging.getLogger(__name__)

EARLY_INTERRUPT_SECONDS = 15.0
"""How long an interrupt waits for its turn."""

KEPT_BYTES = 256 << 20
"""Events of ended turns that are kept, all turns together."""

TurnKey = tuple[str, str]


class TurnTable:
    """Every turn the service knows."""

    def __init__(
        self,
        provider: Provider,
        workspaces: Workspaces,
        bounds: Bounds,
        mcp: McpLaunch,
        apis: Apis,
        tokens: TurnTokens | None,
    ) -> None:
        self._provider = provider
        self._workspaces = workspaces
        self._bounds = bounds
        self._mcp = mcp
        self._apis = apis
        self._tokens = tokens
        self._sessions = SessionTable()
        self._turns: dict[TurnKey, LiveTurn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._early: dict[TurnKey, tuple[float, str]] = {}
        self._draining = False

    def start(
        self,
        request: agent_service_pb2.StartTurnRequest,
        resolved: resolved_pb2.ResolvedTurn,
        *,
        require_ready: Callable[[], None],
    ) -> LiveTurn | None:
        """Start a turn, or return the one that has this id; None when the request was only to be checked.

        There is no await in here: between the checks and the start nothing else can happen.

        Raises:
            AgentError: the turn is refused; nothing was started.
        """
        check_start_turn(request)
        if request.provider_id not in {"", self._provider.provider_id}:
            raise ProviderNotFound(request.provider_id, [self._provider.provider_id])
        workspace = self._workspaces.find(request.workspace_id)
        merged = merge(request, resolved)
        check_start_turn(merged)
        fingerprint = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        known = self._turns.get((merged.workspace_id, merged.turn_id))
        if known:
            if known.fingerprint != fingerprint:
                raise TurnMismatch(merged.turn_id)
            return known
        if self._draining:
            raise ShuttingDown
        require_ready()
        check_files(merged, workspace)
        self._check_options(merged)
        mcp_servers = self._mcp.complete(merged.mcp_servers, workspace)
        grants = self._apis.grants(merged, mcp_servers)
        session = self._session_for(merged, resolved)
        if request.validate_only:
            return None
        token = self._tokens.issue(grants) if self._tokens else ""
        spec = TurnSpec(
            request=merged,
            workspace=workspace,
            native_session=session.native_session,
            mcp_servers=self._apis.lead(merged, mcp_servers, token),
            token=token,
            project_instructions=read_instructions(workspace) if resolved.settings.project_instructions else "",
        )
        return self._launch(spec, session, fingerprint, resolved)

    def find(self, workspace_id: str, turn_id: str) -> LiveTurn:
        """Return a turn that is running or kept.

        Raises:
            TurnNotFound: there is none of this id.
        """
        turn = self._turns.get((workspace_id, turn_id))
        if turn is None:
            raise TurnNotFound(turn_id)
        return turn

    async def interrupt(
        self, workspace_id: str, turn_id: str, reason: str
    ) -> "agent_service_pb2.InterruptResult.ValueType":
        """Stop a turn and return once it has ended; keep the interrupt for a while when the turn is not known."""
        self._workspaces.find(workspace_id)
        turn = self._turns.get((workspace_id, turn_id))
        if turn is None:
            due = asyncio.get_running_loop().time() + EARLY_INTERRUPT_SECONDS
            self._early[workspace_id, turn_id] = (due, reason)
            return agent_service_pb2.INTERRUPT_RESULT_KEPT
        if turn.ended.is_set():
            return agent_service_pb2.INTERRUPT_RESULT_ALREADY_ENDED
        turn.interrupt(event_pb2.INTERRUPTED_BY_CALLER, reason)
        await turn.ended.wait()
        return agent_service_pb2.INTERRUPT_RESULT_INTERRUPTED

    async def drain(self, *, grace: float) -> None:
        """Take no new turns, let the running ones end, and end those that have not within the grace (seconds)."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for turn in self._running():
            turn.stop(shutting_down())
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _check_options(self, request: agent_service_pb2.StartTurnRequest) -> None:
        native_session = ""
        if request.session_id:
            native_session = self._sessions.find_idle(request.workspace_id, request.session_id).native_session
        for unsupported in self._provider.unsupported(request, native_session):
            raise OptionUnsupported(self._provider.provider_id, unsupported.field, unsupported.why)

    def _session_for(self, request: agent_service_pb2.StartTurnRequest, resolved: resolved_pb2.ResolvedTurn) -> Session:
        """Return the session of a complete request, opened when it is new, and write its id into the request."""
        if request.session_id:
            return self._sessions.find_idle(request.workspace_id, request.session_id)
        request.session_id = resolved.session_id or f"session-{uuid.uuid4()}"
        if request.validate_only:
            return Session(session_id=request.session_id, workspace_id=request.workspace_id)
        return self._sessions.open(request.workspace_id, request.session_id)

    def _launch(
        self, spec: TurnSpec, session: Session, fingerprint: bytes, resolved: resolved_pb2.ResolvedTurn
    ) -> LiveTurn:
        turn = LiveTurn(
            spec=spec,
            session=session,
            provider_id=self._provider.provider_id,
            bounds=self._bounds,
            fingerprint=fingerprint,
            tokens=self._tokens,
        )
        key = (spec.request.workspace_id, spec.request.turn_id)
        self._forget_old()
        self._turns[key] = turn
        session.running_turn = spec.request.turn_id
        due, reason = self._early.pop(key, (0.0, ""))
        if due > asyncio.get_running_loop().time():
            turn.interrupt(event_pb2.INTERRUPTED_BY_CALLER, reason)
        task = asyncio.create_task(turn.live(self._provider, resolved.notices))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        if spec.request.ephemeral and not spec.native_session:
            task.add_done_callback(lambda _: self._sessions.forget(session))
        return turn

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a turn's task broke", exc_info=error)

    def _running(self) -> Iterator[LiveTurn]:
        return (turn for turn in self._turns.values() if not turn.ended.is_set())

    def _forget_old(self) -> None:
        """Forget the oldest ended turns until there is room, and interrupts whose turn never came."""
        kept = sum(turn.log.size for turn in self._turns.values())
        for key, turn in list(self._turns.items()):
            if kept <= KEPT_BYTES:
                break
            if turn.ended.is_set():
                kept -= turn.log.size
                del self._turns[key]
        now = asyncio.get_running_loop().time()
        self._early = {key: early for key, early in self._early.items() if early[0] > now}
