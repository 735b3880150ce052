"""Which provider gets a turn, and how one that cannot have it is refused."""

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from alive.agent.v1 import agent_service_pb2, options_pb2, provider_pb2, workspace_service_pb2

from .conftest import System, running

Settings = workspace_service_pb2.WorkspaceSettings


async def update(system: System, settings: Settings, *paths: str) -> workspace_service_pb2.Workspace:
    """Change the settings of workspace ``demo``."""
    request = workspace_service_pb2.UpdateWorkspaceRequest(
        workspace_id="demo", settings=settings, update_mask=FieldMask(paths=paths)
    )
    return (await system.workspaces.UpdateWorkspace(request)).workspace


async def refusal(awaitable: object) -> grpc.aio.AioRpcError:
    """Return how a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await awaitable  # type: ignore[misc]
    return refused.value


async def test_the_request_wins_over_the_workspace_and_that_over_the_default(system: System) -> None:
    """Source: contract, provider choice."""
    by_default = await system.caller.run("hello")
    await update(system, Settings(provider_id="blue"))
    by_workspace = await system.caller.run("hello")
    by_request = await system.caller.run("hello", provider_id="red")

    assert [events[0].provider_id for events in (by_default, by_workspace, by_request)] == ["red", "blue", "red"]


async def test_a_session_stays_with_its_provider(system: System) -> None:
    """Also when the workspace's setting has changed; it moves when a request says so, and stays there."""
    first = await system.caller.run("hello", provider_id="blue")
    session_id = first[0].session_id
    await update(system, Settings(provider_id="red"))
    second = await system.caller.run("hello", session_id=session_id)
    third = await system.caller.run("hello", session_id=session_id, provider_id="red")
    fourth = await system.caller.run("hello", session_id=session_id)

    assert [events[0].provider_id for events in (second, third, fourth)] == ["blue", "red", "red"]
    assert {events[0].session_id for events in (second, third, fourth)} == {session_id}


async def test_the_workspaces_settings_reach_the_turn(system: System) -> None:
    """The request's own fields win."""
    agent = options_pb2.AgentOptions(model="from-workspace", effort="high")
    await update(system, Settings(agent=agent))
    await system.caller.run("hello", agent=options_pb2.AgentOptions(model="from-request"))
    merged = system.providers["red"].specs[0].request.agent

    assert (merged.model, merged.effort) == ("from-request", "high")


async def test_settings_are_kept_changed_and_cleared(system: System) -> None:
    """Without a mask what is set is changed; with one, what is not set is cleared."""
    await update(system, Settings(provider_id="blue", agent=options_pb2.AgentOptions(model="m", effort="e")))
    changed = await update(system, Settings(agent=options_pb2.AgentOptions(model="n")))
    cleared = await update(system, Settings(), "agent.model", "provider_id")
    got = await system.workspaces.GetWorkspace(workspace_service_pb2.GetWorkspaceRequest(workspace_id="demo"))

    assert (changed.settings.provider_id, changed.settings.agent.model) == ("blue", "n")
    assert cleared.settings == Settings(agent=options_pb2.AgentOptions(effort="e"))
    assert got.workspace == cleared


@pytest.mark.parametrize(
    ("settings", "paths", "code", "word"),
    [
        (Settings(provider_id="green"), (), grpc.StatusCode.NOT_FOUND, "green"),
        (Settings(provider_id="../x"), (), grpc.StatusCode.INVALID_ARGUMENT, "settings.provider_id"),
        (Settings(), ("nonsense",), grpc.StatusCode.INVALID_ARGUMENT, "update_mask"),
        (Settings(agent={"output_schema": "{"}), (), grpc.StatusCode.INVALID_ARGUMENT, "settings.agent.output_schema"),
        (Settings(permissions={"sandbox": 99}), (), grpc.StatusCode.INVALID_ARGUMENT, "settings.permissions.sandbox"),
    ],
)
async def test_settings_that_are_wrong_change_nothing(
    system: System, settings: Settings, paths: tuple[str, ...], code: grpc.StatusCode, word: str
) -> None:
    """The field is named."""
    before = await update(system, Settings(provider_id="blue"))
    error = await refusal(update(system, settings, *paths))
    got = await system.workspaces.GetWorkspace(workspace_service_pb2.GetWorkspaceRequest(workspace_id="demo"))

    assert error.code() is code
    assert word in (error.details() or "")
    assert got.workspace == before


async def test_unknown_disabled_and_absent_providers_are_refused_by_name() -> None:
    """Each with ErrorInfo, before anything starts."""
    async with running("red", "blue", absent="grey", disabled_providers=frozenset({"blue"})) as system:
        unknown = await refusal(system.caller.run("hello", provider_id="green"))
        disabled = await refusal(system.caller.run("hello", provider_id="blue"))
        absent = await refusal(system.caller.run("hello", provider_id="grey"))
        started = [provider.agents for provider in system.providers.values()]

    for error, code, reason in (
        (unknown, grpc.StatusCode.NOT_FOUND, b"PROVIDER_NOT_FOUND"),
        (disabled, grpc.StatusCode.FAILED_PRECONDITION, b"PROVIDER_DISABLED"),
        (absent, grpc.StatusCode.UNAVAILABLE, b"PROVIDER_NOT_READY"),
    ):
        assert error.code() is code
        assert reason in dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert started == [[], []]


async def test_a_provider_that_is_not_ready_is_refused_with_its_reason() -> None:
    """As the provider itself says it."""
    async with running("red") as system:
        state = provider_pb2.READINESS_STATE_NOT_READY
        system.services["red"].service.info.readiness.CopyFrom(provider_pb2.Readiness(state=state, reason="no key"))
        error = await refusal(system.caller.run("hello"))

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "no key" in (error.details() or "")


async def test_providers_are_listed_with_what_they_say() -> None:
    """One is ready, one is switched off, one is not there."""
    async with running("red", "blue", absent="grey", disabled_providers=frozenset({"blue"})) as system:
        answer = await system.workspaces.ListProviders(workspace_service_pb2.ListProvidersRequest(workspace_id="demo"))
        info = await system.caller.stub.GetProviderInfo(agent_service_pb2.GetProviderInfoRequest(provider_id="grey"))

    listed = [(entry.info.provider_id, entry.usable, entry.default) for entry in answer.providers]
    assert listed == [("red", True, True), ("blue", False, False), ("grey", False, False)]
    assert "switched off" in answer.providers[1].reason
    assert "cannot be reached" in answer.providers[2].reason
    assert info.provider.readiness.state == provider_pb2.READINESS_STATE_NOT_READY


async def test_settings_outlive_the_router() -> None:
    """A second router on the same store has them."""
    async with running("red", "blue") as system:
        await update(system, Settings(provider_id="blue"))
        async with running("red", "blue", state_dir=system.directory) as again:
            got = await again.workspaces.GetWorkspace(workspace_service_pb2.GetWorkspaceRequest(workspace_id="demo"))

    assert got.workspace.settings.provider_id == "blue"
