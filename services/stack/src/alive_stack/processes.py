"""Starts services and keeps them running, each under its own UID and with exactly the variables it needs."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_RESTART_SECONDS = 1.0
_STOP_SECONDS = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A process to run."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    uid: int
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    """What it may do as root beside being root; nothing for every other UID."""
    log: Path

    def as_uid(self) -> tuple[str, ...]:
        """Return the command that runs it under its UID, with the capabilities it names and no others."""
        groups = ["--groups", ",".join(map(str, self.groups))] if self.groups else ["--clear-groups"]
        identity = ["--reuid", str(self.uid), "--regid", str(self.uid), *groups]
        bounds = ",".join(["-all", *(f"+{capability}" for capability in self.capabilities)])
        nothing_more = ["--no-new-privs", "--bounding-set", bounds, "--inh-caps", "-all", "--pdeathsig", "KILL"]
        return ("setpriv", *identity, *nothing_more, "--", *self.command)


@dataclass(slots=True)
class Supervisor:
    """Runs services, and starts again those that die."""

    is_root: bool
    _running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def start(self, service: Service) -> None:
        """Start a service and keep it running until `stop`."""
        await self._spawn(service)
        self._tasks[service.name] = asyncio.create_task(self._keep(service), name=service.name)

    def pid(self, name: str) -> int:
        """Return the process of a service."""
        return self._running[name].pid

    async def stop(self) -> None:
        """End every service, the last one started first, and wait for each."""
        for name, task in reversed(list(self._tasks.items())):
            task.cancel()
            await asyncio.wait({task})
            await self._end(self._running[name])

    async def _keep(self, service: Service) -> None:
        while True:
            code = await self._running[service.name].wait()
            print(f"{service.name} ended with {code}; starting it again. Its log: {service.log}", flush=True)
            await asyncio.sleep(_RESTART_SECONDS)
            await self._spawn(service)

    async def _spawn(self, service: Service) -> None:
        descriptor = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._running[service.name] = await asyncio.create_subprocess_exec(
                *(service.as_uid() if self.is_root else service.command),
                env=dict(service.environment),
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,  # Ctrl-C is for the supervisor, which ends them in order.
            )
        finally:
            os.close(descriptor)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 5.0)):
            if process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await process.wait()
