"""An MCP server over HTTP that lets in whoever shows its bearer: ``notes_server.py PORT BEARER``."""

import sys

import uvicorn
from mcp.server import MCPServer
from starlette.types import Receive, Scope, Send

server = MCPServer("notes")


@server.tool()
def recall() -> str:
    """Tell what was noted."""
    return "Buy milk."


_inner = server.streamable_http_app()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 401 unless the bearer is shown."""
    shown = dict(scope.get("headers", ())).get(b"authorization")
    if scope["type"] == "http" and shown != f"Bearer {sys.argv[2]}".encode():
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body"})
        return
    await _inner(scope, receive, send)


uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
