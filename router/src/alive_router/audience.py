"""To whom providers are rolled out. Pure: it knows what it is given and asks nobody."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from alive.agent.v1 import event_pb2, workspace_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """What rollouts say for the turns of one workspace."""

    barred: frozenset[str] = frozenset()
    """The providers that they may not use."""

    preferred: str = ""
    """The provider that answers where nothing names another; empty for the default one."""

    def fallback(self, of_workspace: str, chosen: str) -> list[event_pb2.Notice]:
        """Return what a turn is told whose workspace names a provider that it may not use any more."""
        if of_workspace not in self.barred or chosen == of_workspace:
            return []
        message = f"Provider {of_workspace} is not rolled out to this workspace any more: {chosen} answers instead."
        details = {"provider_id": of_workspace, "chosen_provider_id": chosen}
        severity = event_pb2.SEVERITY_WARNING
        return [event_pb2.Notice(severity=severity, code="provider_rolled_back", message=message, details=details)]


EVERYBODY = Audience()
"""Nothing is rolled out by degrees."""


def audience_of(rollouts: Iterable[workspace_service_pb2.Rollout], workspace_id: str, owner_id: str) -> Audience:
    """Return what rollouts say for a workspace's turns; of several that are preferred the first one is."""
    barred, preferred = set(), ""
    for rollout in rollouts:
        if not admits(rollout, workspace_id, owner_id):
            barred.add(rollout.provider_id)
        elif rollout.preferred:
            preferred = preferred or rollout.provider_id
    return Audience(barred=frozenset(barred), preferred=preferred)


def admits(rollout: workspace_service_pb2.Rollout, workspace_id: str, owner_id: str) -> bool:
    """Whether a workspace's turns may use the provider."""
    if not rollout.enabled:
        return False
    is_listed = workspace_id in rollout.workspace_ids or (bool(owner_id) and owner_id in rollout.owner_ids)
    return is_listed or place(rollout.provider_id, workspace_id) < rollout.percentage


def place(provider_id: str, workspace_id: str) -> int:
    """Return a workspace's place among a hundred: always the same, and for each provider another one."""
    digest = hashlib.sha256(f"{provider_id}/{workspace_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100
