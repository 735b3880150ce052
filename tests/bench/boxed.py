"""A vendor's CLI started in a box of ours and driven by the bare SDK: the rival of cold turns.

``python -m tests.bench.boxed PROVIDER LAUNCHER WORKSPACE HOME``, under the UID of the provider's service: its launcher
answers nobody else. For each line that it reads it starts a CLI, has it take a prompt, and writes how many ms that took
until it said something. No model is within reach: the first event does not need one.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from alive_kit.launch import Box, Launch
from alive_kit.workspaces import Workspace

from .bare import BARE

NOWHERE = "http://127.0.0.1:9"
_FIXED = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


async def answer(provider: str, launcher: str, workspace: str, home: str) -> None:
    """Start a CLI for each line of the standard input."""
    place = Workspace(workspace_id=Path(workspace).name, path=Path(workspace), home=Path(home))
    for _ in sys.stdin:
        began = time.perf_counter()
        launch = Launch(Path("/"), _FIXED, place, Box(launcher=Path(launcher), read_only=False))
        async with BARE[provider](NOWHERE, "none", place.home, launch) as bare:
            await bare.first("go")
            sys.stdout.write(f"{(time.perf_counter() - began) * 1e3}\n")
            sys.stdout.flush()
        await launch.end()


@contextlib.asynccontextmanager
async def boxed(provider: str, uid: int, state: Path, workspace: str) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """Yield what starts a CLI in a box of a workspace, and returns after how many ms it said something."""
    as_service = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--groups=43100", "--pdeathsig=KILL", "--")
    places = (
        state / f"run/{provider}-launcher/launcher.sock",
        state / f"workspaces/{workspace}",
        state / f"homes/{provider}/{workspace}",
    )
    words = (sys.executable, "-m", __spec__.name, provider, *map(str, places))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*as_service, *words, stdin=pipe, stdout=pipe)

    async def start() -> float:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"\n")
        return float(await process.stdout.readline() or b"nan")

    try:
        yield start
    finally:
        process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(answer(*sys.argv[1:]))
