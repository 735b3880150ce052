"""Numbers, keeps and replays the events of one turn.

A log has one writer, the provider, and any number of readers. It keeps each event as the bytes that a response
carries on the wire: responses hold one repeated field, so that serialized events placed one behind the other are a
response. A log that outgrows its capacity forgets its oldest events; a reader that still needed them ends with
`ReaderTooSlow`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

from alive.agent.v1 import agent_service_pb2, event_pb2
from alive_kit.errors import AgentError, ReaderTooSlow, SeqOutOfRange, StorageFailed

logger = logging.getLogger(__name__)

CAPACITY = 64 << 20
"""Bytes of one turn that are kept."""

RESPONSE_BYTES = 1 << 20
"""Where a response stops taking more events."""


class EventLog:
    """The events of one turn, in order, from seq 1."""

    def __init__(
        self, *, capacity: int = CAPACITY, keep: Callable[[int, bytes], None] | None = None, last_seq: int = 0
    ) -> None:
        self._keep = keep
        self._frames: deque[bytes] = deque()
        self._capacity = capacity
        self._bytes = 0
        self._last_seq = last_seq
        self._closed = False
        self._refusal: AgentError | None = None
        self._grown = asyncio.Event()

    @classmethod
    def ended(cls, frames: Iterable[bytes]) -> "EventLog":
        """Return the log of a turn that has ended."""
        log = cls()
        log._frames.extend(frames)
        log._bytes = sum(map(len, log._frames))
        log._last_seq = len(log._frames)
        log._closed = True
        return log

    @property
    def last_seq(self) -> int:
        """The seq of the newest event; 0 when there is none."""
        return self._last_seq

    @property
    def oldest_seq(self) -> int:
        """The seq of the oldest event that is kept."""
        return self._last_seq - len(self._frames) + 1

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    @property
    def is_closed(self) -> bool:
        """Whether the turn's terminal event is in the log."""
        return self._closed

    def append(self, event: event_pb2.Event, *, terminal: bool = False) -> None:
        """Give an event its number and keep it before it is shown; a terminal one is the last.

        Raises:
            StorageFailed: it cannot be kept; it is not shown then, unless it is the terminal one.
        """
        if self._closed:
            raise ValueError("the turn has its terminal event")
        event.seq = self._last_seq + 1
        frame = agent_service_pb2.StartTurnResponse(events=[event]).SerializeToString()
        try:
            if self._keep:
                self._keep(event.seq, frame)
        except StorageFailed:
            if not terminal:
                raise
            logger.exception("a terminal event is shown that could not be kept")
        self._last_seq = event.seq
        self._frames.append(frame)
        self._bytes += len(frame)
        while self._bytes > self._capacity and len(self._frames) > 1:
            self._bytes -= len(self._frames.popleft())
        self._closed = terminal
        self._grown.set()
        self._grown = asyncio.Event()

    def refuse(self, error: AgentError) -> None:
        """Close a log that nothing was ever shown of: whoever reads it is refused."""
        self._refusal, self._closed = error, True
        self._grown.set()

    def check(self, after_seq: int) -> None:
        """Refuse a seq to read from that lies outside what is kept.

        Raises:
            SeqOutOfRange: it lies before the oldest event kept or behind the last one.
        """
        if after_seq > self._last_seq or after_seq + 1 < self.oldest_seq:
            raise SeqOutOfRange(after_seq, oldest_seq=self.oldest_seq, last_seq=self._last_seq)

    async def follow(self, *, after_seq: int) -> AsyncIterator[bytes]:
        """Yield serialized responses from a seq on: what is kept, then live, until the terminal event.

        Raises:
            ReaderTooSlow: events this reader had not read yet were forgotten.
            AgentError: the log was closed by `refuse`.
        """
        seq = after_seq
        while True:
            grown = self._grown
            response, seq = self._read(seq)
            if response:
                yield response
            elif self._refusal:
                raise self._refusal
            elif self._closed:
                return
            else:
                await grown.wait()

    def _read(self, seq: int) -> tuple[bytes, int]:
        """Return one response of events after a seq, and the last seq in it."""
        start = seq + 1 - self.oldest_seq
        if start < 0:
            raise ReaderTooSlow(seq)
        chosen: list[bytes] = []
        size = 0
        for index in range(start, len(self._frames)):
            frame = self._frames[index]
            if chosen and size + len(frame) > RESPONSE_BYTES:
                break
            chosen.append(frame)
            size += len(frame)
        return b"".join(chosen), seq + len(chosen)
