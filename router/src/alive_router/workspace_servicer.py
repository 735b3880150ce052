"""WorkspaceService: settings of workspaces, which providers there are and for whom, and what was used."""

import asyncio

from google.protobuf.message import Message

from alive.agent.v1 import provider_pb2, workspace_service_pb2
from alive_kit.errors import AgentError, InvalidField, ProviderNotFound
from alive_kit.merge import underlay
from alive_kit.rpc import Context
from alive_kit.validation import (
    check_get_usage,
    check_ids,
    check_provider_id,
    check_update_rollout,
    check_update_workspace,
)
from alive_kit.workspaces import Workspaces
from alive_router.audience import EVERYBODY, Audience
from alive_router.ledger import MOST_ROWS, Ledger, conditions
from alive_router.policy import Policy
from alive_router.providers import ProviderLinks
from alive_router.standing import Standing
from alive_router.store import Store


class WorkspaceServicer:
    """WorkspaceService over the router's store."""

    def __init__(
        self,
        *,
        policy: Policy,
        links: ProviderLinks,
        store: Store,
        workspaces: Workspaces,
        standing: Standing,
        ledger: Ledger,
    ) -> None:
        self._policy = policy
        self._links = links
        self._store = store
        self._workspaces = workspaces
        self._standing = standing
        self._ledger = ledger

    async def GetWorkspace(
        self, request: workspace_service_pb2.GetWorkspaceRequest, _context: Context
    ) -> workspace_service_pb2.GetWorkspaceResponse:
        """Return a workspace with its settings."""
        check_ids(request)
        self._workspaces.check(request.workspace_id)
        workspace = await self._store.workspace(request.workspace_id)
        return workspace_service_pb2.GetWorkspaceResponse(workspace=workspace)

    async def UpdateWorkspace(
        self, request: workspace_service_pb2.UpdateWorkspaceRequest, context: Context
    ) -> workspace_service_pb2.UpdateWorkspaceResponse:
        """Change a workspace's settings, all that are asked for or none."""
        check_update_workspace(request)
        self._workspaces.check(request.workspace_id)
        audience = await self._standing.audience(request.workspace_id, self._standing.owner(context))
        if request.settings.provider_id:
            self._policy.check(request.settings.provider_id, name="settings.provider_id", audience=audience)
        for provider_id in request.settings.failover.provider_ids:
            self._policy.check(provider_id, name="settings.failover.provider_ids", audience=audience)

        def change(settings: workspace_service_pb2.WorkspaceSettings) -> workspace_service_pb2.WorkspaceSettings:
            changed = _changed(settings, request)
            check_update_workspace(
                workspace_service_pb2.UpdateWorkspaceRequest(workspace_id=request.workspace_id, settings=changed)
            )
            return changed

        workspace = await self._store.change_workspace(request.workspace_id, change)
        return workspace_service_pb2.UpdateWorkspaceResponse(workspace=workspace)

    async def ListProviders(
        self, request: workspace_service_pb2.ListProvidersRequest, context: Context
    ) -> workspace_service_pb2.ListProvidersResponse:
        """List the configured providers with their readiness, and for a workspace whether it may use them."""
        audience = EVERYBODY
        if request.workspace_id:
            self._workspaces.check(request.workspace_id)
            audience = await self._standing.audience(request.workspace_id, self._standing.owner(context))
        entries = await asyncio.gather(*(self._entry(provider_id, audience) for provider_id in self._policy.endpoints))
        return workspace_service_pb2.ListProvidersResponse(providers=entries)

    async def GetUsage(
        self, request: workspace_service_pb2.GetUsageRequest, context: Context
    ) -> workspace_service_pb2.GetUsageResponse:
        """Sum up what was used, in one workspace or in all that are the caller's."""
        check_get_usage(request)
        if request.workspace_id:
            self._workspaces.check(request.workspace_id)
        rows = await self._ledger.rows(*conditions(request, self._standing.callers.identify(context).workspaces))
        if len(rows) > MOST_ROWS:
            raise InvalidField({"start_time": f"there are more than {MOST_ROWS} rows since then: ask for less"})
        return workspace_service_pb2.GetUsageResponse(rows=rows)

    async def GetRollout(
        self, request: workspace_service_pb2.GetRolloutRequest, _context: Context
    ) -> workspace_service_pb2.GetRolloutResponse:
        """Return to whom providers are rolled out."""
        check_provider_id(request.provider_id)
        if request.provider_id not in {"", *self._policy.endpoints}:
            raise ProviderNotFound(request.provider_id, self._policy.endpoints)
        found = [each for each in await self._standing.rollouts.all() if request.provider_id in {"", each.provider_id}]
        return workspace_service_pb2.GetRolloutResponse(rollouts=found)

    async def UpdateRollout(
        self, request: workspace_service_pb2.UpdateRolloutRequest, _context: Context
    ) -> workspace_service_pb2.UpdateRolloutResponse:
        """Change to whom a provider is rolled out."""
        check_update_rollout(request)
        provider_id, rollouts = request.rollout.provider_id, self._standing.rollouts
        if provider_id not in self._policy.endpoints:
            raise ProviderNotFound(provider_id, self._policy.endpoints, field="rollout.provider_id")
        if provider_id == rollouts.default:
            raise InvalidField({"rollout.provider_id": "is the default provider, which is for everybody"})
        return workspace_service_pb2.UpdateRolloutResponse(rollout=await rollouts.set(request.rollout))

    async def _entry(self, provider_id: str, audience: Audience) -> workspace_service_pb2.ProviderEntry:
        info = await self._links[provider_id].info()
        if wait := self._links[provider_id].breaker.wait():
            info.readiness.state = provider_pb2.READINESS_STATE_NOT_READY
            info.readiness.reason = f"it could not take the latest turns: it is tried again in {wait:.0f} s"
        reason = info.readiness.reason
        is_open = True
        try:
            self._policy.check(provider_id, audience=audience)
        except AgentError as refusal:
            is_open, reason = False, refusal.message
        return workspace_service_pb2.ProviderEntry(
            info=info,
            usable=is_open and info.readiness.state == provider_pb2.READINESS_STATE_READY,
            reason=reason,
            default=provider_id == self._policy.default,
        )


def _changed(
    settings: workspace_service_pb2.WorkspaceSettings, request: workspace_service_pb2.UpdateWorkspaceRequest
) -> workspace_service_pb2.WorkspaceSettings:
    """Return the settings with the changes of a request."""
    changed = workspace_service_pb2.WorkspaceSettings()
    if not request.update_mask.paths:
        changed.CopyFrom(request.settings)
        underlay(changed, settings)
        return changed
    changed.CopyFrom(settings)
    for path in request.update_mask.paths:
        try:
            _replace(changed, request.settings, path.split("."))
        except (KeyError, AttributeError) as error:
            raise InvalidField({"update_mask": f"settings have no field {path!r}"}) from error
    return changed


def _replace(target: Message, source: Message, path: list[str]) -> None:
    """Set one field to what it is in another message; clear it when it is not set there."""
    name = path[0]
    field = target.DESCRIPTOR.fields_by_name[name]
    if len(path) > 1:
        if field.message_type is None or field.is_repeated:
            raise KeyError(name)
        _replace(getattr(target, name), getattr(source, name), path[1:])
        return
    target.ClearField(name)
    value = next((value for known, value in source.ListFields() if known.name == name), None)
    if isinstance(value, Message):
        getattr(target, name).CopyFrom(value)
    elif value is not None and field.is_repeated:
        getattr(target, name).extend(value)
    elif value is not None:
        setattr(target, name, value)
