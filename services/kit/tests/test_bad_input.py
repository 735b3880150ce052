"""Bad input is refused with the field's name, and nothing is started or stored."""

from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from alive.agent.v1 import outcome_service_pb2, outcome_service_pb2_grpc, provider_pb2
from alive_kit import server as servers
from alive_kit.rpc import handler_of
from alive_kit.testing.bad_input import BAD, lay_traps, unpack, violations
from alive_kit.testing.fakes import FakeProvider
from alive_kit.testing.harness import serving


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD.keys())
async def test_a_bad_field_is_named_and_nothing_is_started(
    directory: Path, fields: dict[str, object], field: str
) -> None:
    """INVALID_ARGUMENT with BadRequest for the field; no agent, no vendor home."""
    provider = FakeProvider()
    async with serving(provider, directory) as caller:
        lay_traps(caller.workspaces / "demo")
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("hello", **fields)

    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in violations(refusal.value)
    assert provider.agents == []
    assert not (directory / "state/homes").exists()


async def test_an_unknown_workspace_is_not_found(directory: Path) -> None:
    """NOT_FOUND names the field, and says what to do."""
    async with serving(FakeProvider(), directory) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("hello", workspace_id="nowhere")

    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
    assert error_info(refusal.value) == ("WORKSPACE_NOT_FOUND", "workspace_id")


async def test_a_workspace_behind_a_link_is_not_found(directory: Path) -> None:
    """A link in the directory of workspaces does not lead an agent elsewhere."""
    async with serving(FakeProvider(), directory) as caller:
        (caller.workspaces / "linked").symlink_to("/etc")
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("hello", workspace_id="linked")

    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND


async def test_an_unknown_session_is_not_found(directory: Path) -> None:
    """Sessions belong to their workspace: another workspace's session does not exist."""
    async with serving(FakeProvider(), directory) as caller:
        (caller.workspaces / "other").mkdir()
        session_id = (await caller.run("hello"))[0].session_id
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("hello", workspace_id="other", session_id=session_id)

    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
    assert error_info(refusal.value) == ("SESSION_NOT_FOUND", "session_id")


async def test_an_unready_provider_starts_nothing(directory: Path) -> None:
    """UNAVAILABLE names the provider and says why; RetryInfo says when to come again."""
    provider = FakeProvider()
    provider.readiness = provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_NOT_READY, reason="no key")
    async with serving(provider, directory) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("hello")

    assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "no key" in str(refusal.value.details())
    assert error_info(refusal.value) == ("PROVIDER_NOT_READY", "")
    assert provider.agents == []


async def test_a_call_that_is_not_offered_says_so(directory: Path) -> None:
    """UNIMPLEMENTED with a sentence, not an empty status."""
    address, service = f"unix:{directory}/bare.sock", outcome_service_pb2.DESCRIPTOR.services_by_name["OutcomeService"]
    server = servers.Server(address)
    server.add(service, handler_of(service, None))
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        outcomes = outcome_service_pb2_grpc.OutcomeServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await outcomes.WatchOutcomes(outcome_service_pb2.WatchOutcomesRequest()).read()
    await server.stop(0)

    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert error_info(refusal.value) == ("CALL_UNSUPPORTED", "")


def error_info(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """Return the reason and the field of a refusal."""
    info = error_details_pb2.ErrorInfo()
    unpack(error, info)
    return info.reason, info.metadata.get("field", "")
