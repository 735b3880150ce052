"""One live turn: runs an agent and sees to it that the turn ends with exactly one terminal event.

Whatever the agent does (completes, fails, crashes, hangs, goes on after an interrupt), `LiveTurn.live` returns only
when the terminal event is in the log and the agent is closed, or waits for the session's next turn. A turn is stopped
by the first of: an interrupt, its deadline, silence, the last reader going away, the service going down.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import approval_pb2, error_pb2, event_pb2, item_pb2, options_pb2, usage_pb2
from alive_kit.admission import Place
from alive_kit.approvals import Approvals
from alive_kit.authz import Grants
from alive_kit.clock import Clock
from alive_kit.errors import StorageFailed, TurnDeclined, TurnEnded, TurnFailure
from alive_kit.event_log import EventLog
from alive_kit.failover import is_curable
from alive_kit.provider import Agent, TurnSpec
from alive_kit.record import Record
from alive_kit.telling import Telling
from alive_kit.terminals import Terminal, failed

logger = logging.getLogger(__name__)

QUEUED_SECONDS = 1.0
"""How often a turn that waits says where it stands, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a turn and its parts may take, in seconds, unless the request says otherwise."""

    deadline: float = 3600.0
    idle: float = 600.0
    """Silence of the agent."""
    disconnect_grace: float = 60.0
    """Without a reader."""
    approval: float = 300.0
    """For an approval, until it counts as denied."""
    interrupt: float = 1.5
    """For the vendor to stop by itself; then its processes are ended."""
    close: float = 10.0
    """For an agent to close."""


class Agents(Protocol):
    """The agents of the service, as a turn sees them."""

    provider_id: str

    def serving(self, spec: TurnSpec, grants: Grants) -> contextlib.AbstractAsyncContextManager[Agent]:
        """Have an agent for a turn; after the block it waits for the next one, or is closed."""

    def end_turn(self, spec: TurnSpec, *, failed: bool) -> None:
        """Honour the turn's token no more; an agent whose turn failed is closed."""


class LiveTurn:
    """A turn, from its acceptance to its terminal event and as long as it is kept."""

    def __init__(
        self,
        *,
        spec: TurnSpec,
        record: Record,
        place: Place,
        bounds: Bounds,
        agents: Agents,
        grants: Grants,
    ) -> None:
        self.spec = spec
        self._agents = agents
        self._grants = grants
        self.record = record
        self.place = place
        """Where the turn stands among the service's turns."""
        self._approvals = approvals = Approvals(
            spec.request.permissions, bounds.approval, record.session, record.sessions, self.emit
        )
        self._telling = Telling(
            spec.request, record, agents.provider_id, lost=self._fail_storage, counted=self._check_budget
        )
        self.log = self._telling.log
        self.ended = asyncio.Event()
        """Set once the terminal event is in the log and no process of the turn is left."""
        self.is_declined = False
        """Whether it was left to another provider."""
        self._bounds = bounds
        self._agent: Agent | None = None
        self._watching: asyncio.Task[None] | None = None
        self._readers = 0
        self._grace: asyncio.TimerHandle | None = None
        self._stop: asyncio.Future[Terminal] = asyncio.get_running_loop().create_future()
        limits = spec.request.limits
        self._clock = Clock(
            deadline=_seconds(limits, "deadline", bounds.deadline),
            idle=_seconds(limits, "idle_timeout", bounds.idle),
            is_waiting=lambda: approvals.are_open,
        )

    # What the agent may do (the port's `Turn`).

    @property
    def fingerprint(self) -> bytes:
        """Tells the request apart from another one under the same turn id."""
        return self.record.fingerprint

    def emit(self, event: event_pb2.Event) -> None:
        """Put an event of the agent into the stream, kept within grammar and size."""
        self._clock.touch()
        with self._keeping("an event"):
            self._telling.tell(event)

    async def ask(self, asked: approval_pb2.ApprovalRequested) -> approval_pb2.Decision:
        """Ask the caller and return what is decided."""
        decision = await self._approvals.ask(asked)
        if decision.kind == approval_pb2.DECISION_KIND_DENY_AND_INTERRUPT:
            self.interrupt(event_pb2.INTERRUPTED_BY_DECISION, decision.message)
        return decision

    def remember(self, native_session: str, native_mark: str = "") -> None:
        """Keep the vendor's own id of the session, and of what was said last."""
        with self._keeping("the vendor's session"):
            self.record.remember(native_session, native_mark)

    # What the service does with the turn.

    async def live(self, notices: Iterable[event_pb2.Notice]) -> None:
        """Run the turn until its terminal event is in the log and its agent is closed or at rest.

        The notices are what the router has to say; they follow TurnStarted.
        """
        self._telling.hold(notices)
        work = asyncio.create_task(self._wait_and_work(), name=f"turn {self.spec.request.turn_id}")
        self._watch_clock()
        try:
            waited: set[asyncio.Future[Any]] = {work, self._stop}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await self._stop_work(work)
        finally:
            self._unwatch_clock()
            self._end(self._terminal_of(work))
            self._release()

    def stop(self, terminal: Terminal) -> None:
        """Have the turn stopped and ended this way; the first stop wins."""
        if not self._stop.done():
            self._stop.set_result(terminal)

    def resolve(self, approval_id: str, decision: approval_pb2.Decision) -> None:
        """Answer something the agent asked.

        Raises:
            AgentError: it was not asked, is closed, or the answer does not fit.
        """
        self._approvals.resolve(approval_id, decision)

    async def steer(self, parts: Iterable[options_pb2.InputPart]) -> None:
        """Add input to what the agent does.

        Raises:
            TurnEnded: it does nothing any more, or nothing yet.
        """
        if self._agent is None or not self._telling.grammar.is_started or self._stop.done() or self.log.is_closed:
            raise TurnEnded(self.spec.request.turn_id)
        added = list(parts)
        await self._agent.steer(added)
        with self._keeping("what was added"):
            self._telling.tell_input(added)

    def interrupt(self, interrupted_by: "event_pb2.InterruptedBy.ValueType", reason: str) -> None:
        """Have the turn stopped and ended as interrupted."""
        self.stop(event_pb2.TurnInterrupted(interrupted_by=interrupted_by, reason=reason))

    @contextlib.contextmanager
    def reading(self) -> Iterator[EventLog]:
        """Count a reader; when the last one goes away, the request's ``on_disconnect`` holds."""
        self._readers += 1
        if self._grace:
            self._grace.cancel()
        try:
            yield self.log
        finally:
            self._readers -= 1
            if not self._readers and not self.log.is_closed:
                self._grace = self._after_disconnect()

    # How it runs.

    async def _wait_and_work(self) -> event_pb2.TurnCompleted | None:
        said = 0
        while not self.place.admitted.is_set():
            if (position := self.place.position) != said:
                said = position
                queued = event_pb2.TurnQueued(reason=self.place.why, position=position)
                self.emit(event_pb2.Event(turn_queued=queued))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUEUED_SECONDS):
                    await self.place.admitted.wait()
        return await self._work()

    async def _work(self) -> event_pb2.TurnCompleted | None:
        try:
            return await self._serve()
        except TurnFailure as failure:
            if not self._may_begin_anew(failure):
                raise
        self._begin_anew()
        return await self._serve()

    def _may_begin_anew(self, failure: TurnFailure) -> bool:
        """Whether the vendor has nothing of a session because its CLI died in the session's first turn."""
        is_lost = failure.error.reason == error_pb2.FAILURE_REASON_SESSION_NOT_FOUND
        resume = self.spec.resume
        return is_lost and resume is not None and not resume.is_settled and not self._telling.grammar.is_started

    def _begin_anew(self) -> None:
        """Have the vendor begin the session again, told what was said in it."""
        self.spec.request.history.MergeFrom(self.record.said())
        self.spec = replace(self.spec, resume=None)
        self._unwatch_clock()
        self._watch_clock()
        text = "The agent had kept nothing of the session when it died: it begins anew, and is told what was said."
        severity = event_pb2.SEVERITY_WARNING
        self._telling.hold([event_pb2.Notice(severity=severity, code="session_begun_anew", message=text)])

    async def _serve(self) -> event_pb2.TurnCompleted | None:
        async with self._agents.serving(self.spec, self._grants) as agent:
            self._agent = agent
            try:
                return await agent.run(self)
            finally:
                self._unwatch_clock()  # How long the agent takes to close is not the turn's time.

    async def _stop_work(self, work: "asyncio.Task[event_pb2.TurnCompleted | None]") -> None:
        """Ask the vendor to stop, then end its processes."""
        if self._agent:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self._bounds.interrupt):
                    await self._agent.interrupt()
            await asyncio.wait({work}, timeout=self._bounds.interrupt)
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=self._bounds.close)
        if not work.done():
            logger.error("agent does not close", extra=self._names())

    def _watch_clock(self) -> None:
        async def watch() -> None:
            self.stop(failed(await self._clock.run_out(self.place.admitted)))

        self._watching = asyncio.create_task(watch(), name=f"clock {self.spec.request.turn_id}")

    def _unwatch_clock(self) -> None:
        if self._watching:
            self._watching.cancel()
        self._watching = None  # A task that was cancelled keeps what it passed through.

    def _check_budget(self, usage: usage_pb2.Usage) -> None:
        limits = self.spec.request.limits
        if limits.HasField("max_tokens") and usage.input_tokens + usage.output_tokens > limits.max_tokens:
            self.stop(failed(error_pb2.FAILURE_REASON_BUDGET))
        # A model without a price may join a turn that began with one that has: what it costs is not known.
        is_known = usage.HasField("cost")
        if limits.HasField("max_micro_usd") and not (is_known and usage.cost.nano_usd <= limits.max_micro_usd * 1000):
            self.stop(failed(error_pb2.FAILURE_REASON_BUDGET))

    def _after_disconnect(self) -> asyncio.TimerHandle | None:
        delivery = self.spec.request.delivery
        match delivery.on_disconnect:
            case options_pb2.ON_DISCONNECT_DETACH:
                return None
            case options_pb2.ON_DISCONNECT_INTERRUPT:
                grace = 0.0
            case _:
                grace = _seconds(delivery, "grace", self._bounds.disconnect_grace)
        reason = "nobody reads the turn any more"
        return asyncio.get_running_loop().call_later(grace, self.interrupt, event_pb2.INTERRUPTED_BY_DISCONNECT, reason)

    # How it ends.

    def _terminal_of(self, work: "asyncio.Task[event_pb2.TurnCompleted | None]") -> Terminal:
        if self._stop.done():
            if work.done() and not work.cancelled() and (error := work.exception()):
                logger.info("stopped turn ended with %r", error, extra=self._names())
            return self._stop.result()
        try:
            completed = work.result()
        except TurnFailure as failure:
            return event_pb2.TurnFailed(error=failure.error)
        except (Exception, asyncio.CancelledError):
            logger.exception("turn failed by a defect", extra=self._names())
            return failed(error_pb2.FAILURE_REASON_INTERNAL)
        if completed is None:
            return failed(error_pb2.FAILURE_REASON_UNKNOWN)
        if not self._telling.grammar.has_agent_items:
            return failed(error_pb2.FAILURE_REASON_CRASHED)
        return completed

    def _end(self, terminal: Terminal) -> None:
        if not self.record.is_begun:
            # A turn that nobody reads has nobody who could ask another provider.
            if self._readers and isinstance(terminal, event_pb2.TurnFailed) and is_curable(terminal.error.reason):
                self._decline(terminal.error)
                return
            with contextlib.suppress(StorageFailed):
                self._telling.begin()
        self._approvals.close()
        has_failed = isinstance(terminal, event_pb2.TurnFailed)
        self._telling.close_items(item_pb2.ITEM_STATUS_FAILED if has_failed else item_pb2.ITEM_STATUS_INTERRUPTED)
        if self._telling.grammar.is_started and not terminal.HasField("duration"):
            terminal.duration.FromTimedelta(self._clock.elapsed)
        self._agents.end_turn(self.spec, failed=has_failed)
        self._agent = None  # A turn is kept for long; what served it need not be.
        with self._keeping("the end of a turn"):
            self._telling.end(terminal)
        self.ended.set()

    def _release(self) -> None:
        """Drop what has this turn: it may be large, and goes with the last who has it, not once cycles are sought."""
        self._approvals.close()
        self._telling.close()

    def _decline(self, error: error_pb2.TurnError) -> None:
        """Leave the turn to another provider: nothing of it was shown, and nothing is kept."""
        self._agents.end_turn(self.spec, failed=True)
        with self._keeping("that a turn was declined"):
            self.record.decline(error, self._telling.withheld)
        self.is_declined = True
        self.log.refuse(TurnDeclined(self._agents.provider_id, error))
        self.ended.set()

    @contextlib.contextmanager
    def _keeping(self, what: str) -> Iterator[None]:
        """Have a turn fail of which something cannot be kept."""
        try:
            yield
        except StorageFailed:
            logger.exception("%s cannot be kept", what, extra=self._names())
            self._fail_storage()

    def _fail_storage(self) -> None:
        self.stop(failed(error_pb2.FAILURE_REASON_STORAGE))

    def _names(self, **more: object) -> dict[str, object]:
        request = self.spec.request
        return {"workspace_id": request.workspace_id, "turn_id": request.turn_id, **more}


def _seconds(message: options_pb2.Limits | options_pb2.Delivery, field: str, default: float) -> float:
    duration: Duration = getattr(message, field)
    return duration.ToNanoseconds() / 1e9 or default
