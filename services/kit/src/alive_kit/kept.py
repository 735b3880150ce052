"""The turns that a service has in memory: those that run, and the latest of those that have ended."""

import asyncio
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from alive_kit.event_log import EventLog
from alive_kit.provider import TurnSpec

KEPT_BYTES = 16 << 20
"""Turns in memory, all together; above it, ended ones are forgotten."""

KEPT_TURNS = 64
"""Turns in memory; above it, ended ones are forgotten that the journal has."""

TURN_BYTES = 7 << 10
"""What a turn takes in memory beside its events."""

TurnKey = tuple[str, str]


class Keepable(Protocol):
    """A turn, as far as it matters here."""

    spec: TurnSpec
    log: EventLog
    ended: asyncio.Event
    """Set once it has ended."""


T = TypeVar("T", bound=Keepable)


class KeptTurns(Generic[T]):
    """Turns by workspace id and turn id, in the order in which they began."""

    def __init__(self) -> None:
        self._turns: dict[TurnKey, T] = {}

    def add(self, turn: T) -> None:
        """Keep a turn that begins."""
        self._turns[_key(turn)] = turn

    def find(self, workspace_id: str, turn_id: str) -> T | None:
        """Return a turn, or None when it is not in memory."""
        return self._turns.get((workspace_id, turn_id))

    def forget(self, turn: T) -> None:
        """Forget a turn."""
        self._turns.pop(_key(turn), None)

    def forget_session(self, workspace_id: str, session_id: str) -> None:
        """Forget the turns of a session."""
        for turn in list(self._turns.values()):
            request = turn.spec.request
            if (request.workspace_id, request.session_id) == (workspace_id, session_id):
                self.forget(turn)

    def running(self) -> Iterator[T]:
        """Yield the turns that have not ended."""
        return (turn for turn in self._turns.values() if not turn.ended.is_set())

    def make_room(self) -> None:
        """Forget the oldest ended turns until there is room; of ephemeral ones nobody else has the events."""
        spare = len(self._turns) - KEPT_TURNS
        size = sum(map(_size, self._turns.values()))
        for turn in list(self._turns.values()):
            is_spare = spare > 0 and not turn.spec.request.ephemeral
            if turn.ended.is_set() and (is_spare or size > KEPT_BYTES):
                spare -= 1
                size -= _size(turn)
                self.forget(turn)


def _key(turn: Keepable) -> TurnKey:
    return turn.spec.request.workspace_id, turn.spec.request.turn_id


def _size(turn: Keepable) -> int:
    return TURN_BYTES + turn.log.size + turn.spec.request.ByteSize()
