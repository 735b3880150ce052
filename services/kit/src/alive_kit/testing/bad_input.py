"""Bad input: what every service that takes turns refuses, with the name of the field."""

from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from alive.agent.v1 import options_pb2

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16

Part = options_pb2.InputPart
Image = options_pb2.ImageInput
Server = options_pb2.McpServer
Agent = options_pb2.AgentOptions
Limits = options_pb2.Limits
PYTHON = options_pb2.StdioTransport(command="python3")


def stdio(name: str, command: str) -> Server:
    """Return an MCP server started as a process."""
    return Server(name=name, stdio=options_pb2.StdioTransport(command=command))


_UNKNOWN: Any = 99
"""No value of any enum."""

BAD: dict[str, tuple[dict[str, Any], str]] = {
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
    "an MCP address that nobody can read": (
        {"mcp_servers": [Server(name="x", http=options_pb2.HttpTransport(url="http://["))]},
        "mcp_servers[0].http.url",
    ),
    "a program whose name ends early": ({"mcp_servers": [stdio("x", "a\0b")]}, "mcp_servers[0].stdio.command"),
    "an argument that ends early": (
        {"mcp_servers": [Server(name="x", stdio=options_pb2.StdioTransport(command="python3", args=["a\0b"]))]},
        "mcp_servers[0].stdio.args",
    ),
    "a variable that ends early": (
        {"mcp_servers": [Server(name="x", stdio=options_pb2.StdioTransport(command="python3", env={"A": "a\0b"}))]},
        "mcp_servers[0].stdio.env",
    ),
    "a header of two lines": (
        {"mcp_servers": [Server(name="x", http=options_pb2.HttpTransport(url="http://x", headers={"a": "b\nc: d"}))]},
        "mcp_servers[0].http.headers",
    ),
    "a header without a name": (
        {"mcp_servers": [Server(name="x", http=options_pb2.HttpTransport(url="http://x", header_env_names={"": "A"}))]},
        "mcp_servers[0].http.header_env_names",
    ),
    "a user of two lines": (
        {"tool_context": options_pb2.ToolContext(user_id="a\r\nx-evil: 1")},
        "tool_context.user_id",
    ),
    "a connected provider that is none": (
        {"tool_context": options_pb2.ToolContext(connected_providers=["a,b"])},
        "tool_context.connected_providers[0]",
    ),
    "a system prompt that ends early": (
        {"agent": Agent(system_prompt=options_pb2.SystemPrompt(append="a\0b"))},
        "agent.system_prompt.append",
    ),
    "a file that climbs": (
        {"input": [Part(file=options_pb2.FileReference(path="../x"))]},
        "input[0].file.path",
    ),
    "a file behind a link": (
        {"input": [Part(file=options_pb2.FileReference(path="link"))]},
        "input[0].file.path",
    ),
    "a schema that is not JSON": ({"agent": Agent(output_schema="{")}, "agent.output_schema"),
    "a schema that is nested too deep": (
        {"agent": Agent(output_schema='{"items": ' * 900 + "{}" + "}" * 900)},
        "agent.output_schema",
    ),
    "a schema that is too large": (
        {"agent": Agent(output_schema='{"type": "object", "title": "%s"}' % ("x" * 70_000))},
        "agent.output_schema",
    ),
    "a schema that is a list": ({"agent": Agent(output_schema="[]")}, "agent.output_schema"),
    "a schema that is none": (
        {"agent": Agent(output_schema='{"type": "colour"}')},
        "agent.output_schema",
    ),
    "a schema of a text": ({"agent": Agent(output_schema='{"type": "string"}')}, "agent.output_schema"),
    "a schema that points nowhere": (
        {"agent": Agent(output_schema='{"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}')},
        "agent.output_schema",
    ),
    "a schema that points to another place": (
        {"agent": Agent(output_schema='{"type": "object", "items": {"$ref": "https://example.com/s"}}')},
        "agent.output_schema",
    ),
    "a schema with a pattern that is none": (
        {"agent": Agent(output_schema='{"type": "object", "properties": {"a": {"pattern": "("}}}')},
        "agent.output_schema",
    ),
    "an effort with a space": ({"agent": Agent(effort="very high")}, "agent.effort"),
    "an endless model": ({"agent": Agent(model="m" * 129)}, "agent.model"),
    "an empty system prompt": (
        {"agent": Agent(system_prompt=options_pb2.SystemPrompt(append=" "))},
        "agent.system_prompt.append",
    ),
    "a model with a space": ({"agent": Agent(model="gpt 5")}, "agent.model"),
    "a system prompt without text": (
        {"agent": Agent(system_prompt=options_pb2.SystemPrompt())},
        "agent.system_prompt",
    ),
    "an unknown policy": (
        {"permissions": options_pb2.Permissions(approval_policy=_UNKNOWN)},
        "permissions.approval_policy",
    ),
    "an unknown sandbox": ({"permissions": options_pb2.Permissions(sandbox=_UNKNOWN)}, "permissions.sandbox"),
    "a directory that is no workspace": (
        {"permissions": options_pb2.Permissions(extra_directories=["/etc"])},
        "permissions.extra_directories[0]",
    ),
    "a tool with a space": (
        {"permissions": options_pb2.Permissions(tools=options_pb2.ToolRules(denied=["rm rf"]))},
        "permissions.tools.denied[0]",
    ),
    "no time at all": ({"limits": Limits(deadline=Duration())}, "limits.deadline"),
    "time that runs back": ({"limits": Limits(idle_timeout=Duration(seconds=-1))}, "limits.idle_timeout"),
    "more time than there is": ({"limits": Limits(idle_timeout=Duration(seconds=1 << 40))}, "limits.idle_timeout"),
    "time that is none": ({"limits": Limits(deadline=Duration(seconds=1, nanos=-1))}, "limits.deadline"),
    "no tokens at all": ({"limits": Limits(max_tokens=0)}, "limits.max_tokens"),
    "no money at all": ({"limits": Limits(max_micro_usd=0)}, "limits.max_micro_usd"),
    "an unknown workload class": ({"limits": Limits(workload_class=_UNKNOWN)}, "limits.workload_class"),
    "no time for an answer": (
        {"permissions": options_pb2.Permissions(approval_timeout=Duration())},
        "permissions.approval_timeout",
    ),
    "an allowed tool that is none": (
        {"permissions": options_pb2.Permissions(tools=options_pb2.ToolRules(allowed=[""]))},
        "permissions.tools.allowed[0]",
    ),
    "no grace at all": ({"delivery": options_pb2.Delivery(grace=Duration())}, "delivery.grace"),
    "an unknown way to go": ({"delivery": options_pb2.Delivery(on_disconnect=_UNKNOWN)}, "delivery.on_disconnect"),
    "a cookie of two lines": (
        {"tool_context": options_pb2.ToolContext(session_cookie="a=b\r\nx-evil: 1")},
        "tool_context.session_cookie",
    ),
    "no turns at all": ({"limits": Limits(max_turns=0)}, "limits.max_turns"),
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
    "an MCP tool that is none": (
        {"mcp_servers": [Server(name="x", tools=options_pb2.ToolRules(denied=["a b"]), stdio=PYTHON)]},
        "mcp_servers[0].tools.denied[0]",
    ),
    "an MCP server without time to start": (
        {"mcp_servers": [Server(name="x", stdio=PYTHON, startup_timeout=Duration())]},
        "mcp_servers[0].startup_timeout",
    ),
    "an MCP server without time to answer": (
        {"mcp_servers": [Server(name="x", stdio=PYTHON, tool_timeout=Duration(seconds=-1))]},
        "mcp_servers[0].tool_timeout",
    ),
    "an MCP variable that is none": (
        {"mcp_servers": [Server(name="x", stdio=options_pb2.StdioTransport(command="python3", env={"A B": "c"}))]},
        "mcp_servers[0].stdio.env",
    ),
    "more than 8 MiB": ({"input": [Part(text="x" * (3 << 20))] * 3}, "input"),
}
"""Fields of a StartTurn that are wrong, and the field that its refusal names. Workspace ``demo`` has two traps."""


def lay_traps(workspace: Path) -> None:
    """Put a file that is no image into a workspace, and a link that leads out of it."""
    (workspace / "text.png").write_text("not an image")
    (workspace / "link").symlink_to("/etc/passwd")


def violations(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the fields that a refusal names."""
    bad_request = error_details_pb2.BadRequest()
    unpack(error, bad_request)
    return [violation.field for violation in bad_request.field_violations]


def unpack(error: grpc.aio.AioRpcError, message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> None:
    """Fill a message from the details of a refusal."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status
    assert any(detail.Unpack(message) for detail in status.details)
