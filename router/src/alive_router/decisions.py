"""Decides for the edge where a turn's stream comes from: from its provider directly, where that is all there is to say.

Everything else is the router's own: a turn that needs more than a pick (failover, what was said elsewhere, a model of
another vendor's), one that is refused, and one that is known already. The edge leads those to the router, which does
with them what it always does.
"""

import functools
from dataclasses import dataclass
from typing import TypeAlias

from google.rpc import error_details_pb2

from alive.agent.v1 import agent_service_pb2
from alive_kit.errors import AgentError, StreamLost, status_of
from alive_kit.validation import check_ids
from alive_kit.workspaces import Workspaces
from alive_router.busy import Busy
from alive_router.callers import Callers, Shown
from alive_router.planner import Planner
from alive_router.providers import ProviderLinks
from alive_router.store import Store

RESOLVED_BYTES = 32 << 10
"""How much a provider may be told by way of the edge: it travels in a header."""

_OfTurn: TypeAlias = agent_service_pb2.WatchTurnRequest | agent_service_pb2.ReadItemContentRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Led:
    """Where a stream is led past the router."""

    provider_id: str
    lost: bytes
    """How the call ends when the provider cannot be reached: a serialized google.rpc.Status."""
    resolved: bytes = b""
    """What the provider is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Where the streams of turns are led."""

    planner: Planner
    store: Store
    links: ProviderLinks
    workspaces: Workspaces
    callers: Callers
    busy: Busy

    async def of(self, method: str, data: bytes, shown: Shown) -> Led | None:
        """Return where the stream of a call is led; None for the router, which also says what is wrong with it."""
        request_class = _REQUESTS[method]
        try:
            request = request_class.FromString(data)
            self.callers.admit(method, request, shown)
            if isinstance(request, agent_service_pb2.StartTurnRequest):
                return await self._start(request, shown)
            return await self._of_turn(request)
        except (AgentError, ValueError):  # No such message, for one.
            return None

    async def _start(self, request: agent_service_pb2.StartTurnRequest, shown: Shown) -> Led | None:
        plan = await self.planner.plan(request, self.callers.identify(shown).owner)
        turn = plan.turn
        if not (plan.is_only_a_pick and self.links[turn.provider_id].is_fine):
            return None
        resolved = plan.resolved(attempt=1, failover_allowed=False).SerializeToString()
        if len(resolved) > RESOLVED_BYTES:
            return None
        if not request.validate_only:
            kept = await self.store.add_turn(turn, opens_session=plan.opens_session, is_kept=not request.ephemeral)
            if not kept:  # The same call came twice at the same time.
                return None
            self.busy.lead(turn)
        return _led(turn.provider_id, turn.turn_id, resolved)

    async def _of_turn(self, request: _OfTurn) -> Led | None:
        check_ids(agent_service_pb2.WatchTurnRequest(workspace_id=request.workspace_id, turn_id=request.turn_id))
        self.workspaces.check(request.workspace_id)
        known = await self.store.turn(request.workspace_id, request.turn_id)
        if known is None or not self.links[known.provider_id].is_fine:
            return None
        return _led(known.provider_id, known.turn_id)


_REQUESTS: dict[str, type[agent_service_pb2.StartTurnRequest] | type[_OfTurn]] = {
    "StartTurn": agent_service_pb2.StartTurnRequest,
    "WatchTurn": agent_service_pb2.WatchTurnRequest,
    "ReadItemContent": agent_service_pb2.ReadItemContentRequest,
}


def _led(provider_id: str, turn_id: str, resolved: bytes = b"") -> Led:
    return Led(provider_id=provider_id, lost=_loss(provider_id).of(turn_id), resolved=resolved)


class _Loss:
    """How calls end when a provider cannot be reached. All but the turn is made once: that takes a while."""

    _TURN = "<turn>"
    """No provider's id, and no part of one."""

    def __init__(self, provider_id: str) -> None:
        self._status = status_of(StreamLost(provider_id, self._TURN))
        self._message = self._status.message
        self._info = error_details_pb2.ErrorInfo()
        self._status.details[0].Unpack(self._info)

    def of(self, turn_id: str) -> bytes:
        """Return the serialized google.rpc.Status for a turn."""
        self._status.message = self._message.replace(self._TURN, turn_id)
        self._info.metadata["turn_id"] = turn_id
        self._status.details[0].value = self._info.SerializeToString()
        status: bytes = self._status.SerializeToString()
        return status


_loss = functools.cache(_Loss)
