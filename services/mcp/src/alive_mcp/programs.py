"""Runs programs for tools: words instead of a shell, an environment of its own, an end for all that it started."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from alive_mcp.errors import Refused

_OUTPUT_BYTES = 10 << 20
_PIECE_BYTES = 1 << 16
_END_SECONDS = 2.0
_PASSED_ON = ("PATH", "HOME", "LANG")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What came of a program."""

    code: int
    output: str
    """What it said, errors included; of more than 10 MiB the beginning."""


def found(*names: str) -> str | None:
    """Return the first of some programs that is there."""
    return next(filter(None, map(shutil.which, names)), None)


async def run(
    words: Sequence[str], directory: Path, *, seconds: float, said: bytes = b"", more: Mapping[str, str] | None = None
) -> Finished:
    """Run a program to its end.

    Raises:
        Refused: it cannot be started, or takes longer than its seconds; nothing of it runs any more then.
    """
    given = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=directory,
            env={**given, "TMPDIR": "/tmp", "CI": "1", "NO_COLOR": "1", **(more or {})},  # noqa: S108  # The box's own.
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise Refused(f"{Path(words[0]).name} cannot be started ({error.strerror}).") from None
    try:
        async with asyncio.timeout(seconds):
            output = await _exchange(process, said)
            code = await process.wait()
    except TimeoutError:
        raise Refused(f"{Path(words[0]).name} was ended: it took longer than {seconds:.0f} s.") from None
    finally:
        await _end(process)
    return Finished(code=code, output=output.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what is left of a program, with what it left in the background, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with anyio.CancelScope(shield=True), contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await process.communicate()


async def _exchange(process: asyncio.subprocess.Process, said: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ConnectionError):
        process.stdin.write(said)
        await process.stdin.drain()
    process.stdin.close()
    output = b""
    while piece := await process.stdout.read(_PIECE_BYTES):
        output += piece[: max(_OUTPUT_BYTES - len(output), 0)]
    return output
