"""WorkspaceService: the settings of workspaces, and which providers there are."""

import asyncio

from google.protobuf.message import Message

from alive.agent.v1 import provider_pb2, workspace_service_pb2
from alive_kit.errors import InvalidField, ProviderDisabled
from alive_kit.merge import underlay
from alive_kit.rpc import Context
from alive_kit.validation import check_ids, check_update_workspace
from alive_kit.workspaces import Workspaces
from alive_router.policy import Policy
from alive_router.providers import ProviderLinks
from alive_router.store import Store


class WorkspaceServicer:
    """WorkspaceService over the router's store."""

    def __init__(self, policy: Policy, links: ProviderLinks, store: Store, workspaces: Workspaces) -> None:
        self._policy = policy
        self._links = links
        self._store = store
        self._workspaces = workspaces
        self._changing = asyncio.Lock()

    async def GetWorkspace(
        self, request: workspace_service_pb2.GetWorkspaceRequest, _context: Context
    ) -> workspace_service_pb2.GetWorkspaceResponse:
        """Return a workspace with its settings."""
        check_ids(request)
        self._workspaces.find(request.workspace_id)
        workspace = await self._store.workspace(request.workspace_id)
        return workspace_service_pb2.GetWorkspaceResponse(workspace=workspace)

    async def UpdateWorkspace(
        self, request: workspace_service_pb2.UpdateWorkspaceRequest, _context: Context
    ) -> workspace_service_pb2.UpdateWorkspaceResponse:
        """Change a workspace's settings, all that are asked for or none."""
        check_update_workspace(request)
        self._workspaces.find(request.workspace_id)
        if request.settings.provider_id:
            self._policy.check(request.settings.provider_id, name="settings.provider_id")
        for provider_id in request.settings.failover.provider_ids:
            self._policy.check(provider_id, name="settings.failover.provider_ids")
        async with self._changing:  # Two callers that change different fields must not undo each other.
            workspace = await self._store.workspace(request.workspace_id)
            settings = _changed(workspace.settings, request)
            checked = workspace_service_pb2.UpdateWorkspaceRequest(workspace_id=request.workspace_id, settings=settings)
            check_update_workspace(checked)
            await self._store.set_workspace(request.workspace_id, settings)
            workspace = await self._store.workspace(request.workspace_id)
        return workspace_service_pb2.UpdateWorkspaceResponse(workspace=workspace)

    async def ListProviders(
        self, request: workspace_service_pb2.ListProvidersRequest, _context: Context
    ) -> workspace_service_pb2.ListProvidersResponse:
        """List the configured providers with their readiness."""
        if request.workspace_id:
            self._workspaces.find(request.workspace_id)
        entries = await asyncio.gather(*(self._entry(provider_id) for provider_id in self._policy.endpoints))
        return workspace_service_pb2.ListProvidersResponse(providers=entries)

    async def _entry(self, provider_id: str) -> workspace_service_pb2.ProviderEntry:
        info = await self._links[provider_id].info()
        is_enabled = provider_id not in self._policy.disabled
        if wait := self._links[provider_id].breaker.wait():
            info.readiness.state = provider_pb2.READINESS_STATE_NOT_READY
            info.readiness.reason = f"it could not take the latest turns: it is tried again in {wait:.0f} s"
        is_ready = info.readiness.state == provider_pb2.READINESS_STATE_READY
        return workspace_service_pb2.ProviderEntry(
            info=info,
            usable=is_enabled and is_ready,
            reason=info.readiness.reason if is_enabled else ProviderDisabled(provider_id).message,
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
