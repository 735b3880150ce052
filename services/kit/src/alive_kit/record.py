"""Writes down what one turn says: its events before they are shown, its session's transcript, and its outcome.

A turn that another provider may still take is written down only once the model has said something.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2, item_pb2, options_pb2, outcome_service_pb2
from alive_kit.errors import StorageFailed
from alive_kit.fitting import fit, is_too_large
from alive_kit.journal import Journal
from alive_kit.outbox import Outbox
from alive_kit.sessions import Session, Sessions

SAID_ITEMS, SAID_BYTES = 500, 100_000
"""How much a CLI is told that begins a session anew."""

_BREAKING = frozenset({error_pb2.FAILURE_REASON_SESSION_NOT_FOUND, error_pb2.FAILURE_REASON_SESSION_CORRUPT})


@dataclass(slots=True, kw_only=True)
class Record:
    """What is kept of one turn, once it has begun. Of an ephemeral one: what it used."""

    journal: Journal
    sessions: Sessions
    outbox: Outbox
    session: Session
    request: agent_service_pb2.StartTurnRequest
    fingerprint: bytes
    """Tells the request apart from another one under the same turn id."""
    outcome: outcome_service_pb2.Outcome

    is_begun: bool = False
    _turn: int | None = None
    _remembered: tuple[str, str] | None = None
    _has_answer: bool = False
    _retracted: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Keep the turn, and its session when it is new: all of it, or nothing.

        Raises:
            StorageFailed: it cannot be written.
        """
        self.is_begun = True
        request = self.request
        text = next((part.text for part in request.input if part.text), "")
        with self.as_one():
            if self.session.is_new:
                self.sessions.open(self.session)
            if not request.ephemeral:
                ids = (request.workspace_id, request.turn_id, request.session_id)
                self._turn = self.journal.begin(*ids, self.fingerprint)
            self.sessions.begin_turn(self.session, request.turn_id, text, request.agent.system_prompt.append)
            self.sessions.hand_over(self.session, request.history)
            if self._remembered:
                self.sessions.remember(self.session, *self._remembered)
            self.outbox.note(self.outcome)

    def decline(self, error: error_pb2.TurnError, said: Iterable[event_pb2.Event]) -> None:
        """Take note that the turn failed before it began, and goes to another provider: its outcome is all of it.

        What it said of its model and of what it used is in the outcome.

        Raises:
            StorageFailed: it cannot be written.
        """
        self.sessions.vacate(self.session)
        native_session = self._remembered[0] if self._remembered else ""
        with _storing():
            if native_session not in {"", self.session.native_session}:
                self.sessions.leave(self.session.workspace_id, native_session)
            for event in said:
                self._note(event)
            self.outbox.decline(self.outcome, error)

    def said(self) -> options_pb2.History:
        """Return what was said and done in the session, the latest of it where that is much."""
        history, room = options_pb2.History(), SAID_BYTES
        for listed in reversed(self.sessions.items(self.session, SAID_ITEMS, "").items):
            room -= listed.item.ByteSize()
            if room < 0:
                history.omitted = "what came before was left out: it is too long"
                break
            history.items.insert(0, listed.item)
        return history

    def fit(self, event: event_pb2.Event) -> Iterator[event_pb2.Event]:
        """Yield the event, cut or in pieces where it is too large; what is cut is kept whole.

        Raises:
            StorageFailed: it cannot be written.
        """
        item = event.item_completed.item if event.HasField("item_completed") else None
        self._has_answer |= bool(item and item.message.role != item_pb2.ROLE_USER)
        self._note(event)
        if event.HasField("item_retracted"):
            self._retracted.add(event.item_retracted.item_id)
        if self._turn is None or item is None:
            yield from fit(event)
            return
        with _storing():
            if is_too_large(event):
                self.journal.keep_whole(self._turn, item)
        yield from fit(event)
        if item.item_id not in self._retracted:
            with _storing():
                self.sessions.add_item(self.session, event.turn_id, item)

    def keep(self, seq: int, frame: bytes) -> None:
        """Keep events, serialized one behind the other, by the seq of the first one.

        Raises:
            StorageFailed: it cannot be written.
        """
        if self._turn is not None:
            with _storing():
                self.journal.append(self._turn, seq, frame)

    def remember(self, native_session: str, native_mark: str) -> None:
        """Keep the vendor's own id of the session, and of what was said last.

        Raises:
            StorageFailed: it cannot be written.
        """
        if not self.is_begun:
            self._remembered = (native_session, native_mark)
            return
        with _storing():
            self.sessions.remember(self.session, native_session, native_mark)

    @contextlib.contextmanager
    def as_one(self) -> Iterator[None]:
        """Have the beginning or the end of the turn be kept as one: what is said, its session's state, its outcome.

        Raises:
            StorageFailed: it cannot be written.
        """
        with _storing(), self.journal.as_one():
            yield

    def end(self, terminal: event_pb2.Event, model: str) -> None:
        """Take note of how the turn ended.

        Raises:
            StorageFailed: it cannot be written.
        """
        if terminal.HasField("turn_failed"):
            self.session.is_broken = terminal.turn_failed.error.reason in _BREAKING
        elif terminal.HasField("turn_completed"):
            self.session.is_broken, self.session.is_settled = False, True
        with _storing():
            self.sessions.end_turn(self.session, model)
            if self._has_answer:
                self.sessions.told(self.session)
            if self._turn is not None:
                self.journal.end(self._turn)
            self.outbox.end(self.outcome, terminal)

    def _note(self, event: event_pb2.Event) -> None:
        """Keep what a turn has used so far: it is booked even when the service dies."""
        if event.HasField("turn_started"):
            self.outcome.model = event.turn_started.model
        elif event.HasField("usage_updated"):
            self.outcome.usage.CopyFrom(event.usage_updated.usage)
        else:
            return
        if self.is_begun:
            with _storing():
                self.outbox.note(self.outcome)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFailed(str(error)) from error
