"""Writes down what one turn says: its events before they are shown, and its session's transcript."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

from alive.agent.v1 import error_pb2, event_pb2, options_pb2
from alive_kit.approvals import Approvals
from alive_kit.errors import StorageFailed
from alive_kit.fitting import fit, is_too_large
from alive_kit.journal import Journal
from alive_kit.sessions import Session, Sessions

_BREAKING = frozenset({error_pb2.FAILURE_REASON_SESSION_NOT_FOUND, error_pb2.FAILURE_REASON_SESSION_CORRUPT})


class Record:
    """What is kept of one turn. Of an ephemeral one: nothing."""

    def __init__(self, journal: Journal, sessions: Sessions, session: Session, turn: int | None) -> None:
        self._journal = journal
        self._sessions = sessions
        self._session = session
        self._turn = turn
        self._retracted: set[str] = set()

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
        """Keep events, serialized one behind the other, by the seq of the first one.

        Raises:
            StorageFailed: it cannot be written.
        """
        if self._turn is not None:
            with _storing():
                self._journal.append(self._turn, seq, frame)

    def remember(self, native_session: str, native_mark: str) -> None:
        """Keep the vendor's own id of the session, and of what was said last."""
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
            if self._turn is not None:
                self._journal.end(self._turn)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFailed(str(error)) from error
