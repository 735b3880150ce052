"""Keeps what the router knows: settings of workspaces, and which provider has a session or a turn.

SQLAlchemy Core over any database it speaks to; SQLite where nothing else is configured. The tables are made by the
migrations beside this module.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from alive.agent.v1 import workspace_service_pb2

METADATA = sa.MetaData()

WORKSPACES = sa.Table(
    "workspaces",
    METADATA,
    sa.Column("workspace_id", sa.String(63), primary_key=True),
    sa.Column("settings", sa.LargeBinary, nullable=False),
    sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
)

SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("workspace_id", sa.String(63), primary_key=True),
    sa.Column("session_id", sa.String(128), primary_key=True),
    sa.Column("provider_id", sa.String(63), nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
)

TURNS = sa.Table(
    "turns",
    METADATA,
    sa.Column("workspace_id", sa.String(63), primary_key=True),
    sa.Column("turn_id", sa.String(128), primary_key=True),
    sa.Column("session_id", sa.String(128), nullable=False),
    sa.Column("provider_id", sa.String(63), nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """Which provider has a turn."""

    workspace_id: str
    turn_id: str
    session_id: str
    provider_id: str


class Store:
    """The router's memory."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, url: str) -> "Store":
        """Open a store and bring its tables up to date."""
        await asyncio.to_thread(migrate, url)
        return cls(_engine(url))

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def workspace(self, workspace_id: str) -> workspace_service_pb2.Workspace:
        """Return a workspace with its settings; empty ones when they were never set."""
        workspace = workspace_service_pb2.Workspace(workspace_id=workspace_id)
        workspace.settings.SetInParent()
        query = sa.select(WORKSPACES).where(WORKSPACES.c.workspace_id == workspace_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row:
            workspace.settings.ParseFromString(row.settings)
            workspace.update_time.FromDatetime(row.update_time)
        return workspace

    async def set_workspace(self, workspace_id: str, settings: workspace_service_pb2.WorkspaceSettings) -> None:
        """Keep a workspace's settings instead of those it had."""
        values = {"settings": settings.SerializeToString(), "update_time": _now()}
        update = sa.update(WORKSPACES).where(WORKSPACES.c.workspace_id == workspace_id).values(values)
        async with self._engine.begin() as connection:
            if not (await connection.execute(update)).rowcount:
                await connection.execute(sa.insert(WORKSPACES).values(workspace_id=workspace_id, **values))

    async def provider_of_session(self, workspace_id: str, session_id: str) -> str:
        """Return the provider that has a session; empty when there is no such session."""
        query = sa.select(SESSIONS.c.provider_id).where(
            SESSIONS.c.workspace_id == workspace_id, SESSIONS.c.session_id == session_id
        )
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).scalar_one_or_none() or ""

    async def add_session(self, workspace_id: str, session_id: str, provider_id: str) -> None:
        """Keep which provider has a session."""
        values = {"workspace_id": workspace_id, "session_id": session_id, "provider_id": provider_id}
        async with self._engine.begin() as connection:
            await connection.execute(sa.insert(SESSIONS).values(create_time=_now(), **values))

    async def forget_session(self, workspace_id: str, session_id: str) -> None:
        """Forget a session and its turns."""
        async with self._engine.begin() as connection:
            for table in (TURNS, SESSIONS):
                mine = (table.c.workspace_id == workspace_id, table.c.session_id == session_id)
                await connection.execute(sa.delete(table).where(*mine))

    async def turn(self, workspace_id: str, turn_id: str) -> TurnRow | None:
        """Return what is kept of a turn; None when it is not known."""
        query = sa.select(TURNS).where(TURNS.c.workspace_id == workspace_id, TURNS.c.turn_id == turn_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return TurnRow(
            workspace_id=workspace_id, turn_id=turn_id, session_id=row.session_id, provider_id=row.provider_id
        )

    async def add_turn(self, turn: TurnRow, *, opens_session: bool) -> bool:
        """Keep which provider has a turn, and its session when it opens one; return False when it is kept already."""
        created = _now()
        session = {"workspace_id": turn.workspace_id, "session_id": turn.session_id, "provider_id": turn.provider_id}
        try:
            async with self._engine.begin() as connection:
                await connection.execute(sa.insert(TURNS).values(turn_id=turn.turn_id, create_time=created, **session))
                if opens_session:
                    await connection.execute(sa.insert(SESSIONS).values(create_time=created, **session))
        except sa.exc.IntegrityError:
            return False
        return True

    async def forget_turn(self, turn: TurnRow, *, opens_session: bool) -> None:
        """Forget a turn that was refused, and the session it would have opened."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(TURNS).where(*_is(TURNS, turn, "turn_id")))
            if opens_session:
                await connection.execute(sa.delete(SESSIONS).where(*_is(SESSIONS, turn, "session_id")))


def migrate(url: str, revision: str = "head") -> None:
    """Bring the tables of a store to a revision; downwards when it lies below the present one."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with _connected(url) as connection:
        config.attributes["connection"] = connection
        if revision == "base":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def _engine(url: str) -> AsyncEngine:
    """Return the connections to a store. SQLite gets a single one: several would only wait for each other's locks."""
    if sa.make_url(url).get_backend_name() != "sqlite":
        return create_async_engine(url)
    engine = create_async_engine(url, pool_size=1, max_overflow=0)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def outlive_the_process(connection: Any, _record: object) -> None:  # A loss of power may cost the newest turns.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    return engine


@contextmanager
def _connected(url: str) -> Iterator[sa.Connection]:
    """Connect without asyncio, as migrations need it."""
    engine = sa.create_engine(sa.make_url(url).set(drivername=sa.make_url(url).get_backend_name()))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _is(table: sa.Table, turn: TurnRow, name: str) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions for a turn's row in a table."""
    yield table.c.workspace_id == turn.workspace_id
    yield table.c[name] == getattr(turn, name)


def _now() -> datetime:
    return datetime.now(UTC)
