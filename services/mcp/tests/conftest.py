"""A workspace, the product's stand-in behind the tools, and whom they tell and ask."""

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import CallToolResult

from alive_kit.testing.product import Product
from alive_kit.testing.product_sites import Sites
from alive_mcp.context import Context, read_context

SECRET, SESSION, SITE = "canary-internal-secret", "session=canary-of-ada", "site.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A workspace, and the product that knows it."""

    product: Product
    workspace: Path
    environment: Mapping[str, str]
    """What a server of the tools is given."""

    def context(self, **more: str) -> Context:
        """Return the context that the environment describes, with more variables."""
        return read_context({**self.environment, **more})

    def file(self, name: str, content: str = "") -> Path:
        """Make a file in the workspace."""
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path


@dataclass(slots=True, kw_only=True)
class Caller:
    """Whom a plain function tells and asks: answers what it was made with, and remembers what it was asked."""

    answers: Mapping[str, Any] | None = None
    can_ask: bool = False
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    async def ask(self, message: str, properties: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Answer."""
        self.asked.append((message, properties))
        return self.answers

    @contextlib.asynccontextmanager
    async def working(self, what: str) -> AsyncIterator[None]:
        """Remember what is done."""
        self.told.append(what)
        yield


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Return a world of the test's own."""
    root = tmp_path / "workspaces"
    (root / SITE).mkdir(parents=True)
    product = Product(secret=SECRET, session=SESSION, sites=Sites(root=root))
    async with product.serving() as url:
        environment = {
            "ALIVE_WORKSPACE_ID": SITE,
            "ALIVE_WORKSPACE_PATH": str(root / SITE),
            "ALIVE_USER_ID": "ada",
            "ALIVE_CONNECTED_PROVIDERS": "github",
            "ALIVE_API_URL": url,
            "ALIVE_SESSION_COOKIE": SESSION,
            "ALIVE_INTERNAL_SECRET": SECRET,
        }
        yield World(product=product, workspace=root / SITE, environment=environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that runs, and a client of it."""

    session: ClientSession

    async def call(self, tool: str, arguments: Mapping[str, Any], **more: Any) -> CallToolResult:
        """Call a tool."""
        return await self.session.call_tool(tool, dict(arguments), **more)

    async def refused(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool that must fail, and return what it says."""
        result = await self.call(tool, arguments)
        assert result.is_error, result
        return text(result)


def parameters(name: str, environment: Mapping[str, str]) -> StdioServerParameters:
    """Return how a server's program is started, as an agent would."""
    program = Path(sys.prefix) / "bin" / f"alive-mcp-{name}"
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", **environment}
    return StdioServerParameters(command=str(program), env=variables, cwd=environment["ALIVE_WORKSPACE_PATH"])


@contextlib.asynccontextmanager
async def serving(
    name: str, environment: Mapping[str, str], *, log: Path | None = None, **callbacks: Callable[..., Any]
) -> AsyncIterator[Served]:
    """Run a server's program until the block ends."""
    with (log or Path("/dev/null")).open("w") as errors:
        async with (
            stdio_client(parameters(name, environment), errlog=errors) as (incoming, outgoing),
            ClientSession(incoming, outgoing, **callbacks) as session,
        ):
            await session.initialize()
            yield Served(session=session)


def text(result: CallToolResult) -> str:
    """Return what a tool says."""
    return "\n".join(part.text for part in result.content if part.type == "text")


@contextlib.asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Answer requests of HTTP until the block ends, and return the URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
