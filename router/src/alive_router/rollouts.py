"""Keeps to whom providers are rolled out: what was set, or else what the configuration says."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from alive.agent.v1 import workspace_service_pb2
from alive_router.audience import Audience, audience_of
from alive_router.database import Database, insert_missing
from alive_router.statements import Statement
from alive_router.tables import ROLLOUTS

Rollout = workspace_service_pb2.Rollout

_ALL = Statement(lambda _: sa.select(ROLLOUTS.c.provider_id, ROLLOUTS.c.rollout))


class Rollouts:
    """The rollouts of the configured providers."""

    def __init__(
        self, database: Database, provider_ids: Sequence[str], configured: Mapping[str, Rollout], default: str
    ) -> None:
        self._database = database
        self._provider_ids = provider_ids
        self._configured = configured
        self.default = default
        """The provider that is for everybody: others fall back to it."""

    async def all(self) -> list[Rollout]:
        """Return the rollouts, in the order of the configuration."""
        rows = await self._database.read(_ALL)
        kept = {provider_id: Rollout.FromString(rollout) for provider_id, rollout in rows}
        found = {**self._configured, **kept}
        return [found[name] for name in self._provider_ids if name in found and name != self.default]

    async def audience(self, workspace_id: str, owner_id: str) -> Audience:
        """Return what the rollouts say for a workspace's turns."""
        return audience_of(await self.all(), workspace_id, owner_id)

    async def set(self, rollout: Rollout) -> Rollout:
        """Keep a rollout instead of what was said before, and return it."""
        kept = Rollout()
        kept.CopyFrom(rollout)
        kept.update_time.GetCurrentTime()
        values = {"rollout": kept.SerializeToString()}
        is_it = ROLLOUTS.c.provider_id == kept.provider_id
        async with self._database.writing() as connection:
            await connection.execute(
                insert_missing(connection.dialect.name, ROLLOUTS).values(provider_id=kept.provider_id, **values)
            )
            await connection.execute(sa.update(ROLLOUTS).where(is_it).values(values))
        return kept
