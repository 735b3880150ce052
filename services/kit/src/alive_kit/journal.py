"""Keeps the events of turns beyond the death of the service."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

from alive.agent.v1 import item_pb2
from alive_kit.database import together

_SEQ_BITS = 32
"""Where, in the place of an event, the number of its turn begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTurn:
    """A turn as it is kept."""

    turn: int
    """Its number in the journal."""
    workspace_id: str
    turn_id: str
    session_id: str
    fingerprint: bytes
    """Tells its request apart from another one under the same id."""


class Journal:
    """The turns of a service, running and ended."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def begin(self, workspace_id: str, turn_id: str, session_id: str, fingerprint: bytes) -> int:
        """Keep a new turn and return its number."""
        cursor = self._database.execute(
            "INSERT INTO turns (workspace_id, turn_id, session_id, fingerprint, create_time) VALUES (?, ?, ?, ?, ?)",
            (workspace_id, turn_id, session_id, fingerprint, time.time_ns()),
        )
        return int(cursor.lastrowid or 0)

    def append(self, turn: int, seq: int, frame: bytes) -> None:
        """Keep events, serialized one behind the other, by the seq of the first one."""
        self._database.execute("INSERT INTO events VALUES (?, ?)", (turn << _SEQ_BITS | seq, frame))

    def end(self, turn: int) -> None:
        """Take note that a turn has its terminal event."""
        self._database.execute("UPDATE turns SET has_ended = 1 WHERE turn = ?", (turn,))

    def find(self, workspace_id: str, turn_id: str) -> KeptTurn | None:
        """Return a turn; None where none of this id is kept."""
        query = "SELECT * FROM turns WHERE workspace_id = ? AND turn_id = ?"
        row = self._database.execute(query, (workspace_id, turn_id)).fetchone()
        return _kept(row) if row else None

    def running(self) -> list[KeptTurn]:
        """Return the turns that have no terminal event."""
        return [_kept(row) for row in self._database.execute("SELECT * FROM turns WHERE NOT has_ended ORDER BY turn")]

    def frames(self, turn: int) -> Iterator[bytes]:
        """Yield the events of a turn as they were kept, from the first on."""
        query = "SELECT frame FROM events WHERE place BETWEEN ? AND ? ORDER BY place"
        for row in self._database.execute(query, (turn << _SEQ_BITS, (turn + 1 << _SEQ_BITS) - 1)):
            yield row["frame"]

    def keep_whole(self, turn: int, item: item_pb2.Item) -> None:
        """Keep an item that is too large for its event."""
        values = (turn, item.item_id, item.SerializeToString())
        self._database.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", values)

    def whole(self, turn: int, item_id: str) -> bytes | None:
        """Return an item that was too large for its event, serialized; None where there is none."""
        query = "SELECT item FROM contents WHERE turn = ? AND item_id = ?"
        row = self._database.execute(query, (turn, item_id)).fetchone()
        return row["item"] if row else None

    def forget(self, turn: int) -> None:
        """Drop a turn."""
        self._database.execute("DELETE FROM turns WHERE turn = ?", (turn,))

    def forget_session(self, workspace_id: str, session_id: str) -> None:
        """Drop every turn of a session."""
        query = "DELETE FROM turns WHERE workspace_id = ? AND session_id = ?"
        self._database.execute(query, (workspace_id, session_id))

    def forget_older(self, seconds: float) -> None:
        """Drop the ended turns that began longer ago. Transcripts of sessions stay."""
        due = time.time_ns() - round(seconds * 1e9)
        self._database.execute("DELETE FROM turns WHERE has_ended AND create_time < ?", (due,))

    def forget_beyond(self, size: int) -> None:
        """Drop the oldest ended turns while the database uses more bytes. Transcripts of sessions stay."""
        oldest = "DELETE FROM turns WHERE turn = (SELECT turn FROM turns WHERE has_ended ORDER BY turn LIMIT 1)"
        while self._used() > size and self._database.execute(oldest).rowcount:
            pass

    def as_one(self) -> contextlib.AbstractContextManager[None]:
        """Have everything be kept that is written in a block, or nothing."""
        return together(self._database)

    def _used(self) -> int:
        """Return how many bytes of the file hold something."""
        pages, free, size = (
            int(self._database.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


def _kept(row: sqlite3.Row) -> KeptTurn:
    return KeptTurn(
        turn=row["turn"],
        workspace_id=row["workspace_id"],
        turn_id=row["turn_id"],
        session_id=row["session_id"],
        fingerprint=row["fingerprint"],
    )
