"""Bad input is refused with the field's name, and nothing is started or stored."""

from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from alive.agent.v1 import options_pb2, outcome_service_pb2, outcome_service_pb2_grpc, provider_pb2
from alive_kit import server as servers
from alive_kit.rpc import handler_of
from alive_kit.testing.fakes import FakeProvider
from alive_kit.testing.harness import serving

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16

Part = options_pb2.InputPart
Image = options_pb2.ImageInput
Server = options_pb2.McpServer


def stdio(name: str, command: str) -> Server:
    """Return an MCP server started as a process."""
    return Server(name=name, stdio=options_pb2.StdioTransport(command=command))


BAD = {
    "no workspace": ({"workspace_id": ""}, "workspace_id"),
    "a workspace that is no slug": ({"workspace_id": "Demo!"}, "workspace_id"),
    "a workspace that climbs": ({"workspace_id": "../demo"}, "workspace_id"),
    "a workspace with two dots": ({"workspace_id": "a..b"}, "workspace_id"),
    "an absolute workspace": ({"workspace_id": "/etc"}, "workspace_id"),
    "a turn id with a slash": ({"turn_id": "a/b"}, "turn_id"),
    "a session id with a space": ({"session_id": "a b"}, "session_id"),
    "a provider that is no slug": ({"provider_id": "../x"}, "provider_id"),
    "no input": ({"input": []}, "input"),
    "an empty part": ({"input": [Part()]}, "input[0]"),
    "an empty text": ({"input": [Part(text="hi"), Part(text="  ")]}, "input[1].text"),
    "an image that is none": ({"input": [Part(image=Image(data=b"GIF87"))]}, "input[0].image.data"),
    "an image without a source": ({"input": [Part(image=Image())]}, "input[0].image"),
    "an image over the limit": ({"input": [Part(image=Image(data=PNG + bytes(5 << 20)))]}, "input[0].image.data"),
    "an image that does not exist": ({"input": [Part(image=Image(path="no.png"))]}, "input[0].image.path"),
    "an image file that is none": ({"input": [Part(image=Image(path="text.png"))]}, "input[0].image.path"),
    "an absolute image": ({"input": [Part(image=Image(path="/etc/passwd"))]}, "input[0].image.path"),
    "a file that climbs": (
        {"input": [Part(file=options_pb2.FileReference(path="../x"))]},
        "input[0].file.path",
    ),
    "a file behind a link": (
        {"input": [Part(file=options_pb2.FileReference(path="link"))]},
        "input[0].file.path",
    ),
    "a schema that is not JSON": ({"agent": options_pb2.AgentOptions(output_schema="{")}, "agent.output_schema"),
    "a schema that is a list": ({"agent": options_pb2.AgentOptions(output_schema="[]")}, "agent.output_schema"),
    "a schema that is none": (
        {"agent": options_pb2.AgentOptions(output_schema='{"type": "colour"}')},
        "agent.output_schema",
    ),
    "a model with a space": ({"agent": options_pb2.AgentOptions(model="gpt 5")}, "agent.model"),
    "a system prompt without text": (
        {"agent": options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt())},
        "agent.system_prompt",
    ),
    "an unknown policy": ({"permissions": options_pb2.Permissions(approval_policy=77)}, "permissions.approval_policy"),
    "an unknown sandbox": ({"permissions": options_pb2.Permissions(sandbox=9)}, "permissions.sandbox"),
    "a directory that is no workspace": (
        {"permissions": options_pb2.Permissions(extra_directories=["/etc"])},
        "permissions.extra_directories[0]",
    ),
    "a tool with a space": (
        {"permissions": options_pb2.Permissions(tools=options_pb2.ToolRules(denied=["rm rf"]))},
        "permissions.tools.denied[0]",
    ),
    "no time at all": ({"limits": options_pb2.Limits(deadline=Duration())}, "limits.deadline"),
    "no turns at all": ({"limits": options_pb2.Limits(max_turns=0)}, "limits.max_turns"),
    "an MCP server given by path": ({"mcp_servers": [stdio("x", "/bin/sh")]}, "mcp_servers[0].stdio.command"),
    "an MCP server without a name": ({"mcp_servers": [stdio("", "python3")]}, "mcp_servers[0].name"),
    "two MCP servers of one name": (
        {"mcp_servers": [stdio("x", "python3"), stdio("x", "node")]},
        "mcp_servers[1].name",
    ),
    "an MCP server without a transport": ({"mcp_servers": [Server(name="x")]}, "mcp_servers[0]"),
    "an MCP address that is none": (
        {"mcp_servers": [Server(name="x", http=options_pb2.HttpTransport(url="ftp://x"))]},
        "mcp_servers[0].http.url",
    ),
    "more than 8 MiB": ({"input": [Part(text="x" * (3 << 20))] * 3}, "input"),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD.keys())
async def test_a_bad_field_is_named_and_nothing_is_started(
    directory: Path, fields: dict[str, object], field: str
) -> None:
    """INVALID_ARGUMENT with BadRequest for the field; no agent, no vendor home."""
    provider = FakeProvider()
    async with serving(provider, directory) as caller:
        (caller.workspaces / "demo" / "text.png").write_text("not an image")
        (caller.workspaces / "demo" / "link").symlink_to("/etc/passwd")
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


def violations(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the fields that a refusal names."""
    bad_request = error_details_pb2.BadRequest()
    unpack(error, bad_request)
    return [violation.field for violation in bad_request.field_violations]


def error_info(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """Return the reason and the field of a refusal."""
    info = error_details_pb2.ErrorInfo()
    unpack(error, info)
    return info.reason, info.metadata.get("field", "")


def unpack(error: grpc.aio.AioRpcError, message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> None:
    """Fill a message from the details of a refusal."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status
    assert any(detail.Unpack(message) for detail in status.details)
