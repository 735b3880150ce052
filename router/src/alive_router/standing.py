"""What whoever calls may do now: whose turns these are, which providers they may use, and whether they may use more."""

from dataclasses import dataclass

from alive.agent.v1 import event_pb2, workspace_service_pb2
from alive_kit.errors import Forbidden
from alive_kit.rpc import Context
from alive_router.audience import Audience
from alive_router.callers import Callers
from alive_router.quota import Quota
from alive_router.rollouts import Rollouts
from alive_router.store import TurnRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Callers, rollouts and quotas together."""

    callers: Callers
    rollouts: Rollouts
    quota: Quota

    def owner(self, context: Context) -> str:
        """Return on whose behalf a call is made; empty where callers have no identity."""
        return self.callers.identify(context).owner

    def check_owner(self, context: Context, turn: TurnRow | None) -> None:
        """Refuse what only a turn's owner may do: who steers, stops or answers it acts on its owner's behalf.

        Raises:
            Forbidden: the turn is somebody else's.
        """
        if turn and turn.owner_id != self.owner(context):
            raise Forbidden("the turn belongs to another owner: only its own may steer, stop or answer it")

    async def audience(self, workspace_id: str, owner_id: str) -> Audience:
        """Return which providers a workspace's turns may use."""
        return await self.rollouts.audience(workspace_id, owner_id)

    async def check_quota(self, workspace_id: str, limits: workspace_service_pb2.UsageLimits) -> list[event_pb2.Notice]:
        """Return what a new turn is to be told of what its workspace has used.

        Raises:
            QuotaExhausted: it may not begin before the next period.
        """
        return await self.quota.check(workspace_id, limits)
