"""Decides about a turn before anybody is asked: which provider it is for, and what each of them would be told."""

import uuid
from dataclasses import dataclass
from itertools import takewhile

from alive.agent.v1 import agent_service_pb2, workspace_service_pb2
from alive_kit.errors import SessionNotFound, ShuttingDown
from alive_kit.validation import check_start_turn
from alive_kit.workspaces import Workspaces
from alive_router.audience import Audience
from alive_router.plan import Plan
from alive_router.policy import Policy
from alive_router.standing import Standing
from alive_router.store import SessionTurn, Store, TurnRow


@dataclass(slots=True, kw_only=True)
class Planner:
    """Makes plans of what is asked, what is known, and what whoever asks may do."""

    policy: Policy
    store: Store
    standing: Standing
    workspaces: Workspaces
    is_draining: bool = False
    """Whether no new turns are taken."""

    async def plan(self, request: agent_service_pb2.StartTurnRequest, owner_id: str) -> Plan:
        """Return the plan of a turn; nothing is kept of it.

        Raises:
            AgentError: the turn is refused.
        """
        known = await self._known(request)
        settings = await self.store.settings(request.workspace_id)
        others = () if request.validate_only else settings.failover.provider_ids
        home = await self._home(request, known)
        latest = await self.store.latest_turn(request.workspace_id, request.session_id) if home and not known else None
        earlier = [latest] if latest else await self._earlier(request, known)
        notices = [] if known else await self.standing.check_quota(request.workspace_id, settings.usage_limits)
        audience = await self.standing.audience(request.workspace_id, owner_id)
        of_session = earlier[-1].chosen_provider_id if earlier else home
        turn = known or _new_turn(request, self._choose(request, of_session, settings, audience), owner_id)
        if not (known or request.provider_id):
            notices.extend(audience.fallback(of_session or settings.provider_id, turn.provider_id))
        candidates = self.policy.candidates(turn.provider_id, others, audience)
        if latest and not (latest.knows_all and candidates == [latest.provider_id]):
            earlier = await self._earlier(request, known)
        return Plan(
            request=request,
            turn=turn,
            settings=settings,
            candidates=candidates,
            earlier=earlier,
            home=home,
            usual=settings.provider_id or self.policy.default,
            notices=notices,
            is_known=known is not None,
        )

    def _choose(
        self,
        request: agent_service_pb2.StartTurnRequest,
        of_session: str,
        settings: workspace_service_pb2.WorkspaceSettings,
        audience: Audience,
    ) -> str:
        return self.policy.choose(
            requested=request.provider_id,
            of_session=of_session,
            of_workspace=settings.provider_id,
            audience=audience,
        )

    async def _known(self, request: agent_service_pb2.StartTurnRequest) -> TurnRow | None:
        """Return the turn if the call was made before."""
        check_start_turn(request)
        self.workspaces.check(request.workspace_id)
        known = await self.store.turn(request.workspace_id, request.turn_id) if request.turn_id else None
        if self.is_draining and known is None:
            raise ShuttingDown
        return known

    async def _home(self, request: agent_service_pb2.StartTurnRequest, known: TurnRow | None) -> str:
        """Return who opened the request's session; empty for a new session."""
        if not request.session_id:
            return ""
        home = await self.store.provider_of_session(request.workspace_id, request.session_id)
        if not home and not known:
            raise SessionNotFound(request.session_id)
        return home

    async def _earlier(self, request: agent_service_pb2.StartTurnRequest, known: TurnRow | None) -> list[SessionTurn]:
        """Return the turns of the request's session before this one; none for a new session."""
        if not request.session_id:
            return []
        turns = await self.store.turns_of_session(request.workspace_id, request.session_id)
        return list(takewhile(lambda turn: known is None or turn.turn_id != known.turn_id, turns))


def _new_turn(request: agent_service_pb2.StartTurnRequest, provider_id: str, owner_id: str) -> TurnRow:
    """Return a turn that nobody has yet, under the request's ids or new ones."""
    return TurnRow(
        workspace_id=request.workspace_id,
        turn_id=request.turn_id or f"turn-{uuid.uuid4()}",
        session_id=request.session_id or f"session-{uuid.uuid4()}",
        provider_id=provider_id,
        owner_id=owner_id,
    )
