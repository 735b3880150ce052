"""What it costs that Alive's tools are programs: a start and a call, against the same server in this process."""

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from mcp import Client
from mcp.client.stdio import StdioServerParameters

from alive_mcp.context import read_context
from alive_mcp.serving import server
from alive_mcp.tools.server import TOOLS

from .row import Row

_CALL = ("get_workflow", {"workflow_type": "new-feature"})
_IN_PROCESS = "the same server in the process"


async def measure(*, short: bool) -> list[Row]:
    """Return what starting the tools and calling one costs."""
    starts, calls = (2, 20) if short else (7, 200)
    with tempfile.TemporaryDirectory(prefix="alive-") as directory:
        environment = {
            "ALIVE_WORKSPACE_ID": "demo",
            "ALIVE_WORKSPACE_PATH": directory,
            "ALIVE_USER_ID": "ada",
            "ALIVE_CONNECTED_PROVIDERS": "",
            "ALIVE_API_URL": "http://127.0.0.1:9",
            "ALIVE_API_TOKEN": "none",
            "PATH": "/usr/bin:/bin",
        }
        program = StdioServerParameters(command=str(Path(sys.prefix) / "bin/alive-mcp-tools"), env=environment)
        context = read_context(environment)

        def inside() -> Client:
            return Client(server("alive-tools", "", TOOLS, context))

        def outside() -> Client:
            return Client(program)

        return [
            await _compared("start of alive-tools until its tools are listed", starts, _start(outside), _start(inside)),
            await _compared_calls("one call of a tool", calls, outside, inside),
        ]


def _start(client: Callable[[], Client]) -> Callable[[], Awaitable[object]]:
    async def start() -> None:
        async with client() as started:
            await started.list_tools()

    return start


async def _compared_calls(name: str, rounds: int, ours: Callable[[], Client], rival: Callable[[], Client]) -> Row:
    async with _called(ours) as call, _called(rival) as rival_call:
        return await _compared(name, rounds, call, rival_call)


@contextlib.asynccontextmanager
async def _called(client: Callable[[], Client]) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Open a client, and return what calls the tool once; the first call is not counted."""
    async with client() as opened:

        async def call() -> None:
            result = await opened.call_tool(*_CALL)
            assert not result.is_error

        await call()
        yield call


async def _compared(
    name: str, rounds: int, ours: Callable[[], Awaitable[object]], rival: Callable[[], Awaitable[object]]
) -> Row:
    """Return medians of interleaved rounds, in seconds."""
    pairs = [(await _seconds(ours), await _seconds(rival)) for _ in range(rounds)]
    ratios = [one / other for one, other in pairs]
    return Row(
        name=name,
        ours=statistics.median(one for one, _ in pairs),
        rival=statistics.median(other for _, other in pairs),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        rival_name=_IN_PROCESS,
    )


async def _seconds(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began
