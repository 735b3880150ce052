"""The one place where a vendor CLI is started.

Vendor SDKs start their CLI themselves and merge their own process's environment into it. So they are given
`alive-launch` as the CLI: a short program that dies with the service. Where there is a launcher, it asks that for a
box and hands its standard streams over; the box ends with it. Where there is none, it becomes the CLI itself, with
exactly the environment declared here; then everything that the CLI starts carries a marker variable, by which it is
found and ended afterwards.
"""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alive_kit.workspaces import Workspace

logger = logging.getLogger(__name__)

MARKER = "ALIVE_AGENT"
"""Variable that every process of an agent carries."""

_PR_SET_CHILD_SUBREAPER = 36
_END_SECONDS = 5.0
_LOOKS_IN_DOUBT = 40
"""How often to look again for processes that might be the agent's: some never had a variable."""
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """The box that a launcher builds around an agent."""

    launcher: Path
    """The launcher's unix socket."""
    read_only: bool
    """Whether the agent may not write in its workspace either."""


class Launch:
    """How one vendor CLI is started, and how everything it left behind is ended."""

    def __init__(
        self,
        program: Path,
        environment: Mapping[str, str],
        workspace: Workspace | None = None,
        box: Box | None = None,
    ) -> None:
        self.agent_id = uuid.uuid4().hex
        self._program = program
        self.environment = {**environment, **self.marker}
        """What the CLI sees."""
        self._box = box
        self._workspace = workspace
        self._files: dict[Path, int] = {}
        self._created = time.clock_gettime(time.CLOCK_BOOTTIME)

    @property
    def executable(self) -> Path:
        """The program to give to the vendor SDK as its CLI; it takes the CLI's own arguments."""
        return Path(sys.prefix) / "bin" / "alive-launch"

    @property
    def marker(self) -> dict[str, str]:
        """The marker, for vendors that start tools with an environment of their own."""
        return {MARKER: self.agent_id}

    @property
    def cwd(self) -> str | None:
        """Where the executable must be started; a box begins in its workspace by itself."""
        return str(self._workspace.path) if self._workspace and not self._box else None

    def configure(self, path: Path, text: str) -> None:
        """Have the CLI find a file that is the same for every start; without a box it stays in the shared home."""
        if self._box:
            self.hand_over(path, text)
        elif not path.exists() or path.read_text() != text:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fresh = path.with_name(f"{path.name}.{self.agent_id}")
            fresh.write_text(text)
            fresh.replace(path)

    def hand_over(self, path: Path, text: str) -> str:
        """Have the CLI find a private file of its own at a path below its home, and return the path.

        In a box it is never on a disk.
        """
        if self._box:
            self._files[path] = descriptor = os.memfd_create("alive")
        else:
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._files[path] = -1
        with open(descriptor, "w", encoding="utf-8", closefd=not self._box) as file:
            file.write(text)
        return str(path)

    def take_back(self) -> None:
        """Delete what was handed over, once the CLI has read it."""
        for path, descriptor in self._files.items():
            if descriptor >= 0:
                os.close(descriptor)
            else:
                path.unlink(missing_ok=True)
        self._files.clear()

    def variables(self) -> dict[str, str]:
        """Return the variables to give to the vendor SDK for its CLI, once everything is handed over."""
        common = {**self.marker, "ALIVE_LAUNCH_PARENT": str(os.getpid())}
        if self._box is None or self._workspace is None:
            kept = {"ALIVE_LAUNCH_PROGRAM": str(self._program), "ALIVE_LAUNCH_KEEP": ",".join(self.environment)}
            return {**self.environment, **common, **kept}
        request = {
            "start": self.agent_id,
            "workspace": self._workspace.workspace_id,
            "environment": self.environment,
            "files": [str(path.relative_to(self._workspace.home)) for path in self._files],
            "read_only": self._box.read_only,
        }
        descriptors = [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in self._files.values()]
        return {
            **common,
            "ALIVE_LAUNCH_LAUNCHER": str(self._box.launcher),
            "ALIVE_LAUNCH_REQUEST": json.dumps(request),
            "ALIVE_LAUNCH_FILES": ",".join(descriptors),
        }

    async def mark(self) -> None:
        """Take note of what runs in the box before a turn: the CLI, its bridge and its MCP servers may outlive it."""
        await self._tell("mark")

    async def sweep(self) -> bool:
        """End all else that runs in the box; return whether exactly what was noted is left. Never so without a box."""
        if self._box is None:
            return False
        try:
            async with asyncio.timeout(_END_SECONDS):
                answer = await ask(self._box.launcher, {"sweep": self.agent_id})
        except (OSError, ValueError):
            return False
        return answer.get("swept") is True

    async def end(self) -> None:
        """Kill every process of the agent; return when none is left."""
        self.take_back()
        looks_in_doubt = 0
        async with asyncio.timeout(_END_SECONDS):
            while looks_in_doubt < _LOOKS_IN_DOUBT:
                processes = list(marked(self.agent_id))
                kill(processes)
                if not processes and (self._box or not any(in_exec(since=self._created))):
                    break
                looks_in_doubt += not processes
                await asyncio.sleep(0.005)  # Nothing tells when a process that is not our child is gone.
            await self._tell("end")

    async def _tell(self, word: str) -> None:
        """Tell the launcher something about the box. Where it is gone so are its boxes, whatever ended it."""
        if self._box:
            try:
                await ask(self._box.launcher, {word: self.agent_id})
            except (OSError, ValueError) as error:
                logger.warning("the launcher %s does not answer: %s", self._box.launcher, error)


async def ask(launcher: Path, request: Mapping[str, object]) -> Mapping[str, Any]:
    """Ask a launcher and return its answer.

    Raises:
        OSError: nobody answers.
    """
    reader, writer = await asyncio.open_unix_connection(launcher)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        answer: Mapping[str, Any] = json.loads(await reader.readline() or "{}")
        return answer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


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
