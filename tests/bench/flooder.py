"""Reads floods of a provider of the kit, one after the other: ``python -m tests.bench.flooder ADDRESS READY``.

A process of its own: who reads a flood in the same event loop as another turn delays that turn by itself.
"""

import asyncio
import sys

from .ends import Caller
from .processes import until_ended


async def flood(address: str, ready: str) -> None:
    """Read until the process is told to end; listen on a socket meanwhile, to say so."""
    caller = Caller(address)
    reading = asyncio.create_task(caller.read("flood 10000000"))
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), ready)
    await until_ended()
    server.close()
    reading.cancel()
    await caller.close()


if __name__ == "__main__":
    asyncio.run(flood(*sys.argv[1:]))
