"""Copies the messages of a provider's stream to its caller, in order, no faster than they are read.

One at a time costs least while the caller keeps up. While a caller does not take a message, the stream is read ahead by
a bounded number of bytes. What waits then goes out in one piece where the contract allows that: responses that hold one
repeated field, written one behind the other, are one response.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from alive_kit.rpc import Context

READ_AHEAD_BYTES = 256 << 10
"""How much of a stream waits for its caller before no more of it is read."""

STALL_SECONDS = 0.01
"""How long a caller may take for a message before its stream is read ahead."""

ALONE_MESSAGES = 8
"""After how many messages behind which none waited it is not read ahead any more."""


class Copy:
    """A stream on its way to a caller."""

    def __init__(
        self, call: "grpc.aio.UnaryStreamCall[Any, Any]", context: Context, response_bytes: int, stalls: "Stalls"
    ) -> None:
        self._call = call
        self._context = context
        self._response_bytes = response_bytes
        self._stalls = stalls
        self._ahead: _Ahead | None = None

    async def run(self, on_first: Callable[[], None]) -> None:
        """Copy the stream to its end; its status is the call's to tell. Say so before something is passed on."""
        if (first := await _read(self._call)) is None:
            return
        on_first()
        try:
            await self._write(first)
            while await self._copy_each() and await self._copy_waiting():
                pass
        finally:
            if self._ahead:
                self._ahead.stop()

    def read_ahead(self) -> None:
        """Read the stream ahead until nothing waits any more."""
        if not self._ahead:
            self._ahead = _Ahead(self._call, self._response_bytes)

    async def _copy_each(self) -> bool:
        """Copy one message at a time until the caller does not take one; return False where the stream ends before."""
        while not self._ahead:
            if (message := await _read(self._call)) is None:
                return False
            await self._write(message)
        return True

    async def _copy_waiting(self) -> bool:
        """Copy what was read ahead until nothing waits; return False where the stream ends before."""
        assert self._ahead
        while await self._ahead.has_more():
            await self._context.write(self._ahead.take())
        goes_on, self._ahead = not self._ahead.is_at_end, None
        return goes_on

    async def _write(self, message: bytes) -> None:
        self._stalls.begin(self)
        try:
            await self._context.write(message)
        finally:
            self._stalls.end(self)


class Stalls:
    """Finds the streams whose callers do not take what is written to them."""

    def __init__(self) -> None:
        self._writing: dict[Copy, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, copy: Copy) -> None:
        """Take note that a message is being written."""
        self._writing[copy] = time.monotonic()
        if self._timer is None:  # One for all: one for each message would cost more than what else is done for it.
            self._timer = asyncio.get_running_loop().call_later(STALL_SECONDS, self._look)

    def end(self, copy: Copy) -> None:
        """Take note that it was taken."""
        del self._writing[copy]

    def _look(self) -> None:
        due = time.monotonic() - STALL_SECONDS
        for copy, since in self._writing.items():
            if since < due:
                copy.read_ahead()
        self._timer = asyncio.get_running_loop().call_later(STALL_SECONDS, self._look) if self._writing else None


class _Ahead:
    """What was read of a stream and is not written yet. A task fills it until nothing waits any more."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, Any]", response_bytes: int) -> None:
        self._response_bytes = response_bytes
        self._messages: deque[bytes] = deque()
        self._size = 0
        self._alone = 0
        self._has_stopped = False
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._reading = asyncio.create_task(self._read(call))
        self.is_at_end = False
        """Whether the stream has ended."""

    def stop(self) -> None:
        """Read no more."""
        self._reading.cancel()

    async def has_more(self) -> bool:
        """Wait until there is something to take; return False when there will be nothing any more."""
        if not self._messages and not self._has_stopped:
            self._filled.clear()
            await self._filled.wait()
        return bool(self._messages)

    def take(self) -> bytes:
        """Return one response: a message, and those behind it that fit."""
        taken = [self._messages.popleft()]
        size = len(taken[0])
        while self._messages and size + len(self._messages[0]) <= self._response_bytes:
            size += len(self._messages[0])
            taken.append(self._messages.popleft())
        self._size -= size
        self._alone = 0 if len(taken) > 1 else self._alone + 1
        self._emptied.set()
        return b"".join(taken)

    async def _read(self, call: "grpc.aio.UnaryStreamCall[Any, Any]") -> None:
        try:
            while self._alone < ALONE_MESSAGES:
                if (message := await _read(call)) is None:
                    self.is_at_end = True
                    break
                self._messages.append(message)
                self._size += len(message)
                self._filled.set()
                if self._size >= READ_AHEAD_BYTES:
                    self._emptied.clear()
                    await self._emptied.wait()
        finally:
            self._has_stopped = True
            self._filled.set()


async def _read(call: "grpc.aio.UnaryStreamCall[Any, Any]") -> bytes | None:
    """Return the next message of a stream; None at its end, however it ends."""
    try:
        message = await call.read()
    except grpc.aio.AioRpcError:
        return None
    return message if isinstance(message, bytes) else None
