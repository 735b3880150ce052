"""MCP servers: real ones, started by the real CLIs."""

import json

from alive.agent.v1 import error_pb2, event_pb2, item_pb2, options_pb2
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import CallTool, Reply

from .conftest import Subject, items, notices

_SERVER = '''
import os
import time
from mcp.server import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("notes")

@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b

@server.tool()
def environment() -> str:
    """Tell what this process sees."""
    return "\\n".join(f"{name}={value}" for name, value in os.environ.items())

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def peek() -> str:
    """Tell what is there."""
    return "nothing"

@server.tool()
def wait() -> str:
    """Take a long time."""
    time.sleep(300)
    return "at last"

server.run("stdio")
'''

_ASKING_SERVER = """
import json
import sys

TOOL = {"name": "greet", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ANSWERS = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "asking", "version": "1"},
    },
    "tools/list": {"tools": [TOOL]},
}

def say(**said):
    print(json.dumps({"jsonrpc": "2.0", **said}), flush=True)

called = None
for line in sys.stdin:
    heard = json.loads(line)
    method = heard.get("method")
    if method == "tools/call":
        called = heard["id"]
        say(id="asked", method="elicitation/create", params={"message": "Who are you?", "requestedSchema": SCHEMA})
    elif heard.get("id") == "asked":
        say(id=called, result={"content": [{"type": "text", "text": json.dumps(heard["result"])}]})
    elif method in ANSWERS:
        say(id=heard["id"], result=ANSWERS[method])
    elif "id" in heard:
        say(id=heard["id"], error={"code": -32601, "message": "no such method"})
"""


def asking(subject: Subject) -> options_pb2.McpServer:
    """Return a server whose one tool, that only reads, asks the user for a name."""
    return _server(subject, "asking", _ASKING_SERVER)


def _server(subject: Subject, name: str, text: str, **fields: object) -> options_pb2.McpServer:
    path = subject.directory / "bin" / f"{name}_server.py"
    path.write_text(text)
    stdio = options_pb2.StdioTransport(command="notes-python", args=[str(path)], env={"DECLARED": "yes"})
    return options_pb2.McpServer(name=name, stdio=stdio, **fields)


def notes(subject: Subject, **fields: object) -> options_pb2.McpServer:
    """Return a server with tools: one says that it only reads, one takes a long time."""
    return _server(subject, "notes", _SERVER, **fields)


@requirement("item:tool-call")
async def test_a_tool_of_an_mcp_server_is_called(subject: Subject) -> None:
    """The server is ready in TurnStarted, and its result is in the item."""
    call = Reply(actions=[CallTool(server="notes", tool="add", arguments={"a": 1, "b": 41})])
    prompt = subject.script("mcp", call, Reply(text="Added."))
    events = await subject.caller.run(prompt, mcp_servers=[notes(subject)])
    (item,) = items(events, "tool_call")
    started = next(event.turn_started for event in events if event.HasField("turn_started"))

    assert [(state.name, state.status) for state in started.mcp_servers] == [
        ("notes", event_pb2.MCP_SERVER_STATUS_READY)
    ]
    assert (item.tool_call.server, item.tool_call.tool) == ("notes", "add")
    assert json.loads(item.tool_call.arguments_json) == {"a": 1, "b": 41}
    assert "42" in "".join(part.text for part in item.tool_call.result)
    assert item.status == item_pb2.ITEM_STATUS_COMPLETED


@requirement("mcp:environment")
async def test_an_mcp_server_sees_what_is_declared(subject: Subject) -> None:
    """Nothing of the service's, and no key."""
    prompt = subject.script(
        "mcp-env", Reply(actions=[CallTool(server="notes", tool="environment")]), Reply(text="Seen.")
    )
    (item,) = items(await subject.caller.run(prompt, mcp_servers=[notes(subject)]), "tool_call")
    seen = "".join(part.text for part in item.tool_call.result)

    assert "DECLARED=yes" in seen
    assert "canary" not in seen
    assert "API_KEY" not in seen


@requirement("mcp:optional")
async def test_an_optional_server_that_does_not_start_is_a_notice(subject: Subject) -> None:
    """Its command does not exist."""
    broken = options_pb2.McpServer(name="broken", stdio=options_pb2.StdioTransport(command="no-such-command"))
    events = await subject.caller.run(subject.script("optional", Reply(text="Fine.")), mcp_servers=[broken])
    started = next(event.turn_started for event in events if event.HasField("turn_started"))

    assert [state.status for state in started.mcp_servers] == [event_pb2.MCP_SERVER_STATUS_FAILED]
    assert notices(events).count("mcp_server_failed") == 1
    assert events[-1].HasField("turn_completed")


@requirement("mcp:required")
async def test_a_required_server_that_does_not_start_fails_the_turn(subject: Subject) -> None:
    """The model is never asked."""
    stdio = options_pb2.StdioTransport(command="no-such-command")
    broken = options_pb2.McpServer(name="broken", stdio=stdio, required=True)
    events = await subject.caller.run(subject.script("required", Reply(text="Never.")), mcp_servers=[broken])

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_MCP
    assert subject.bodies("required") == []


@requirement("mcp:denied")
async def test_a_denied_tool_cannot_be_called(subject: Subject) -> None:
    """The model calls it all the same."""
    server = notes(subject, tools=options_pb2.ToolRules(denied=["environment"]))
    prompt = subject.script("denied", Reply(actions=[CallTool(server="notes", tool="environment")]), Reply(text="No."))
    events = await subject.caller.run(prompt, mcp_servers=[server])

    assert not any("DECLARED" in part.text for item in items(events, "tool_call") for part in item.tool_call.result)
    assert "DECLARED" not in subject.sent("denied")
