"""Writes down what one turn says: its events before they are shown, and its session's transcript.

A turn that another provider may still take is written down only once the model has said something.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2, item_pb2, options_pb2
from alive_kit.approvals import Approvals
from alive_kit.errors import StorageFailed
from alive_kit.fitting import fit, is_too_large
from alive_kit.journal import Journal
from alive_kit.sessions import Session, Sessions

_BREAKING = frozenset({error_pb2.FAILURE_REASON_SESSION_NOT_FOUND, error_pb2.FAILURE_REASON_SESSION_CORRUPT})


class Record:
    """What is kept of one turn, once it has begun. Of an ephemeral one: nothing."""

    def __init__(
        self,
        journal: Journal,
        sessions: Sessions,
        session: Session,
        request: agent_service_pb2.StartTurnRequest,
        fingerprint: bytes,
    ) -> None:
        self.fingerprint = fingerprint
        """Tells the request apart from another one under the same turn id."""
        self.is_begun = False
        self._journal = journal
        self._sessions = sessions
        self._session = session
        self._request = request
        self._turn: int | None = None
        self._remembered: tuple[str, str] | None = None
        self._has_answer = False
        self._retracted: set[str] = set()

    def begin(self) -> None:
        """Keep the turn, and its session when it is new.

        Raises:
            StorageFailed: it cannot be written.
        """
        self.is_begun = True
        request = self._request
        text = next((part.text for part in request.input if part.text), "")
        with _storing():
            if self._session.is_new:
                self._sessions.open(self._session)
            if not request.ephemeral:
                ids = (request.workspace_id, request.turn_id, request.session_id)
                self._turn = self._journal.begin(*ids, self.fingerprint)
            self._sessions.begin_turn(self._session, request.turn_id, text, request.agent.system_prompt.append)
            self._sessions.hand_over(self._session, request.history)
            if self._remembered:
                self._sessions.remember(self._session, *self._remembered)

    def decline(self, error: error_pb2.TurnError) -> None:
        """Take note that the turn failed before it began, and goes to another provider: nothing else is kept of it."""
        native_session = self._remembered[0] if self._remembered else ""
        if native_session not in {"", self._session.native_session}:
            self._sessions.leave(self._session.workspace_id, native_session)
        self._sessions.vacate(self._session)

    def approvals(
        self, permissions: options_pb2.Permissions, timeout: float, emit: Callable[[event_pb2.Event], None]
    ) -> Approvals:
        """Return the approvals of the turn; what is allowed for the session is kept with it."""
        return Approvals(permissions, timeout, self._session, self._sessions, emit)

    def fit(self, event: event_pb2.Event) -> Iterator[event_pb2.Event]:
        """Yield the event, cut or in pieces where it is too large; what is cut is kept whole.

        Raises:
            StorageFailed: it cannot be written.
        """
        item = event.item_completed.item if event.HasField("item_completed") else None
        self._has_answer |= bool(item and item.message.role != item_pb2.ROLE_USER)
        if event.HasField("item_retracted"):
            self._retracted.add(event.item_retracted.item_id)
        if self._turn is None:
            yield from fit(event)
            return
        with _storing():
            if item and is_too_large(event):
                self._journal.keep_whole(self._turn, item)
        yield from fit(event)
        if item and item.item_id not in self._retracted:
            with _storing():
                self._sessions.add_item(self._session, event.turn_id, item)

    def keep(self, seq: int, frame: bytes) -> None:
        """Keep an event.

        Raises:
            StorageFailed: it cannot be written.
        """
        if self._turn is not None:
            with _storing():
                self._journal.append(self._turn, seq, frame)

    def remember(self, native_session: str, native_mark: str) -> None:
        """Keep the vendor's own id of the session, and of what was said last."""
        if not self.is_begun:
            self._remembered = (native_session, native_mark)
            return
        self._sessions.remember(self._session, native_session, native_mark)

    def end(self, terminal: event_pb2.Event, model: str) -> None:
        """Take note of how the turn ended.

        Raises:
            StorageFailed: it cannot be written.
        """
        if terminal.HasField("turn_failed"):
            self._session.is_broken = terminal.turn_failed.error.reason in _BREAKING
        elif terminal.HasField("turn_completed"):
            self._session.is_broken = False
        with _storing():
            self._sessions.end_turn(self._session, model)
            if self._has_answer:
                self._sessions.told(self._session)
            if self._turn is not None:
                self._journal.end(self._turn)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFailed(str(error)) from error
