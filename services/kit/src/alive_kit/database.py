"""The provider's own database: one SQLite file, written before anything is shown.

One process writes it, in short transactions of its event loop (about 25 µs each; what a turn says within one tick of
the loop is one of them). WAL without a sync for each transaction outlives the death of the process, not a loss of
power; then the newest events may be gone, never the order.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

_FIRST = """
CREATE TABLE sessions (
    workspace_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    native_session TEXT NOT NULL DEFAULT '',
    native_mark TEXT NOT NULL DEFAULT '',
    is_fork INTEGER NOT NULL DEFAULT 0,
    system_append TEXT NOT NULL DEFAULT '',
    is_broken INTEGER NOT NULL DEFAULT 0,
    title TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    turn_count INTEGER NOT NULL DEFAULT 0,
    last_turn_id TEXT NOT NULL DEFAULT '',
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, session_id)
) WITHOUT ROWID;
CREATE INDEX sessions_latest ON sessions (workspace_id, update_time DESC, session_id DESC);
CREATE TABLE grants (
    workspace_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    granted TEXT NOT NULL,
    PRIMARY KEY (workspace_id, session_id, granted),
    FOREIGN KEY (workspace_id, session_id) REFERENCES sessions ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE leftovers (
    workspace_id TEXT NOT NULL,
    native_session TEXT NOT NULL,
    PRIMARY KEY (workspace_id, native_session)
) WITHOUT ROWID;
CREATE TABLE items (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    turn_id TEXT NOT NULL,
    item BLOB NOT NULL
);
CREATE INDEX items_of_session ON items (workspace_id, session_id, position);
CREATE TABLE turns (
    turn INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace_id TEXT NOT NULL,
    turn_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    has_ended INTEGER NOT NULL DEFAULT 0,
    create_time INTEGER NOT NULL,
    UNIQUE (workspace_id, turn_id)
);
CREATE TABLE events (
    turn INTEGER NOT NULL REFERENCES turns ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    frame BLOB NOT NULL,
    PRIMARY KEY (turn, seq)
) WITHOUT ROWID;
CREATE TABLE contents (
    turn INTEGER NOT NULL REFERENCES turns ON DELETE CASCADE,
    item_id TEXT NOT NULL,
    item BLOB NOT NULL,
    PRIMARY KEY (turn, item_id)
) WITHOUT ROWID;
"""

_OUTCOMES = """
CREATE TABLE begun (
    workspace_id TEXT NOT NULL,
    turn_id TEXT NOT NULL,
    outcome BLOB NOT NULL,
    PRIMARY KEY (workspace_id, turn_id)
) WITHOUT ROWID;
CREATE TABLE outcomes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    end_time INTEGER NOT NULL,
    outcome BLOB NOT NULL
);
CREATE TABLE outbox (epoch TEXT NOT NULL);
INSERT INTO outbox VALUES (lower(hex(randomblob(8))));
"""

_HANDOVERS = """
CREATE TABLE handovers (
    workspace_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    history BLOB NOT NULL,
    PRIMARY KEY (workspace_id, session_id),
    FOREIGN KEY (workspace_id, session_id) REFERENCES sessions ON DELETE CASCADE
) WITHOUT ROWID;
"""

_SETTLED = "ALTER TABLE sessions ADD COLUMN is_settled INTEGER NOT NULL DEFAULT 1;"

_PLACES = """
ALTER TABLE events RENAME TO former;
CREATE TABLE events (place INTEGER PRIMARY KEY, frame BLOB NOT NULL);
INSERT INTO events SELECT turn << 32 | seq, frame FROM former;
DROP TABLE former;
CREATE TRIGGER turn_deleted AFTER DELETE ON turns BEGIN
    DELETE FROM events WHERE place BETWEEN OLD.turn << 32 AND (OLD.turn << 32) + 0xFFFFFFFF;
END;
"""
"""Events by one number, turn and seq in it: a table that is its own index cost half as much again to write."""

STEPS = (_FIRST, _OUTCOMES, _HANDOVERS, _PLACES, _SETTLED)
"""What each version of the schema adds to the one before."""

_CHECKPOINTING = threading.Lock()
_CHECKPOINT_SECONDS = 2.0
_SOON_SECONDS = 0.1
_MANY_PAGES = 2_000
CHECKPOINT_PAGES = 50_000
"""Where the log is written back by whoever writes after all."""


class Unusable(Exception):
    """The database cannot be used; the text says why, and what would cure it."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database, made with private permissions when it does not exist.

    Raises:
        Unusable: it cannot be written, is damaged, or a newer release wrote it.
    """
    try:
        return _open(path)
    except (OSError, sqlite3.Error) as error:
        cure = "name a directory that the service's UID may write, with room left in it"
        raise Unusable(f"ALIVE_STATE_DIR: {path} cannot be used ({error}): {cure}") from error


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.row_factory = sqlite3.Row
    path.chmod(0o600)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA secure_delete = ON")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > len(STEPS):
        raise Unusable(f"{path} was written by a newer release (version {version}): use that one, or another state")
    for number, step in enumerate(STEPS[version:], version + 1):
        database.executescript(f"BEGIN; {step} PRAGMA user_version = {number}; COMMIT;")
    return database


@contextlib.contextmanager
def together(database: sqlite3.Connection) -> Iterator[None]:
    """Have everything be kept that is written in a block, or nothing when it fails.

    Raises:
        sqlite3.Error: it cannot be kept.
    """
    with contextlib.suppress(sqlite3.Error):  # Then what is written says so, each by itself.
        database.execute("BEGIN")
    with database:
        yield


async def keep_checkpointing(path: Path) -> None:
    """Write the log back into the file again and again, in a thread: it waits for the disk, and turns must not.

    Soon again while there is much of it: what is left when the log is full is written back by a turn after all.
    """
    pause = _CHECKPOINT_SECONDS
    while True:
        await asyncio.sleep(pause)
        pages = await asyncio.to_thread(_checkpoint, path)
        pause = _SOON_SECONDS if pages > _MANY_PAGES else _CHECKPOINT_SECONDS


def empty_log(database: sqlite3.Connection) -> None:
    """Write the log back into the file, and empty it: it still has what was deleted."""
    with _CHECKPOINTING:  # SQLite does not wait for another one, and would leave the log as it is.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _checkpoint(path: Path) -> int:
    """Write the log back; return how many pages it has."""
    with _CHECKPOINTING, contextlib.closing(sqlite3.connect(path)) as database, contextlib.suppress(sqlite3.Error):
        return int(database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
    return 0
