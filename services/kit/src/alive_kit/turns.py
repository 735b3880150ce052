"""The turns of a service: starts each once, and lets callers watch, interrupt and, at the end, drain them.

A turn is (workspace id, turn id). Ended turns are kept in the journal, and the latest in memory too.
"""

import asyncio
import contextlib
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from alive.agent.v1 import (
    agent_service_pb2,
    approval_pb2,
    event_pb2,
    options_pb2,
    outcome_service_pb2,
    resolved_pb2,
    session_pb2,
)
from alive_kit.admission import Admission, Place
from alive_kit.apis import Apis
from alive_kit.authz import Grants
from alive_kit.default_tools import DefaultTools
from alive_kit.errors import (
    AdmissionRefused,
    ItemNotFound,
    OptionUnsupported,
    ProviderNotFound,
    SessionBusy,
    SessionNotFound,
    ShuttingDown,
    StorageFailed,
    StoreUnavailable,
    TurnEnded,
    TurnMismatch,
    TurnNotFound,
)
from alive_kit.inputs import check_files, read_instructions
from alive_kit.journal import Journal
from alive_kit.kept import KeptTurns, TurnKey
from alive_kit.load import Load
from alive_kit.mcp_launch import McpLaunch
from alive_kit.merge import digest, merge
from alive_kit.outbox import Outbox
from alive_kit.provider import Provider, TurnSpec
from alive_kit.record import Record
from alive_kit.recovery import EndedTurn
from alive_kit.retention import Retention
from alive_kit.sessions import Session, Sessions
from alive_kit.terminals import shutting_down
from alive_kit.turn import Bounds, LiveTurn
from alive_kit.validation import check_start_turn
from alive_kit.warm import WarmAgents
from alive_kit.workspaces import Workspace, Workspaces

logger = logging.getLogger(__name__)

EARLY_INTERRUPT_SECONDS = 15.0
"""How long an interrupt waits for its turn."""


@dataclass(kw_only=True)
class TurnTable:
    """Every turn the service knows."""

    provider: Provider
    workspaces: Workspaces
    bounds: Bounds
    mcp: McpLaunch
    tools: DefaultTools
    apis: Apis
    agents: WarmAgents
    journal: Journal
    sessions: Sessions
    outbox: Outbox
    retention: Retention
    admission: Admission
    load: Load

    _kept: KeptTurns[LiveTurn] = field(default_factory=KeptTurns)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _cleaning: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _early: dict[TurnKey, tuple[float, str]] = field(default_factory=dict)
    _draining: bool = False

    def start(
        self,
        request: agent_service_pb2.StartTurnRequest,
        resolved: resolved_pb2.ResolvedTurn,
        *,
        require_ready: Callable[[], None],
    ) -> LiveTurn | EndedTurn | None:
        """Start a turn, or return the one that has this id; None when the request was only to be checked.

        There is no await in here: between the checks and the start nothing else can happen.

        Raises:
            AgentError: the turn is refused; nothing was started.
        """
        check_start_turn(request)
        if request.provider_id not in {"", self.provider.provider_id}:
            raise ProviderNotFound(request.provider_id, [self.provider.provider_id])
        workspace = self.workspaces.find(request.workspace_id)
        merged = merge(request, resolved)
        check_start_turn(merged)
        fingerprint = resolved.request_digest or digest(request)
        if known := self._repeated(merged, fingerprint):
            return known
        if resolved.attach_only:
            raise TurnNotFound(merged.turn_id)
        if self._draining:
            raise ShuttingDown
        require_ready()
        check_files(merged, workspace)
        self.tools.attach(merged, workspace, has_file_tools=self.provider.has_file_tools(merged))
        self._check_options(merged)  # Rules may name tools of the servers that were just attached.
        mcp_servers = self.mcp.complete(merged.mcp_servers, workspace)
        grants = self.apis.grants(merged, mcp_servers)
        if request.validate_only:
            return None
        with self._entering(merged, resolved) as place:
            session = self._session_for(merged, resolved)
            self._add_untold(merged, session)
            spec = TurnSpec(
                request=merged,
                workspace=workspace,
                resume=session.resume,
                mcp_servers=mcp_servers,
                project_instructions=read_instructions(workspace) if resolved.settings.project_instructions else "",
            )
            return self._launch(spec, grants, session, place, fingerprint, resolved)

    def find(self, workspace_id: str, turn_id: str) -> LiveTurn | EndedTurn:
        """Return a turn that is running or kept.

        Raises:
            TurnNotFound: there is none of this id.
        """
        turn = self._known(workspace_id, turn_id)
        if turn is None:
            raise TurnNotFound(turn_id)
        return turn

    async def interrupt(
        self, workspace_id: str, turn_id: str, reason: str
    ) -> "agent_service_pb2.InterruptResult.ValueType":
        """Stop a turn and return once it has ended; keep the interrupt for a while when the turn is not known."""
        self.workspaces.find(workspace_id)
        turn = self._known(workspace_id, turn_id)
        if turn is None:
            self._forget_early()
            due = asyncio.get_running_loop().time() + EARLY_INTERRUPT_SECONDS
            self._early.pop((workspace_id, turn_id), None)
            self._early[workspace_id, turn_id] = (due, reason)
            return agent_service_pb2.INTERRUPT_RESULT_KEPT
        if isinstance(turn, EndedTurn) or turn.ended.is_set():
            return agent_service_pb2.INTERRUPT_RESULT_ALREADY_ENDED
        turn.interrupt(event_pb2.INTERRUPTED_BY_CALLER, reason)
        await turn.ended.wait()
        return agent_service_pb2.INTERRUPT_RESULT_INTERRUPTED

    async def steer(self, request: agent_service_pb2.SteerTurnRequest) -> None:
        """Add input to a running turn.

        Raises:
            AgentError: it does not run, the input is not there, or the provider cannot.
        """
        turn = self.running(request.workspace_id, request.turn_id)
        check_files(request, turn.spec.workspace)
        await turn.steer(request.input)

    def running(self, workspace_id: str, turn_id: str) -> LiveTurn:
        """Return a turn that runs.

        Raises:
            TurnNotFound: there is none of this id.
            TurnEnded: it has ended.
        """
        self.workspaces.find(workspace_id)
        turn = self.find(workspace_id, turn_id)
        if isinstance(turn, EndedTurn) or turn.log.is_closed:
            raise TurnEnded(turn_id)
        return turn

    def resolve(self, workspace_id: str, turn_id: str, approval_id: str, decision: approval_pb2.Decision) -> None:
        """Answer an approval of a turn.

        Raises:
            AgentError: there is no such approval, it is closed, or the answer does not fit.
        """
        self.workspaces.find(workspace_id)
        turn = self.find(workspace_id, turn_id)
        if isinstance(turn, EndedTurn):
            raise TurnEnded(turn_id)
        turn.resolve(approval_id, decision)

    async def fork(self, workspace_id: str, session_id: str, fork_id: str) -> session_pb2.Session:
        """Open a session with the memory of an idle one, under an id if one is given."""
        self.workspaces.find(workspace_id)
        self.sessions.find_idle(workspace_id, session_id)
        await self.agents.park(workspace_id, session_id)
        return self.sessions.fork(self.sessions.find_idle(workspace_id, session_id), fork_id)

    async def delete(self, workspace_id: str, session_id: str) -> None:
        """Delete an idle session, its turns and what the vendor keeps of it; nothing when there is none."""
        workspace = self.workspaces.find(workspace_id)
        try:
            self.sessions.find_idle(workspace_id, session_id)
            await self.agents.park(workspace_id, session_id)
            session = self.sessions.find_idle(workspace_id, session_id)
        except SessionNotFound:
            await self._clean(workspace)
            return
        self.journal.forget_session(workspace_id, session_id)
        self.sessions.delete(session)
        self._kept.forget_session(workspace_id, session_id)
        await self._clean(workspace)

    def warm(self, workspace_id: str, session_id: str) -> None:
        """Have an agent wait for the next turn of a session that is idle and whole, where there is room for one."""
        with contextlib.suppress(SessionBusy, AdmissionRefused):
            session = self.sessions.find_idle(workspace_id, session_id)
            self.load.check(is_background=True, is_first=False)
            if not session.is_broken and not self._draining:
                self.agents.start_ahead(workspace_id, session_id, session.resume)

    def whole_item(self, workspace_id: str, turn_id: str, item_id: str) -> bytes:
        """Return an item whose event was cut, whole and serialized.

        Raises:
            TurnNotFound: no such turn is kept.
            ItemNotFound: the turn has no such item, or its event has all of it.
        """
        self.workspaces.find(workspace_id)
        kept = self.journal.find(workspace_id, turn_id)
        if kept is None:
            raise TurnNotFound(turn_id)
        whole = self.journal.whole(kept.turn, item_id)
        if whole is None:
            raise ItemNotFound(item_id)
        return whole

    async def drain(self, *, grace: float) -> None:
        """Take no new turns, end those that wait, let running ones go on, and end them after the grace (seconds)."""
        self._draining = True
        for turn in self._kept.running():
            if not turn.place.admitted.is_set():
                turn.stop(shutting_down())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for turn in self._kept.running():
            turn.stop(shutting_down())
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.agents.close()

    def _check_options(self, request: agent_service_pb2.StartTurnRequest) -> None:
        resume = None
        if request.session_id:
            resume = self.sessions.find_idle(request.workspace_id, request.session_id).resume
        for unsupported in self.provider.unsupported(request, resume):
            raise OptionUnsupported(self.provider.provider_id, unsupported.field, unsupported.why)

    def _repeated(self, request: agent_service_pb2.StartTurnRequest, fingerprint: bytes) -> LiveTurn | EndedTurn | None:
        """Return the turn that a complete request has started before.

        Raises:
            TurnMismatch: another request has.
        """
        known = self._known(request.workspace_id, request.turn_id)
        if known and known.fingerprint != fingerprint:
            raise TurnMismatch(request.turn_id)
        return known

    @contextlib.contextmanager
    def _entering(
        self, request: agent_service_pb2.StartTurnRequest, resolved: resolved_pb2.ResolvedTurn
    ) -> Iterator[Place]:
        """Give a turn its place among the service's turns, and take it back when it does not start.

        Raises:
            AdmissionRefused: there is no room for it.
        """
        workspace_id, workload = request.workspace_id, request.limits.workload_class
        is_background = workload == options_pb2.WORKLOAD_CLASS_BACKGROUND
        self.load.check(is_background=is_background, is_first=not self.admission.has_turns(workspace_id))
        place = self.admission.enter(workspace_id, resolved.owner_id, is_background=is_background)
        try:
            yield place
        except BaseException:
            place.leave()
            raise

    def _session_for(self, request: agent_service_pb2.StartTurnRequest, resolved: resolved_pb2.ResolvedTurn) -> Session:
        """Return the session of a complete request, and write its id into the request when it is new."""
        if request.session_id:
            return self.sessions.find_idle(request.workspace_id, request.session_id)
        request.session_id = resolved.session_id or f"session-{uuid.uuid4()}"
        self.sessions.check_new(request.workspace_id, request.session_id)
        return Session(
            session_id=request.session_id,
            workspace_id=request.workspace_id,
            is_new=True,
            is_kept=not request.ephemeral,
        )

    def _add_untold(self, request: agent_service_pb2.StartTurnRequest, session: Session) -> None:
        """Put what the session's vendor still has to be told before what it is told now."""
        untold = self.sessions.untold(session)
        if untold.ByteSize():
            untold.items.extend(request.history.items)
            untold.omitted = untold.omitted or request.history.omitted
            request.history.CopyFrom(untold)

    def _launch(
        self,
        spec: TurnSpec,
        grants: Grants,
        session: Session,
        place: Place,
        fingerprint: bytes,
        resolved: resolved_pb2.ResolvedTurn,
    ) -> LiveTurn:
        request = spec.request
        key = (request.workspace_id, request.turn_id)
        record = Record(
            journal=self.journal,
            sessions=self.sessions,
            outbox=self.outbox,
            session=session,
            request=request,
            fingerprint=fingerprint,
            outcome=_outcome(request, resolved),
        )
        if not resolved.failover_allowed:
            _begin(record)
        self.sessions.occupy(session, request.turn_id)
        turn = LiveTurn(
            spec=spec,
            record=record,
            place=place,
            bounds=self.bounds,
            agents=self.agents,
            grants=grants,
        )
        self._forget_old()
        self._kept.add(turn)
        due, reason = self._early.pop(key, (0.0, ""))
        if due > asyncio.get_running_loop().time():
            turn.interrupt(event_pb2.INTERRUPTED_BY_CALLER, reason)
        task = asyncio.create_task(self._live(turn, resolved))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return turn

    async def _live(self, turn: LiveTurn, resolved: resolved_pb2.ResolvedTurn) -> None:
        try:
            await turn.live([*resolved.notices, *self.apis.notices(turn.spec.request)])
        finally:
            turn.place.leave()
        if turn.is_declined:
            self._kept.forget(turn)
        await self._clean(turn.spec.workspace)
        if self.agents.warmth.ahead and not turn.is_declined:
            with contextlib.suppress(SessionNotFound):
                self.warm(turn.spec.request.workspace_id, turn.spec.request.session_id)

    async def _clean(self, workspace: Workspace) -> None:
        """Have the vendor delete what nobody has any more, until nothing is left or the rest is needed by forks."""
        async with self._cleaning[workspace.workspace_id]:
            is_done = False
            while not is_done:
                is_done = True
                for native_session in self.sessions.leftovers(workspace.workspace_id):
                    if await self.provider.delete(workspace, native_session):
                        self.sessions.is_gone(workspace.workspace_id, native_session)
                        is_done = False

    def _known(self, workspace_id: str, turn_id: str) -> LiveTurn | EndedTurn | None:
        """Return a turn from memory, or else from the journal."""
        turn = self._kept.find(workspace_id, turn_id)
        if turn is not None:
            return turn
        kept = self.journal.find(workspace_id, turn_id)
        return EndedTurn(kept, self.journal) if kept else None

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a turn's task broke", exc_info=error)

    def _forget_old(self) -> None:
        """Forget turns that were kept for long enough."""
        self._forget_early()
        self.retention.apply()
        self._kept.make_room()

    def _forget_early(self) -> None:
        """Forget interrupts whose turn never came: they lie in the order in which they are due."""
        now = asyncio.get_running_loop().time()
        while self._early and next(iter(self._early.values()))[0] <= now:
            del self._early[next(iter(self._early))]


def _begin(record: Record) -> None:
    """Write a turn down before anything of it is done.

    Raises:
        StoreUnavailable: it cannot be.
    """
    try:
        record.begin()
    except StorageFailed as error:
        logger.exception("a turn cannot be kept", extra={"turn_id": record.request.turn_id})
        raise StoreUnavailable("what the service keeps cannot be written: is its disk full?") from error


def _outcome(
    request: agent_service_pb2.StartTurnRequest, resolved: resolved_pb2.ResolvedTurn
) -> outcome_service_pb2.Outcome:
    """Return what is known of a turn when it begins."""
    outcome = outcome_service_pb2.Outcome(
        workspace_id=request.workspace_id,
        turn_id=request.turn_id,
        session_id=request.session_id,
        attempt=resolved.attempt or 1,
        owner_id=resolved.owner_id,
    )
    outcome.start_time.GetCurrentTime()
    return outcome
