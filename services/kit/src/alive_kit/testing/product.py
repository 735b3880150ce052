"""A stand-in for the product's API, which its tools call back: it believes the gateway and nobody else.

What it is asked for it does, in the workspaces below a directory: it deletes files, clears caches, makes websites. Run
it beside a stack with ``python -m alive_kit.testing.product``, and set ``ALIVE_PRODUCT_URL``.
"""

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import web

from alive_kit.testing.product_sites import Refusal, Sites

Body: TypeAlias = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Call:
    """A call that was let in."""

    path: str
    headers: dict[str, str]
    body: str


@dataclass(slots=True, kw_only=True)
class Product:
    """A product's API on a port of loopback. Who has not its secret gets 401, who has no session 403."""

    secret: str
    session: str
    """The Cookie header of its one user."""
    sites: Sites = field(default_factory=Sites)
    calls: list[Call] = field(default_factory=list)
    faults: dict[str, Callable[[], Awaitable[web.Response]]] = field(default_factory=dict)
    """What happens instead of an answer, by path."""

    @contextlib.asynccontextmanager
    async def serving(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve until the block ends, and return the URL."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        try:
            yield f"http://{host}:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("x-internal-tools-secret") != self.secret:
            raise web.HTTPUnauthorized
        if headers.get("cookie") != self.session:
            raise web.HTTPForbidden
        self.calls.append(Call(path=request.path, headers=headers, body=await request.text()))
        if fault := self.faults.get(request.path):
            return await fault()
        try:
            return web.json_response(self._do(request, headers.get("x-alive-workspace-id", "")))
        except Refusal as refusal:
            return web.json_response({"error": str(refusal)}, status=refusal.status)

    def _do(self, request: web.Request, workspace: str) -> Mapping[str, object]:
        """Do what is asked, in the workspace that the gateway says."""
        body = _body(self.calls[-1].body)
        match request.method, request.path:
            case "POST", "/api/restart-workspace":
                return self.sites.restart(workspace)
            case "POST", "/api/files/delete":
                return self.sites.delete(workspace, str(body.get("path", "")), recursive=body.get("recursive") is True)
            case "POST", "/api/internal-tools/read-logs":
                return self.sites.read_logs(workspace, body)
            case "POST", "/api/internal-tools/switch-serve-mode":
                return self.sites.switch(workspace, str(body.get("mode")), build_first=body.get("buildFirst") is True)
            case "POST", "/api/internal-tools/generate-persona":
                return {"persona": _persona(body)}
            case "POST", "/api/deploy-subdomain":
                return self.sites.make(str(body.get("slug", "")), str(body.get("siteIdeas", "")))
            case "GET", "/api/internal-tools/triggering-email":
                return self.sites.email(workspace)
            case "GET", "/api/sites":
                return self.sites.all()
            case "GET", "/api/templates":
                return {"templates": [{"templateId": "tmpl_blank", "name": "Blank", "description": "One empty page"}]}
        raise Refusal(404, f"there is no {request.method} {request.path}")


def _body(text: str) -> Body:
    try:
        body = json.loads(text or "{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "the body is no JSON object")
    return body


def _persona(body: Body) -> str:
    """Return what a model would have written, without one."""
    extra = f" {body['extraThingsToKnow']}" if body.get("extraThingsToKnow") else ""
    return f"Robin, 34, is whom this is for: {body.get('query')}.{extra} (Written {body.get('stylePreferences')}.)"


async def _serve(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.listen.rpartition(":")
    secret = arguments.secret_file.read_text().strip()
    product = Product(secret=secret, session=arguments.session, sites=Sites(root=arguments.workspaces))
    async with product.serving(host, int(port)) as url:
        print(f"a stand-in for the product is on {url}", flush=True)  # noqa: T201
        await asyncio.Event().wait()


def main() -> None:
    """Serve until it is told to stop."""
    parser = argparse.ArgumentParser(description="A stand-in for the product's API.")
    parser.add_argument("--listen", default="127.0.0.1:50080", help="host:port")
    parser.add_argument("--secret-file", type=Path, required=True, help="the secret that the gateway shows")
    parser.add_argument("--session", default="session=demo", help="the Cookie header of its one user")
    parser.add_argument("--workspaces", type=Path, required=True, help="the directory of the workspaces")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
