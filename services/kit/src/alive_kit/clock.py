"""Tells when a turn has gone on, or its agent has been silent, for too long."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from alive.agent.v1 import error_pb2


class Clock:
    """The time of one turn, from the moment it may run."""

    def __init__(self, *, deadline: float, idle: float, is_waiting: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._idle = idle
        self._is_waiting = is_waiting
        self._start = self._latest = self._loop.time()

    @property
    def elapsed(self) -> timedelta:
        """How long the turn has run."""
        return timedelta(seconds=self._loop.time() - self._start)

    def touch(self) -> None:
        """Take note that the agent did something."""
        self._latest = self._loop.time()

    async def run_out(self, admitted: asyncio.Event) -> "error_pb2.FailureReason.ValueType":
        """Return why a turn has to end, once it has; what an agent waits for of its caller is no silence of its own."""
        await admitted.wait()
        self._start = self._latest = self._loop.time()
        while True:
            if self._is_waiting():
                self.touch()
            now = self._loop.time()
            left, silence_left = self._start + self._deadline - now, self._latest + self._idle - now
            if left <= 0:
                return error_pb2.FAILURE_REASON_TIMEOUT
            if silence_left <= 0:
                return error_pb2.FAILURE_REASON_IDLE_TIMEOUT
            await asyncio.sleep(min(left, silence_left))
