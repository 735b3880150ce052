"""Bad input is refused at the router as at a provider, and changes nothing."""

import grpc
import pytest

from alive.agent.v1 import options_pb2, workspace_service_pb2
from alive_kit.testing.bad_input import BAD, lay_traps, violations
from alive_kit.validation import SETTINGS_BYTES

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


async def test_a_refusal_of_much_has_room_for_its_reason(system: System) -> None:
    """A thousand wrong parts, and a name as long as a request may be."""
    many, long = [options_pb2.InputPart()] * 1000, options_pb2.AgentOptions(model="x y" * (1 << 20))
    for fields, field in (({"input": many}, "input[0]"), ({"agent": long}, "agent.model")):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await system.caller.run("hello", **fields)
        assert field in violations(refusal.value)


async def test_what_is_no_message_is_refused_like_any_bad_input(system: System) -> None:
    """By router and provider; not by gRPC, which knows no reasons."""
    for channel in (system.caller.channel, system.services["red"].channel):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await channel.unary_unary("/alive.agent.v1.AgentService/GetSession")(b"\xff\xff")
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violations(refusal.value) == ["request"]


async def test_settings_of_any_size_that_is_accepted_reach_the_provider(system: System) -> None:
    """They travel as metadata."""
    prompt = options_pb2.SystemPrompt(append="x" * (SETTINGS_BYTES - 1000))
    settings = workspace_service_pb2.WorkspaceSettings(agent=options_pb2.AgentOptions(system_prompt=prompt))
    await system.workspaces.UpdateWorkspace(
        workspace_service_pb2.UpdateWorkspaceRequest(workspace_id="demo", settings=settings)
    )

    assert (await system.caller.run("hello"))[-1].HasField("turn_completed")
    assert system.providers["red"].agents[0].turns == 1
