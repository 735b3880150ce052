"""The router's database: any that SQLAlchemy speaks to without blocking; SQLite and PostgreSQL are tested.

Migrations run over the same connections as everything else, so that one driver is enough.

What a turn needs of SQLite takes some ten microseconds, and a thread for it several hundred: so it is read and written
in the event loop's own thread. What may take long, or waits for the disk, is done in other threads.
"""

import asyncio
import contextlib
import functools
import inspect
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar, cast

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from alive_kit.database import CHECKPOINT_PAGES, keep_checkpointing
from alive_kit.errors import StoreUnavailable
from alive_router.statements import Rows, Statement

P = ParamSpec("P")
T = TypeVar("T")

Connection: TypeAlias = "AsyncConnection | _InlineConnection"

_BUSY_SECONDS = 30
"""How long SQLite waits for another writer."""

_LOOK_SECONDS = 0.002
"""How often it is looked whether the other writer is done, where nobody else may be kept waiting."""

_MIGRATING = 0x616C697665
"""PostgreSQL's lock under which one router at a time migrates."""

_FAILURES = (sa.exc.DBAPIError, sa.exc.TimeoutError, sqlite3.DatabaseError, OSError, TimeoutError)
"""What a database that is away, full, locked or going down looks like."""


_DEFECTS = (
    *(sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.NotSupportedError),
    *(sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.NotSupportedError),
)
"""What a database says that answers."""


class Database:
    """A pool of connections."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        self._checkpointing: asyncio.Task[None] | None = None
        if self._is_sqlite:
            self._path = Path(parsed.database or "")
            self._engine: AsyncEngine | _InlineEngine = _InlineEngine(parsed)
            waiting = {"timeout": _BUSY_SECONDS, "isolation_level": None}
            self._threads: AsyncEngine | _InlineEngine = create_async_engine(url, connect_args=waiting)
            for engine in (self._engine, self._threads):
                sa.event.listen(engine.sync_engine, "connect", _configure_sqlite)
        else:
            # A connection that the server has closed meanwhile is replaced, not handed out.
            self._engine = self._threads = create_async_engine(url, pool_pre_ping=True)

    @contextlib.asynccontextmanager
    async def reading(self, *, much: bool = False) -> AsyncIterator[Connection]:
        """Connect for a block; say so where it reads more than a few rows.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        with _ANSWERING:
            async with (self._threads if much else self._engine).connect() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def writing(self, *, much: bool = False) -> AsyncIterator[Connection]:
        """Connect for a block that is kept as a whole, or not at all; say so where it changes more than a few rows.

        Raises:
            StoreUnavailable: the database does not answer.
            IntegrityError: it would break a rule of the tables.
        """
        with _ANSWERING:
            async with (self._threads if much else self._engine).begin() as connection:
                if self._is_sqlite:
                    await _begin(lambda: connection.exec_driver_sql("BEGIN IMMEDIATE"))
                yield connection

    async def read(self, statement: Statement, **parameters: Any) -> Rows:
        """Return the rows of a statement of every turn.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        with _ANSWERING:
            if isinstance(self._engine, _InlineEngine):
                return statement.compiled.execute(self._engine.driver, parameters)
            async with self._engine.connect() as connection:
                return (await connection.execute(statement.of(connection.dialect.name), parameters)).all()

    async def write(self, *changes: tuple[Statement, Mapping[str, Any]]) -> bool:
        """Execute statements of every turn as a whole; return False when a rule of the tables forbids it.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        with _ANSWERING:
            try:
                if isinstance(self._engine, _InlineEngine):
                    await self._engine.write(changes)
                else:
                    async with self._engine.begin() as connection:
                        for statement, parameters in changes:
                            await connection.execute(statement.of(connection.dialect.name), parameters)
            except (sa.exc.IntegrityError, sqlite3.IntegrityError):
                return False
        return True

    async def migrate(self, revision: str = "head") -> None:
        """Bring the tables to a revision; downwards when it is ``base``.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        async with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
            await connection.run_sync(_migrate, revision)
        if self._is_sqlite and not self._checkpointing:
            self._checkpointing = asyncio.create_task(keep_checkpointing(self._path), name="checkpoints")

    async def close(self) -> None:
        """Close every connection."""
        if self._checkpointing:
            self._checkpointing.cancel()
        for engine in {self._engine, self._threads}:
            await engine.dispose()


def insert_missing(dialect: str, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
    """Return an insert that leaves a row alone that is there already; its result's rowcount says what it did."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


class _Answering:
    """A block in which a database that does not answer is `StoreUnavailable`. A class: every statement enters one."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        if isinstance(error, _FAILURES) and not isinstance(error, _DEFECTS):
            raise StoreUnavailable from error


_ANSWERING = _Answering()


class _InlineConnection:
    """A connection with the methods of SQLAlchemy's for asyncio; each is done when it returns."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    @property
    def dialect(self) -> sa.Dialect:
        """What the database speaks."""
        return self._connection.dialect

    async def execute(
        self, statement: sa.Executable, parameters: "Mapping[str, Any] | list[Mapping[str, Any]] | None" = None
    ) -> sa.CursorResult[Any]:
        """Execute a statement."""
        return self._connection.execute(statement, parameters)

    async def exec_driver_sql(self, statement: str) -> sa.CursorResult[Any]:
        """Execute a statement in the words of the driver."""
        return self._connection.exec_driver_sql(statement)

    async def run_sync(self, fn: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function with the connection itself."""
        return fn(self._connection, *args, **kwargs)


class _InlineEngine:
    """Connections to one database; a statement that finds it locked fails at once."""

    def __init__(self, url: sa.URL) -> None:
        self._kept: sa.PoolProxiedConnection | None = None
        arguments = {"timeout": 0.0, "isolation_level": None}
        self.sync_engine = sa.create_engine(url.set(drivername="sqlite"), connect_args=arguments)

    @functools.cached_property
    def driver(self) -> sqlite3.Connection:
        """A connection for the statements of every turn."""
        self._kept = self.sync_engine.raw_connection()
        return cast("sqlite3.Connection", self._kept.driver_connection)

    async def write(self, changes: "Iterable[tuple[Statement, Mapping[str, Any]]]") -> None:
        """Execute statements as a whole. Nothing else happens between the first and the last."""
        await _begin(lambda: self.driver.execute("BEGIN IMMEDIATE"))
        try:
            for statement, parameters in changes:
                statement.compiled.execute(self.driver, parameters)
            self.driver.execute("COMMIT")
        except BaseException:
            if self.driver.in_transaction:  # A full disk has ended it already.
                self.driver.execute("ROLLBACK")
            raise

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[_InlineConnection]:
        """Connect for a block."""
        with self.sync_engine.connect() as connection:
            yield _InlineConnection(connection)

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[_InlineConnection]:
        """Connect for a block that is kept as a whole, or not at all."""
        with self.sync_engine.begin() as connection:
            yield _InlineConnection(connection)

    async def dispose(self) -> None:
        """Close every connection."""
        if self._kept:
            self._kept.close()
        self.sync_engine.dispose()


async def _begin(begin: Callable[[], Any]) -> None:
    """Become SQLite's one writer, and let others run while somebody else is."""
    due = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            begun = begin()
            if inspect.isawaitable(begun):
                await begun
            return
        except (sa.exc.OperationalError, sqlite3.OperationalError) as error:
            if "locked" not in str(error) or time.monotonic() > due:
                raise
        await asyncio.sleep(_LOOK_SECONDS)  # Nothing tells when another process has written.


def _configure_sqlite(connection: Any, _record: object) -> None:
    """Have readers and the writer not wait for each other; outlives the death of the process, not a loss of power.

    Nobody who commits writes the log back into the file: that waits for the disk, and a thread does it.
    """
    cursor: sqlite3.Cursor = connection.cursor()
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", f"wal_autocheckpoint = {CHECKPOINT_PAGES}"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _migrate(connection: sa.Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    if revision == "base":
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)
