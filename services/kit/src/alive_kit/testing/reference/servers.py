"""The MCP servers of a turn, through the ``mcp`` client library."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx2
from mcp import ClientSession, StdioServerParameters
from mcp.client.session import ElicitationFnT
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult

from alive_kit.testing.reference.tools import exists
from alive_kit.testing.reference.wire import Json


class Servers:
    """The MCP servers of a turn, each held open by a task of its own."""

    def __init__(self, ask: Callable[..., Awaitable[Json]], rules: Json) -> None:
        self._ask = ask
        self._rules = rules
        self._declared: dict[str, Json] = {}
        self._sessions: dict[str, ClientSession] = {}
        self._read_only: dict[tuple[str, str], bool] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, declared: list[Json]) -> list[Json]:
        """Start all at once, and return how each is."""
        self._declared = {server["name"]: server for server in declared}
        return list(await asyncio.gather(*map(self._start, declared)))

    def names(self) -> Iterator[str]:
        """Yield the names of the tools that there are: those of servers that have started, as far as rules let them."""
        return (_full_name(*tool) for tool in self._read_only)

    def has(self, server: str, tool: str) -> bool:
        """Whether there is a tool."""
        return (server, tool) in self._read_only

    def is_read_only(self, server: str, tool: str) -> bool:
        """Whether a tool says of itself that it only reads."""
        return self._read_only[server, tool]

    async def call(self, server: str, tool: str, arguments: Json) -> Json:
        """Call a tool and return what becomes of its item."""
        try:
            seconds = self._declared[server]["tool_seconds"]
            result = await self._sessions[server].call_tool(tool, arguments, seconds)
        except Exception as error:  # noqa: BLE001  # Whatever a server does, the turn goes on.
            return {"error": f"the call failed: {error}"}
        parts = [_part(part.model_dump(by_alias=True, mode="json")) for part in result.content]
        return {"error": "\n".join(part.get("text", "") for part in parts)} if result.is_error else {"result": parts}

    async def stop(self) -> None:
        """End every server."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self, server: Json) -> Json:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._hold(server, ready))
        self._tasks.append(task)
        await asyncio.wait([ready, task], timeout=server["startup_seconds"], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            return {"name": server["name"], "status": "MCP_SERVER_STATUS_READY"}
        task.cancel()
        return {"name": server["name"], "status": "MCP_SERVER_STATUS_FAILED", "error": "it did not start"}

    async def _hold(self, server: Json, ready: "asyncio.Future[None]") -> None:
        async with _transport(server) as (read, write):
            session = ClientSession(read, write, elicitation_callback=self._elicit(server["name"]))
            async with session:
                await session.initialize()
                for tool in (await session.list_tools()).tools:
                    if self._exists(server, tool.name):
                        is_read_only = bool(tool.annotations and tool.annotations.read_only_hint)
                        self._read_only[server["name"], tool.name] = is_read_only
                self._sessions[server["name"]] = session
                ready.set_result(None)
                await asyncio.Event().wait()

    def _exists(self, server: Json, tool: str) -> bool:
        return exists(tool, **server["rules"]) and exists(_full_name(server["name"], tool), **self._rules)

    def _elicit(self, server: str) -> ElicitationFnT:
        async def elicit(context: object, params: Any) -> ElicitResult:
            asked = params.model_dump(by_alias=True, mode="json")
            schema = json.dumps(asked.get("requestedSchema") or {})
            decision = await self._ask(server=server, message=asked["message"], schema_json=schema)
            if decision["kind"] != "DECISION_KIND_ANSWER":
                return ElicitResult(action="decline")
            return ElicitResult(action="accept", content=json.loads(decision.get("content_json") or "{}"))

        return elicit


@contextlib.asynccontextmanager
async def _transport(server: Json) -> AsyncIterator[Any]:
    if "url" in server:
        async with (
            httpx2.AsyncClient(headers=server["headers"]) as client,
            streamable_http_client(server["url"], http_client=client) as streams,
        ):
            yield streams
    else:
        program = {name: server[name] for name in ("command", "args", "env")}
        async with stdio_client(StdioServerParameters.model_validate(program)) as streams:
            yield streams


def _full_name(server: str, tool: str) -> str:
    return f"mcp__{server}__{tool}"


def _part(part: Json) -> Json:
    if part["type"] == "image":
        return {"image": {"mime_type": part["mimeType"], "data": part["data"]}}
    return {"text": part["text"]} if part["type"] == "text" else {"text": json.dumps(part)}
