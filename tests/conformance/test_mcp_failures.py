"""What becomes of a turn whose MCP server fails, at its start or in a call: the same on every provider."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import error_pb2, event_pb2, item_pb2, options_pb2, provider_pb2
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import CallTool, Reply

from .conftest import Subject, items, notices, said

BOUND = 15

_STARTS = {
    "missing": ("no-such-command", []),
    "dies": ("sh", ["-c", "exit 3"]),
    "silent": ("sleep", ["60"]),
}
"""How a server does not start: nobody knows it, it ends at once, or it never says a word."""

_SERVER = '''
import os
import time
from mcp.server import MCPServer

server = MCPServer("failing")

@server.tool()
def crash() -> str:
    """End in the middle."""
    os._exit(1)

@server.tool()
def hang() -> str:
    """Take longer than anybody waits."""
    time.sleep(60)
    return "at last"

time.sleep(float(os.environ.get("SLOW", "0")))
server.run("stdio")
'''


_ANSWERS = ("down", "unauthorized", "mute")
"""How a server that is reached over HTTP is not there: nobody listens, it wants to know who asks, it says nothing."""


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    """Return where servers are that do not help."""

    async def unauthorized(_request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"www-authenticate": "Bearer"})

    async def mute(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_route("*", "/unauthorized", unauthorized)
    app.router.add_route("*", "/mute", mute)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "http://{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


def broken(subject: Subject, how: str, url: str, *, required: bool) -> options_pb2.McpServer:
    """Return a server that does not start, or is not there."""
    server = options_pb2.McpServer(name="broken", required=required, startup_timeout=Duration(seconds=1))
    if how in _STARTS:
        command, args = _STARTS[how]
        server.stdio.CopyFrom(options_pb2.StdioTransport(command=command, args=args))
        return server
    if subject.capability("mcp_servers.http").support == provider_pb2.CAPABILITY_SUPPORT_UNSUPPORTED:
        pytest.skip("agents have no network")
    server.http.url = "http://127.0.0.1:9/mcp" if how == "down" else f"{url}/{how}"
    return server


def failing(subject: Subject, *, slow: str = "0", **fields: object) -> options_pb2.McpServer:
    """Return a server that starts, and whose tools fail."""
    path = subject.directory / "bin/failing_server.py"
    path.write_text(_SERVER)
    stdio = options_pb2.StdioTransport(command="notes-python", args=[str(path)], env={"SLOW": slow})
    return options_pb2.McpServer(name="failing", stdio=stdio, **fields)


@requirement("mcp:optional")
@pytest.mark.parametrize("how", [*_STARTS, *_ANSWERS])
async def test_an_optional_server_that_fails_is_a_state_and_a_notice(subject: Subject, how: str, url: str) -> None:
    """Within its time to start, and the turn goes on without its tools."""
    prompt = subject.script(f"optional-{how}", Reply(text="Fine."))
    async with asyncio.timeout(BOUND):
        events = await subject.caller.run(prompt, mcp_servers=[broken(subject, how, url, required=False)])
    started = next(event.turn_started for event in events if event.HasField("turn_started"))

    assert [state.status for state in started.mcp_servers] == [event_pb2.MCP_SERVER_STATUS_FAILED]
    assert notices(events).count("mcp_server_failed") == 1
    assert said(events) == "Fine."


@requirement("mcp:required")
@pytest.mark.parametrize("how", [*_STARTS, *_ANSWERS])
async def test_a_required_server_that_fails_fails_the_turn(subject: Subject, how: str, url: str) -> None:
    """Within its time to start; the model is never asked."""
    prompt = subject.script(f"required-{how}", Reply(text="Never."))
    async with asyncio.timeout(BOUND):
        events = await subject.caller.run(prompt, mcp_servers=[broken(subject, how, url, required=True)])

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_MCP
    assert subject.bodies(f"required-{how}") == []


@requirement("mcp:failing")
@pytest.mark.parametrize("tool", ["crash", "hang"])
async def test_a_call_that_fails_is_a_failed_item_and_the_turn_goes_on(subject: Subject, tool: str) -> None:
    """The server ends in the middle of a call, or takes longer than the call may."""
    prompt = subject.script(tool, Reply(actions=[CallTool(server="failing", tool=tool)]), Reply(text="On I go."))
    server = failing(subject, required=True, startup_timeout=Duration(seconds=20), tool_timeout=Duration(seconds=1))
    async with asyncio.timeout(BOUND + 20):
        events = await subject.caller.run(prompt, mcp_servers=[server])
    (item,) = items(events, "tool_call")

    assert item.status == item_pb2.ITEM_STATUS_FAILED
    assert item.tool_call.error
    assert said(events) == "On I go."


@requirement("mcp:slow")
async def test_a_server_that_starts_slowly_is_waited_for(subject: Subject) -> None:
    """As long as it says it needs: its tools are there from the first request on."""
    prompt = subject.script("slow", Reply(text="Here."))
    server = failing(subject, slow="2", startup_timeout=Duration(seconds=20))
    events = await subject.caller.run(prompt, mcp_servers=[server])
    started = next(event.turn_started for event in events if event.HasField("turn_started"))

    assert [state.status for state in started.mcp_servers] == [event_pb2.MCP_SERVER_STATUS_READY]
    assert "hang" in subject.sent("slow")
