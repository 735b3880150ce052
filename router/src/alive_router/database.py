"""The router's database: any that SQLAlchemy speaks to without blocking; SQLite and PostgreSQL are tested.

Migrations run over the same connections as everything else, so that one driver is enough.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from alive_kit.errors import StoreUnavailable

_BUSY_SECONDS = 30
"""How long SQLite waits for another writer."""

_MIGRATING = 0x616C697665
"""PostgreSQL's lock under which one router at a time migrates."""

_FAILURES = (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError, TimeoutError)
"""What a database that is away, full, locked or going down looks like."""


_DEFECTS = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.NotSupportedError)
"""What a database says that answers."""


class Database:
    """A pool of connections."""

    def __init__(self, url: str) -> None:
        is_sqlite = sa.make_url(url).get_backend_name() == "sqlite"
        # A connection that the server has closed meanwhile is replaced, not handed out.
        options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_SECONDS}} if is_sqlite else {"pool_pre_ping": True}
        self._engine: AsyncEngine = create_async_engine(url, **options)
        if is_sqlite:
            sa.event.listen(self._engine.sync_engine, "connect", _configure_sqlite)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Connect for a block.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        with _answering():
            async with self._engine.connect() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Connect for a block that is kept as a whole, or not at all.

        Raises:
            StoreUnavailable: the database does not answer.
            IntegrityError: it would break a rule of the tables.
        """
        with _answering():
            async with self._engine.begin() as connection:
                yield connection

    async def migrate(self, revision: str = "head") -> None:
        """Bring the tables to a revision; downwards when it is ``base``.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        async with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
            await connection.run_sync(_migrate, revision)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def insert_missing(connection: AsyncConnection, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
    """Return an insert that leaves a row alone that is there already; its result's rowcount says what it did."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except _DEFECTS:
        raise
    except _FAILURES as error:
        raise StoreUnavailable from error


def _configure_sqlite(connection: Any, _record: object) -> None:
    """Have readers and the writer not wait for each other; outlives the death of the process, not a loss of power."""
    cursor: sqlite3.Cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _migrate(connection: sa.Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    if revision == "base":
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)
