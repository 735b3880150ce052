"""Bad input is refused at the router as at a provider, and changes nothing."""

import grpc
import pytest

from alive.agent.v1 import workspace_service_pb2
from alive_kit.testing.bad_input import BAD, lay_traps, violations

from .conftest import System

_SETTINGS = {"agent", "permissions", "limits", "mcp_servers"}


async def test_a_bad_turn_is_refused_with_its_field(system: System) -> None:
    """Every row, through the router: INVALID_ARGUMENT names the field, and no provider starts anything."""
    lay_traps(system.caller.workspaces / "demo")
    for name, (fields, field) in BAD.items():
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await system.caller.run("hello", **fields)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
        assert field in violations(refusal.value), name

    assert all(provider.agents == [] for provider in system.providers.values())


async def test_bad_settings_are_refused_with_their_field(system: System) -> None:
    """What is wrong in a turn is wrong in a workspace's settings, and they stay as they were."""
    demo = workspace_service_pb2.GetWorkspaceRequest(workspace_id="demo")
    before = await system.workspaces.GetWorkspace(demo)
    for name, (fields, field) in BAD.items():
        if not _SETTINGS.issuperset(fields):
            continue
        settings = workspace_service_pb2.WorkspaceSettings(**fields)
        request = workspace_service_pb2.UpdateWorkspaceRequest(workspace_id="demo", settings=settings)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await system.workspaces.UpdateWorkspace(request)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
        assert f"settings.{field}" in violations(refusal.value), name

    assert await system.workspaces.GetWorkspace(demo) == before
