"""Starts the processes that are measured, and reads what they cost."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_START_SECONDS = 20.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """A process under measurement."""

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        self._running = running

    @property
    def processes(self) -> list[int]:
        """It and its children."""
        children = Path(f"/proc/{self._running.pid}/task/{self._running.pid}/children").read_text().split()
        return [self._running.pid, *map(int, children)]

    @property
    def cpu(self) -> float:
        """Seconds of CPU its threads have used."""
        used = 0
        for process in self.processes:
            for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    used += int(path.read_text().split()[0])
        return used / 1e9

    @property
    def memory(self) -> float:
        """Megabytes it keeps in memory; a child that ended since it was listed keeps none."""
        said = [read(process, "statm").split() for process in self.processes]
        return sum(int(words[1]) for words in said if words) * _PAGE / 1e6

    def kill(self) -> None:
        """Kill it."""
        self._running.kill()


class Together(Process):
    """Several processes that do one thing."""

    def __init__(self, parts: Iterable[Process]) -> None:
        self._parts = list(parts)

    @property
    def processes(self) -> list[int]:
        """They and their children."""
        return [process for part in self._parts for process in part.processes]


@contextlib.asynccontextmanager
async def python(module: str, *words: str, socket: Path, **variables: str) -> AsyncIterator[Process]:
    """Run a module until the block ends, once it listens on a socket."""
    async with program(sys.executable, "-m", module, *words, socket=socket, variables=variables) as process:
        yield process


@contextlib.asynccontextmanager
async def program(*words: str, socket: Path, variables: Mapping[str, str] = {}) -> AsyncIterator[Process]:
    """Run a program until the block ends, once it listens on a socket.

    Raises:
        OSError: it cannot be started, or ends or waits instead of listening.
    """
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}
    log = socket.with_suffix(".log").open("wb")
    mortal = ("setpriv", "--pdeathsig", "KILL", "--", *words)  # However the bench ends, nothing of it goes on.
    running = await asyncio.create_subprocess_exec(*mortal, env=environment, cwd=CHECKOUT, stdout=log, stderr=log)
    try:
        await _listening(running, socket)
        yield Process(running)
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await running.wait()
        if running.returncode is None:
            running.kill()
            await running.wait()
        log.close()


async def _listening(running: asyncio.subprocess.Process, socket: Path) -> None:
    for _ in range(round(_START_SECONDS / 0.05)):
        if running.returncode is not None:
            break
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(socket)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise OSError(f"{socket.stem} does not listen: {socket.with_suffix('.log').read_text()[-300:]}")


async def until_ended() -> None:
    """Return when the process is told to end."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


def family(process: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in processes():
        if said := read(entry, "stat").rpartition(b")")[2].split():
            children.setdefault(int(said[1]), []).append(entry)
    found = [process]
    for parent in found:
        found += children.get(parent, [])
    return found


def processes() -> Iterable[int]:
    """Return every process of the host."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def read(process: int, name: str) -> bytes:
    """Return what the kernel says of a process; nothing when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/{name}").read_bytes()
    return b""
