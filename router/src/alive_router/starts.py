"""Starts turns: at the provider that was chosen, and at the next allowed one when that cannot take it."""

import asyncio
from collections import deque
from dataclasses import dataclass

from alive.agent.v1 import agent_service_pb2, event_pb2, options_pb2, resolved_pb2, session_pb2
from alive_kit.errors import ProviderNotReady, StreamLost
from alive_kit.rpc import Context
from alive_kit.servicer import RESOLVED_KEY
from alive_router.busy import ARRIVAL_SECONDS, Busy
from alive_router.handover import Handover
from alive_router.plan import Plan, fit_model, notice
from alive_router.planner import Planner
from alive_router.providers import ProviderLink, ProviderLinks
from alive_router.relay import Outgoing, Refused, Relays
from alive_router.store import Store

_DECLINED = "TURN_DECLINED"
_BACK = "SHUTTING_DOWN"
_CURABLE = frozenset({_DECLINED, _BACK, "PROVIDER_NOT_READY", "ADMISSION"})
"""Why a provider may refuse a turn that another one could take."""

_FAILING = frozenset({_DECLINED, "PROVIDER_NOT_READY"})
"""What says of a provider that it cannot take turns now."""

Failure = ProviderNotReady | StreamLost | Refused


@dataclass(slots=True)
class _Attempt:
    """One try to have a provider take a turn."""

    link: ProviderLink
    number: int
    is_last: bool
    has_begun: bool = False
    """Whether the caller was shown something."""

    def begun(self) -> None:
        """Take note that the provider has taken the turn."""
        self.has_begun = True
        self.link.breaker.succeeded()


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Every StartTurn of the router."""

    planner: Planner
    links: ProviderLinks
    store: Store
    relays: Relays
    handover: Handover
    busy: Busy
    is_behind_edge: bool = False
    """Whether turns are led past this router: it cannot tell which of them their providers took."""

    async def run(self, request: agent_service_pb2.StartTurnRequest, context: Context) -> None:
        """Have a turn started, or attach to the one that is known, and relay its stream.

        Raises:
            AgentError: the router refuses it.
            Refused: every provider that may take it does.
        """
        plan = await self.planner.plan(request, self.planner.standing.owner(context))
        if plan.is_known:
            await self._attach(plan, context)
            return
        await self.busy.check(plan, context)
        if request.validate_only:
            await self._attempt_each(plan, [], context)
        else:
            await self._start(plan, context)

    async def _start(self, plan: Plan, context: Context) -> None:
        """Have a new turn started."""
        request, turn = plan.request, plan.turn
        if not await self.store.add_turn(turn, opens_session=plan.opens_session, is_kept=not request.ephemeral):
            # The same call came twice at the same time; the other one was first.
            await self.run(request, context)
            return
        attempts: list[_Attempt] = []
        self.busy.begin(turn)
        try:
            await self._attempt_each(plan, attempts, context)
        except (ProviderNotReady, Refused):
            if not any(attempt.has_begun for attempt in attempts):
                await self.store.forget_turn(turn, opens_session=plan.opens_session)
            raise
        finally:
            self.busy.end(turn)

    async def _attach(self, plan: Plan, context: Context) -> None:
        """Attach to a turn. Its id is free again when it was led past this router, and its provider refused it."""
        for waits in (ARRIVAL_SECONDS, 0.0):
            try:
                await self._attempt_each(plan, [], context)
                return
            except Refused as refused:
                if not (self.is_behind_edge and _reason(refused) == "TURN_NOT_FOUND"):
                    raise
            if plan.turn.age > ARRIVAL_SECONDS:
                break
            await asyncio.sleep(waits)  # It may be on its way.
        await self.store.forget_turn(plan.turn, opens_session=False)
        await self.run(plan.request, context)

    async def _attempt_each(self, plan: Plan, attempts: list[_Attempt], context: Context) -> None:
        """Ask each candidate; the last one that failed is asked for good when nobody else could be."""
        waiting, last_declined = deque(plan.candidates), ""
        first: Failure | None = None
        said: list[event_pb2.Notice] = []
        while waiting:
            attempt = _Attempt(self.links[waiting.popleft()], len(attempts) + 1, is_last=not waiting)
            attempts.append(attempt)
            try:
                await self._attempt(plan, attempt, said, context)
                return
            except (ProviderNotReady, StreamLost, Refused) as failure:
                self._judge(attempt, failure)
                if attempt.has_begun or self.relays.is_ending or not _may_go_on(plan, attempt, failure):
                    raise
                first = first or failure
                said.append(_failover(attempt, failure))
                if not attempt.is_last and _reason(failure) in {_DECLINED, "STREAM_LOST"}:
                    last_declined = attempt.link.provider_id
                if attempt.is_last and last_declined:
                    waiting.append(last_declined)
                    last_declined = ""
        if first:
            raise first

    async def _attempt(self, plan: Plan, attempt: _Attempt, said: list[event_pb2.Notice], context: Context) -> None:
        link = attempt.link
        await (link.connect() if plan.is_known else link.admit())
        request = plan.outgoing(link.provider_id)
        resolved = plan.resolved(attempt=attempt.number, failover_allowed=not attempt.is_last)
        resolved.notices.extend(said)
        is_there = plan.is_known and attempt.number == 1
        resolved.attach_only = is_there and self.is_behind_edge
        if not is_there and not request.validate_only:
            await self._hand_over(plan, attempt, request, resolved, context)
        if attempt.number > 1:
            await self.store.move_turn(plan.turn, link.provider_id)
        outgoing = Outgoing(
            link=link,
            method="StartTurn",
            request=request,
            turn_id=plan.turn.turn_id,
            metadata=((RESOLVED_KEY, resolved.SerializeToString()),),
        )
        await self.relays.run(outgoing, context, attempt.begun)
        link.breaker.succeeded()

    async def _hand_over(
        self,
        plan: Plan,
        attempt: _Attempt,
        request: agent_service_pb2.StartTurnRequest,
        resolved: resolved_pb2.ResolvedTurn,
        context: Context,
    ) -> None:
        """Add what a provider needs to go on with what others did, and say so."""
        provider_id, unseen = attempt.link.provider_id, plan.unseen(attempt.link.provider_id)
        if provider_id != plan.usual:
            resolved.notices.extend(await _fit(resolved.settings.agent, attempt.link))
        if attempt.number > 1:
            resolved.notices.extend(await _fit(request.agent, attempt.link))
        if not unseen:
            return
        if plan.settings.fresh_on_switch:
            resolved.notices.append(notice("session_fresh", f"{provider_id} does not know what was said before"))
            return
        asked = session_pb2.ListItemsRequest(workspace_id=request.workspace_id, session_id=plan.turn.session_id)
        try:
            history = await self.handover.gather(asked, unseen, context)
        except (ProviderNotReady, StreamLost) as failure:
            await self.store.tell_later(plan.turn, plan.told(provider_id))
            absent = failure.metadata["provider_id"]
            message = f"{provider_id} is told later what was said before: {absent} has it, and cannot be reached"
            resolved.notices.append(notice("session_incomplete", message))
            return
        history.items.extend(request.history.items)
        request.history.CopyFrom(history)
        moved = notice("session_moved", f"{provider_id} goes on with {len(history.items)} entries of what was done")
        moved.severity = event_pb2.SEVERITY_INFO
        resolved.notices.append(moved)

    def _judge(self, attempt: _Attempt, failure: Failure) -> None:
        """Tell the provider's breaker what a failure says of it; that it cannot be reached, it knows."""
        if isinstance(failure, ProviderNotReady) or attempt.has_begun:
            return
        reason = _reason(failure)
        is_failing = reason in _FAILING and not (isinstance(failure, Refused) and _names_model(failure))
        if is_failing or isinstance(failure, StreamLost):
            attempt.link.breaker.failed()
        elif reason != _BACK:
            attempt.link.breaker.succeeded()


async def _fit(agent: options_pb2.AgentOptions, link: ProviderLink) -> list[event_pb2.Notice]:
    """Have options name nothing that a provider has not; return what is to be said of it."""
    return list(fit_model(agent, await link.info())) if agent.model or agent.effort else []


def _reason(failure: Failure) -> str:
    """Return the reason of a failure, as ErrorInfo has it."""
    if isinstance(failure, Refused):
        return str(failure.info.reason)
    return "STREAM_LOST" if isinstance(failure, StreamLost) else "PROVIDER_NOT_READY"


def _names_model(refused: Refused) -> bool:
    """Whether a turn was declined for the model that its caller named, which says nothing of the provider."""
    return str(refused.info.metadata["failure"]) == "MODEL_UNAVAILABLE"


def _may_go_on(plan: Plan, attempt: _Attempt, failure: Failure) -> bool:
    """Whether somebody else may be asked. A turn that a provider may have is left to it until it declines."""
    if len(plan.candidates) == 1:
        return False
    reason = _reason(failure)
    if plan.is_known and attempt.number == 1:
        return reason == _DECLINED
    if isinstance(failure, StreamLost):
        return not attempt.is_last  # The last one may have written the turn down.
    return reason in _CURABLE or attempt.number > 1


def _failover(attempt: _Attempt, failure: Failure) -> event_pb2.Notice:
    """Return the notice that says who could not take a turn, and why."""
    provider_id, reason = attempt.link.provider_id, _reason(failure)
    if isinstance(failure, Refused) and reason == _DECLINED:
        reason = failure.info.metadata["failure"]
    message = f"{provider_id} could not take the turn ({reason}): another provider was asked"
    return notice("failover", message, provider_id=provider_id, reason=reason)
