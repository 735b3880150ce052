"""The one place where a vendor CLI is started.

Vendor SDKs start their CLI themselves and merge their own process's environment into it. So they are given
`alive-launch` as the CLI: a short program that becomes the real one with exactly the environment declared here and
dies with the service. Everything a CLI starts carries a marker variable, by which it is found and ended afterwards.
The sandbox takes its place here: what an agent may see is decided by `Launch` and `alive-launch`, nowhere else.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MARKER = "ALIVE_AGENT"
"""Variable that every process of an agent carries."""

_PR_SET_CHILD_SUBREAPER = 36
_END_SECONDS = 5.0
_LOOKS_IN_DOUBT = 40
"""How often to look again for processes that might be the agent's: some never had a variable."""
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one vendor CLI is started, and how everything it left behind is ended."""

    program: Path
    """The vendor's CLI."""
    environment: Mapping[str, str]
    """All that the CLI sees. Nothing is inherited."""
    agent_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: float = field(default_factory=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))

    @property
    def executable(self) -> Path:
        """The program to give to the vendor SDK as its CLI; it takes the CLI's own arguments."""
        return Path(sys.prefix) / "bin" / "alive-launch"

    @property
    def marker(self) -> dict[str, str]:
        """The marker, for vendors that start tools with an environment of their own."""
        return {MARKER: self.agent_id}

    def variables(self) -> dict[str, str]:
        """Return the variables to give to the vendor SDK for its CLI."""
        seen = {**self.environment, **self.marker}
        return {
            **seen,
            "ALIVE_LAUNCH_PROGRAM": str(self.program),
            "ALIVE_LAUNCH_KEEP": ",".join(seen),
            "ALIVE_LAUNCH_PARENT": str(os.getpid()),
        }

    async def end(self) -> None:
        """Kill every process of the agent; return when none is left."""
        looks_in_doubt = 0
        async with asyncio.timeout(_END_SECONDS):
            while looks_in_doubt < _LOOKS_IN_DOUBT:
                processes = list(marked(self.agent_id))
                kill(processes)
                if not processes and not any(in_exec(since=self.created)):
                    return
                looks_in_doubt += not processes
                await asyncio.sleep(0.005)  # Nothing tells when a process that is not our child is gone.


def adopt_orphans() -> None:
    """Make this process the parent of processes whose own parent died, so that they can be found and reaped."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def marked(agent_id: str) -> Iterator[int]:
    """Yield the processes of an agent that run."""
    wanted = f"{MARKER}={agent_id}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def in_exec(*, since: float) -> Iterator[bool]:
    """Yield a True for each process, started since some time after boot, that may be in the middle of an exec.

    It has lost its old variables then and does not show the new ones yet: it may be anybody's.
    """
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                started = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[19]) / _CLOCK_TICKS
                if started + 1.0 >= since and not (entry / "environ").read_bytes():
                    # Threads of the kernel and processes that have ended have no program.
                    yield bool((entry / "exe").readlink())


def kill(processes: list[int]) -> None:
    """Kill processes and reap those that are children of this one."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
