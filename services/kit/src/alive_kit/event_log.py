"""Numbers, keeps and replays the events of one turn.

A log has one writer, the provider, and any number of readers. It keeps each event as the bytes that a response
carries on the wire: responses hold one repeated field, so that serialized events placed one behind the other are a
response. A log that outgrows its capacity forgets its oldest events; a reader that still needed them ends with
`ReaderTooSlow`.

An event is shown once it is kept. One that comes alone is kept at once; those behind it, together at the end of each
tick of the event loop; and where that goes on, every few milliseconds. What cannot be kept never was: the log goes on
behind what was shown.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable

from alive.agent.v1 import event_pb2
from alive_kit.errors import AgentError, ReaderTooSlow, SeqOutOfRange, StorageFailed
from alive_kit.frames import frame, split

logger = logging.getLogger(__name__)

CAPACITY = 64 << 20
"""Bytes of one turn that are kept."""

RESPONSE_BYTES = 1 << 20
"""Where a response stops taking more events."""

FLOOD_TICKS = 4
"""After how many ticks in a row that all had events a log is in flood."""

FLOOD_EVENTS = 8
"""How many events in that time make it go on."""

FLOOD_SECONDS = 0.005
"""How often the events of a flood are kept: to write takes as long for a hundred events as for ten."""


class EventLog:
    """The events of one turn, in order, from seq 1."""

    def __init__(
        self,
        *,
        capacity: int = CAPACITY,
        keep: Callable[[int, bytes], None] | None = None,
        lost: Callable[[], None] | None = None,
        last_seq: int = 0,
    ) -> None:
        self._keep = keep
        self._lost = lost or _ignore
        self._frames: list[bytes] = []
        self._capacity = capacity
        self._bytes = 0
        self._oldest_seq = last_seq + 1
        self._shown_seq = last_seq
        self._closed = False
        self._is_due = False
        self._ticks = 0
        """How many in a row had events."""
        self._ticked_seq = last_seq
        """The newest event at the last tick."""
        self._refusal: AgentError | None = None
        self._grown = asyncio.Event()

    @classmethod
    def ended(cls, frames: Iterable[bytes]) -> "EventLog":
        """Return the log of a turn that has ended, from its events as they were kept."""
        log = cls()
        log._frames.extend(one for kept in frames for one in split(kept))
        log._bytes = sum(map(len, log._frames))
        log._shown_seq = log._last_seq
        log._closed = True
        return log

    @property
    def oldest_seq(self) -> int:
        """The seq of the oldest event that is kept."""
        return self._oldest_seq

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    @property
    def is_closed(self) -> bool:
        """Whether the turn has its terminal event."""
        return self._closed

    @property
    def _last_seq(self) -> int:
        """The seq of the newest event, shown or not."""
        return self._oldest_seq + len(self._frames) - 1

    def append(self, event: event_pb2.Event, *, terminal: bool = False) -> None:
        """Give an event its number and show it once it is kept; a terminal one is the last, and shown at once."""
        if self._closed:
            raise ValueError("the turn has its terminal event")
        if terminal:
            self.settle()
        event.seq = self._last_seq + 1
        self._frames.append(frame(event))
        if terminal:
            self._close()
            self.settle()
        elif not self._is_due:
            self.settle()
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        """Keep what was appended since the last tick; while there is something every time, go on."""
        fresh = self._last_seq - self._ticked_seq
        self._is_due = fresh > 0
        if not fresh:
            self._ticks = 0
            return
        is_flood = self._ticks >= FLOOD_TICKS
        # What comes no faster than every millisecond or so is shown at once.
        self._ticks = 0 if is_flood and fresh < FLOOD_EVENTS else self._ticks + 1
        self._ticked_seq = self._last_seq
        self.settle()
        loop = asyncio.get_running_loop()
        if self._ticks < FLOOD_TICKS:
            loop.call_soon(self._tick)
        else:
            loop.call_later(FLOOD_SECONDS, self._tick)

    def settle(self) -> None:
        """Keep what was appended, and show it. What cannot be kept is dropped, unless it is the terminal event."""
        first = self._shown_seq + 1 - self._oldest_seq
        fresh = b"".join(self._frames[first:])
        if not fresh:
            return
        try:
            if self._keep:
                self._keep(self._shown_seq + 1, fresh)
        except StorageFailed:
            logger.exception("events cannot be kept")
            if not self._closed:
                del self._frames[first:]
                self._lost()
                return
        self._bytes += len(fresh)
        self._shown_seq = self._last_seq
        self._forget()
        self._grown.set()
        self._grown = asyncio.Event()

    def _forget(self) -> None:
        """Drop the oldest events until the rest is within the capacity."""
        forgotten = 0
        while self._bytes > self._capacity and forgotten < len(self._frames) - 1:
            self._bytes -= len(self._frames[forgotten])
            forgotten += 1
        del self._frames[:forgotten]
        self._oldest_seq += forgotten

    def refuse(self, error: AgentError) -> None:
        """Close a log that nothing was ever shown of: whoever reads it is refused."""
        self._refusal = error
        self._close()
        self._grown.set()

    def _close(self) -> None:
        self._closed = True
        self._lost = _ignore  # It has the turn, which has this log.

    def check(self, after_seq: int) -> None:
        """Refuse a seq to read from that lies outside what is kept.

        Raises:
            SeqOutOfRange: it lies before the oldest event kept or behind the last one.
        """
        if after_seq > self._shown_seq or after_seq + 1 < self.oldest_seq:
            raise SeqOutOfRange(after_seq, oldest_seq=self.oldest_seq, last_seq=self._shown_seq)

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
            elif self._closed and seq == self._last_seq:
                return
            else:
                await grown.wait()

    def _read(self, seq: int) -> tuple[bytes, int]:
        """Return one response of events after a seq, and the last seq in it."""
        start = seq + 1 - self.oldest_seq
        if start < 0:
            raise ReaderTooSlow(seq)
        end, size = start, 0
        while end <= self._shown_seq - self._oldest_seq:
            size += len(self._frames[end])
            if size > RESPONSE_BYTES and end > start:
                break
            end += 1
        return b"".join(self._frames[start:end]), seq + end - start


def _ignore() -> None:
    """Tell nobody."""
