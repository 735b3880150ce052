"""A policy with nothing to decide, which says yes to Envoy: ``python -m tests.bench.constant_authz LISTEN``."""

import asyncio
import sys

from aiohttp import web

from .processes import until_ended


async def serve(listen: str) -> None:
    """Answer until the process is told to end."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(headers={"x-alive-cluster": "provider-bench"})

    app = web.Application(client_max_size=16 << 20)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, listen).start()
    await until_ended()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
