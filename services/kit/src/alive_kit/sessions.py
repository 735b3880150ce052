"""Knows the sessions of the service: whose they are, what the vendor calls them, what was said, and which turn runs."""

import base64
import contextlib
import sqlite3
import time
import uuid
from dataclasses import dataclass, field

from alive.agent.v1 import item_pb2, options_pb2, session_pb2
from alive_kit.database import empty_log
from alive_kit.errors import InvalidField, SessionBusy, SessionNotFound
from alive_kit.resume import Resume

TITLE_CHARACTERS = 80

PAGE_BYTES = 2 << 20
"""Where a page of a transcript stops taking more items: clients accept 4 MiB unless told otherwise."""


@dataclass(slots=True, kw_only=True)
class Session:
    """A lasting conversation in one workspace."""

    session_id: str
    workspace_id: str
    native_session: str = ""
    """The vendor's own id; empty until the vendor has said it."""
    native_mark: str = ""
    """The vendor's own name for the end of the latest turn."""
    is_fork: bool = False
    """Whether the vendor's id is still that of the session it was forked from."""
    system_append: str = ""
    """What the system prompt of its first turn appended."""
    is_broken: bool = False
    """Whether the vendor lost it or cannot read it."""
    is_settled: bool = False
    """Whether a turn of it has completed."""
    is_new: bool = False
    """Whether its first turn is still to begin: nothing of it is written down yet."""
    is_kept: bool = True
    """False for the session of an ephemeral turn: nothing of it is written down."""

    grants: set[str] = field(default_factory=set)
    """What was allowed for the rest of it, as far as this turn knows."""

    @property
    def resume(self) -> Resume | None:
        """What the vendor is asked to continue; None while there is nothing."""
        if not self.native_session:
            return None
        return Resume(
            native_session=self.native_session,
            fork_at=self.native_mark if self.is_fork else None,
            is_settled=self.is_settled,
            system_append=self.system_append,
        )


class Sessions:
    """The sessions of the service."""

    def __init__(self, database: sqlite3.Connection, provider_id: str) -> None:
        self._database = database
        self._provider_id = provider_id
        self._running: dict[tuple[str, str], str] = {}
        self._brief: dict[tuple[str, str], Session] = {}

    def open(self, session: Session) -> Session:
        """Keep a new session."""
        session.is_new = False
        if not session.is_kept:
            self._brief[session.workspace_id, session.session_id] = session
            return session
        now = time.time_ns()
        self._database.execute(
            "INSERT INTO sessions (workspace_id, session_id, is_settled, create_time, update_time) "
            "VALUES (?, ?, 0, ?, ?)",
            (session.workspace_id, session.session_id, now, now),
        )
        return session

    def find(self, workspace_id: str, session_id: str) -> Session:
        """Return a session of the workspace.

        Raises:
            SessionNotFound: the workspace has no such session.
        """
        if brief := self._brief.get((workspace_id, session_id)):
            return brief
        row = self._row(workspace_id, session_id)
        return Session(
            session_id=session_id,
            workspace_id=workspace_id,
            native_session=row["native_session"],
            native_mark=row["native_mark"],
            is_fork=bool(row["is_fork"]),
            system_append=row["system_append"],
            is_broken=bool(row["is_broken"]),
            is_settled=bool(row["is_settled"]),
        )

    def find_idle(self, workspace_id: str, session_id: str) -> Session:
        """Return a session of the workspace in which no turn runs.

        Raises:
            SessionNotFound: the workspace has no such session.
            SessionBusy: a turn of it runs.
        """
        session = self.find(workspace_id, session_id)
        if running := self._running.get((workspace_id, session_id)):
            raise SessionBusy(session_id, running)
        return session

    def check_new(self, workspace_id: str, session_id: str) -> None:
        """Refuse to open a session under an id that another one has.

        Raises:
            InvalidField: one has it.
        """
        with contextlib.suppress(SessionNotFound):
            if (workspace_id, session_id) not in self._running:  # What runs may be written down later: see failover.
                self.find(workspace_id, session_id)
            raise InvalidField({"session_id": f"there is a session {session_id!r} already"})

    def occupy(self, session: Session, turn_id: str) -> None:
        """Take note that a turn runs in a session: no other one may."""
        self._running[session.workspace_id, session.session_id] = turn_id

    def vacate(self, session: Session) -> None:
        """Take note that no turn runs in a session any more."""
        self._running.pop((session.workspace_id, session.session_id), None)

    def begin_turn(self, session: Session, turn_id: str, text: str, system_append: str) -> None:
        """Keep that a session has another turn; its first input is the session's title."""
        if not session.native_session:
            session.system_append = system_append
        title = " ".join(text.split())[:TITLE_CHARACTERS]
        self._update(
            session,
            "title = CASE title WHEN '' THEN ? ELSE title END, turn_count = turn_count + 1, last_turn_id = ?, "
            "system_append = ?, update_time = ?",
            (title, turn_id, session.system_append, time.time_ns()),
        )

    def end_turn(self, session: Session, model: str) -> None:
        """Keep that a session's turn has ended, and which model answered; empty when none did."""
        self.vacate(session)
        if not session.is_kept:
            self._brief.pop((session.workspace_id, session.session_id), None)
        self._update(
            session,
            "is_broken = ?, is_settled = ?, model = CASE ? WHEN '' THEN model ELSE ? END, update_time = ?",
            (session.is_broken, session.is_settled, model, model, time.time_ns()),
        )

    def remember(self, session: Session, native_session: str, native_mark: str) -> None:
        """Keep what the vendor calls a session, and where its latest turn ends."""
        if (native_session, native_mark) != (session.native_session, session.native_mark) or session.is_fork:
            source = session.native_session if session.is_fork else ""
            session.native_session, session.native_mark, session.is_fork = native_session, native_mark, False
            self._update(session, "native_session = ?, native_mark = ?, is_fork = 0", (native_session, native_mark))
            if source and not self.has_native(session.workspace_id, source):
                self.leave(session.workspace_id, source)

    def fork(self, session: Session, fork_id: str) -> session_pb2.Session:
        """Open a session with the memory and the transcript of another one, under an id if one is given."""
        fork_id, now = fork_id or f"session-{uuid.uuid4()}", time.time_ns()
        self.check_new(session.workspace_id, fork_id)
        source = (session.workspace_id, session.session_id)
        self._database.execute(
            "INSERT INTO sessions SELECT workspace_id, ?, native_session, native_mark, native_session != '', "
            "system_append, is_broken, title, model, turn_count, last_turn_id, ?, ?, is_settled FROM sessions "
            "WHERE workspace_id = ? AND session_id = ?",
            (fork_id, now, now, *source),
        )
        self._database.execute(
            "INSERT INTO items (workspace_id, session_id, turn_id, item) SELECT workspace_id, ?, turn_id, item "
            "FROM items WHERE workspace_id = ? AND session_id = ? ORDER BY position",
            (fork_id, *source),
        )
        self._database.execute(
            "INSERT INTO handovers SELECT workspace_id, ?, history FROM handovers "
            "WHERE workspace_id = ? AND session_id = ?",
            (fork_id, *source),
        )
        return self.describe(session.workspace_id, fork_id)

    def hand_over(self, session: Session, history: options_pb2.History) -> None:
        """Keep what a session's vendor still has to be told, until it has been (`told`)."""
        if session.is_kept and history.ByteSize():
            values = (session.workspace_id, session.session_id, history.SerializeToString())
            self._database.execute("INSERT OR REPLACE INTO handovers VALUES (?, ?, ?)", values)

    def untold(self, session: Session) -> options_pb2.History:
        """Return what a session's vendor still has to be told: a turn that should have done so failed before."""
        query = "SELECT history FROM handovers WHERE workspace_id = ? AND session_id = ?"
        row = self._database.execute(query, (session.workspace_id, session.session_id)).fetchone()
        return options_pb2.History.FromString(row["history"]) if row else options_pb2.History()

    def told(self, session: Session) -> None:
        """Take note that a session's vendor knows all that was handed over."""
        query = "DELETE FROM handovers WHERE workspace_id = ? AND session_id = ?"
        self._database.execute(query, (session.workspace_id, session.session_id))

    def delete(self, session: Session) -> None:
        """Drop a session and its transcript. What the vendor keeps is left over, unless a fork is still to be made."""
        key = (session.workspace_id, session.session_id)
        if session.native_session and not self.has_native(
            session.workspace_id, session.native_session, beside=session.session_id
        ):
            self.leave(session.workspace_id, session.native_session)
        self._database.execute("DELETE FROM items WHERE workspace_id = ? AND session_id = ?", key)
        self._database.execute("DELETE FROM sessions WHERE workspace_id = ? AND session_id = ?", key)
        empty_log(self._database)

    def leave(self, workspace_id: str, native_session: str) -> None:
        """Take note that the vendor keeps something that nobody has any more."""
        self._database.execute("INSERT OR IGNORE INTO leftovers VALUES (?, ?)", (workspace_id, native_session))

    def leftovers(self, workspace_id: str) -> list[str]:
        """Return what the vendor still keeps of sessions that nobody has any more, by its own ids."""
        query = "SELECT native_session FROM leftovers WHERE workspace_id = ?"
        return [row["native_session"] for row in self._database.execute(query, (workspace_id,))]

    def is_gone(self, workspace_id: str, native_session: str) -> None:
        """Take note that the vendor keeps nothing of it any more."""
        query = "DELETE FROM leftovers WHERE workspace_id = ? AND native_session = ?"
        self._database.execute(query, (workspace_id, native_session))

    def has_native(self, workspace_id: str, native_session: str, *, beside: str = "") -> bool:
        """Whether a session, beside one, goes on with what the vendor keeps under an id, or is still to be forked."""
        query = "SELECT 1 FROM sessions WHERE workspace_id = ? AND native_session = ? AND session_id != ?"
        return self._database.execute(query, (workspace_id, native_session, beside)).fetchone() is not None

    def grant(self, session: Session, granted: str) -> None:
        """Take note of what was allowed for the rest of a session."""
        session.grants.add(granted)
        if session.is_kept:
            values = (session.workspace_id, session.session_id, granted)
            self._database.execute("INSERT OR IGNORE INTO grants VALUES (?, ?, ?)", values)

    def has_grant(self, session: Session, granted: str) -> bool:
        """Return whether something was allowed for the rest of a session."""
        query = "SELECT 1 FROM grants WHERE workspace_id = ? AND session_id = ? AND granted = ?"
        values = (session.workspace_id, session.session_id, granted)
        return granted in session.grants or self._database.execute(query, values).fetchone() is not None

    # What callers see.

    def describe(self, workspace_id: str, session_id: str) -> session_pb2.Session:
        """Return a session as callers see it.

        Raises:
            SessionNotFound: the workspace has no such session.
        """
        return self._message(self._row(workspace_id, session_id))

    def page(self, workspace_id: str, size: int, token: str) -> session_pb2.ListSessionsResponse:
        """Return a page of the workspace's sessions, latest first.

        Raises:
            InvalidField: the token is not one of a page.
        """
        before, session_id = session_cursor(token)
        rows = self._database.execute(
            "SELECT * FROM sessions WHERE workspace_id = ? AND (update_time, session_id) < (?, ?) "
            "ORDER BY update_time DESC, session_id DESC LIMIT ?",
            (workspace_id, before, session_id, size + 1),
        ).fetchall()
        sessions = [self._message(row) for row in rows[:size]]
        token = session_token(sessions[-1]) if len(rows) > size else ""
        return session_pb2.ListSessionsResponse(sessions=sessions, next_page_token=token)

    def add_item(self, session: Session, turn_id: str, item: item_pb2.Item) -> None:
        """Add a completed item to a session's transcript."""
        if session.is_kept:
            self._database.execute(
                "INSERT INTO items (workspace_id, session_id, turn_id, item) VALUES (?, ?, ?, ?)",
                (session.workspace_id, session.session_id, turn_id, item.SerializeToString()),
            )

    def items(self, session: Session, size: int, token: str) -> session_pb2.ListItemsResponse:
        """Return a page of a session's transcript, oldest first.

        Raises:
            InvalidField: the token is not one of a page.
        """
        (after,) = _decode(token, 1) if token else ("0",)
        rows = self._database.execute(
            "SELECT * FROM items WHERE workspace_id = ? AND session_id = ? AND position > ? ORDER BY position LIMIT ?",
            (session.workspace_id, session.session_id, _number(after), size + 1),
        ).fetchall()
        page = session_pb2.ListItemsResponse()
        room = PAGE_BYTES
        for row in rows[:size]:
            room -= len(row["item"])
            if page.items and room < 0:
                break
            listed = page.items.add(turn_id=row["turn_id"])
            listed.item.ParseFromString(row["item"])
            listed.item.provider_id = self._provider_id
        if len(rows) > len(page.items):
            page.next_page_token = _encode(str(rows[len(page.items) - 1]["position"]))
        return page

    def _row(self, workspace_id: str, session_id: str) -> sqlite3.Row:
        query = "SELECT * FROM sessions WHERE workspace_id = ? AND session_id = ?"
        row: sqlite3.Row | None = self._database.execute(query, (workspace_id, session_id)).fetchone()
        if row is None:
            raise SessionNotFound(session_id)
        return row

    def _message(self, row: sqlite3.Row) -> session_pb2.Session:
        state = session_pb2.SESSION_STATE_BROKEN if row["is_broken"] else session_pb2.SESSION_STATE_IDLE
        if (row["workspace_id"], row["session_id"]) in self._running:
            state = session_pb2.SESSION_STATE_RUNNING
        session = session_pb2.Session(
            session_id=row["session_id"],
            workspace_id=row["workspace_id"],
            provider_id=self._provider_id,
            state=state,
            title=row["title"],
            model=row["model"],
            turn_count=row["turn_count"],
            last_turn_id=row["last_turn_id"],
        )
        session.create_time.FromNanoseconds(row["create_time"])
        session.update_time.FromNanoseconds(row["update_time"])
        return session

    def _update(self, session: Session, assignments: str, values: tuple[object, ...]) -> None:
        if session.is_kept:
            # Only assignments of this module come here.
            query = f"UPDATE sessions SET {assignments} WHERE workspace_id = ? AND session_id = ?"  # noqa: S608
            self._database.execute(query, (*values, session.workspace_id, session.session_id))


def session_token(session: session_pb2.Session) -> str:
    """Return the token of the page behind a session; it means the same to every provider."""
    return _encode(str(session.update_time.ToNanoseconds()), session.session_id)


def session_cursor(token: str) -> tuple[int, str]:
    """Return behind which update time (nanoseconds) and session id a page begins."""
    if not token:
        return (1 << 63) - 1, ""
    before, session_id = _decode(token, 2)
    return _number(before), session_id


def _encode(*parts: str) -> str:
    return base64.urlsafe_b64encode("\n".join(parts).encode()).decode()


def _decode(token: str, count: int) -> list[str]:
    try:
        parts = base64.b64decode(token, altchars=b"-_", validate=True).decode().split("\n")
    except ValueError:  # What is no ASCII, no base64, no UTF-8.
        parts = []
    if len(parts) != count:
        raise InvalidField({"page_token": "is not one that a page ended with"})
    return parts


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 1 << 63):
        raise InvalidField({"page_token": "is not one that a page ended with"})
    return int(text)
