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

SESSION_TURNS = sa.Table(
    "session_turns",
    METADATA,
    sa.Column("workspace_id", sa.String(63), primary_key=True),
    sa.Column("session_id", sa.String(128), primary_key=True),
    sa.Column("turn_id", sa.String(128), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("told", sa.Integer, nullable=False),
    sa.Column("chosen_provider_id", sa.String(63), nullable=False),
    sa.Column("provider_id", sa.String(63), nullable=False),
)
"""The turns of each session in order; a fork has those of its original up to where it was forked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """Which provider has a turn."""

    workspace_id: str
    turn_id: str
    session_id: str
    provider_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTurn:
    """A turn of a session, and who had it."""

    turn_id: str
    number: int
    """Its place in the session, from 1."""
    told: int
    """The number of the latest turn that its provider was told of, and of all before."""
    chosen_provider_id: str
    """Who was to take it; another one did where that one could not."""
    provider_id: str
    """Who took it, and has its items."""


class Store:
    """The router's memory."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, url: str) -> "Store":
        """Open a store and bring its tables up to date."""
        await asyncio.to_thread(migrate, url)
        return cls(create_async_engine(url))

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
        """Return the provider that a session was opened with; empty when there is no such session."""
        query = sa.select(SESSIONS.c.provider_id).where(*_of_session(SESSIONS, workspace_id, session_id))
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).scalar_one_or_none() or ""

    async def turns_of_session(self, workspace_id: str, session_id: str) -> list[SessionTurn]:
        """Return the turns of a session, oldest first."""
        query = (
            sa.select(SESSION_TURNS)
            .where(*_of_session(SESSION_TURNS, workspace_id, session_id))
            .order_by(SESSION_TURNS.c.number, SESSION_TURNS.c.turn_id)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [
            SessionTurn(
                turn_id=row.turn_id,
                number=row.number,
                told=row.told,
                chosen_provider_id=row.chosen_provider_id,
                provider_id=row.provider_id,
            )
            for row in rows
        ]

    async def shared_sessions(self, workspace_id: str) -> set[str]:
        """Return the sessions of a workspace that several providers have had turns of."""
        turns = SESSION_TURNS.c
        query = (
            sa.select(turns.session_id)
            .where(turns.workspace_id == workspace_id)
            .group_by(turns.session_id)
            .having(sa.func.count(sa.distinct(turns.provider_id)) > 1)
        )
        async with self._engine.connect() as connection:
            return set((await connection.execute(query)).scalars())

    async def fork_session(self, workspace_id: str, session_id: str, fork_id: str, provider_id: str) -> None:
        """Keep a fork: a session with the turns of another one."""
        values = {"workspace_id": workspace_id, "session_id": fork_id, "provider_id": provider_id}
        names = [column.name for column in SESSION_TURNS.columns]
        columns = [sa.literal(fork_id) if name == "session_id" else SESSION_TURNS.c[name] for name in names]
        copied = sa.select(*columns).where(*_of_session(SESSION_TURNS, workspace_id, session_id))
        async with self._engine.begin() as connection:
            await connection.execute(sa.insert(SESSIONS).values(create_time=_now(), **values))
            await connection.execute(sa.insert(SESSION_TURNS).from_select(names, copied))

    async def forget_session(self, workspace_id: str, session_id: str) -> None:
        """Forget a session and its turns."""
        async with self._engine.begin() as connection:
            for table in (TURNS, SESSION_TURNS, SESSIONS):
                await connection.execute(sa.delete(table).where(*_of_session(table, workspace_id, session_id)))

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

    async def add_turn(self, turn: TurnRow, *, opens_session: bool, is_kept: bool = True) -> bool:
        """Keep which provider has a turn; return False when it is kept already.

        With it goes the session that it opens, and, unless nothing of it is kept, its place in its session.
        """
        created = _now()
        session = {"workspace_id": turn.workspace_id, "session_id": turn.session_id, "provider_id": turn.provider_id}
        try:
            async with self._engine.begin() as connection:
                await connection.execute(sa.insert(TURNS).values(turn_id=turn.turn_id, create_time=created, **session))
                if opens_session:
                    await connection.execute(sa.insert(SESSIONS).values(create_time=created, **session))
                if is_kept:
                    await connection.execute(_next_turn(turn))
        except sa.exc.IntegrityError:
            return False
        return True

    async def move_turn(self, turn: TurnRow, provider_id: str) -> None:
        """Keep that another provider has a turn than the one chosen for it."""
        async with self._engine.begin() as connection:
            for table in (TURNS, SESSION_TURNS):
                update = sa.update(table).where(*_is(table, turn, "turn_id"), table.c.session_id == turn.session_id)
                await connection.execute(update.values(provider_id=provider_id))

    async def tell_later(self, turn: TurnRow, told: int) -> None:
        """Keep that a turn's provider was not told of what lies between a turn of its session and this one."""
        update = sa.update(SESSION_TURNS).where(*_is(SESSION_TURNS, turn, "turn_id"))
        async with self._engine.begin() as connection:
            await connection.execute(update.where(SESSION_TURNS.c.session_id == turn.session_id).values(told=told))

    async def forget_turn(self, turn: TurnRow, *, opens_session: bool) -> None:
        """Forget a turn that was refused, and the session it would have opened."""
        async with self._engine.begin() as connection:
            for table in (TURNS, SESSION_TURNS):
                await connection.execute(sa.delete(table).where(*_is(table, turn, "turn_id")))
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


def _of_session(table: sa.Table, workspace_id: str, session_id: str) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions for a session's rows in a table."""
    yield table.c.workspace_id == workspace_id
    yield table.c.session_id == session_id


def _next_turn(turn: TurnRow) -> sa.Insert:
    """Return what puts a turn behind the others of its session."""
    latest = (
        sa.select(sa.func.coalesce(sa.func.max(SESSION_TURNS.c.number), 0))
        .where(*_of_session(SESSION_TURNS, turn.workspace_id, turn.session_id))
        .scalar_subquery()
    )
    return sa.insert(SESSION_TURNS).values(
        workspace_id=turn.workspace_id,
        session_id=turn.session_id,
        turn_id=turn.turn_id,
        number=latest + 1,
        told=latest,
        chosen_provider_id=turn.provider_id,
        provider_id=turn.provider_id,
    )


def _now() -> datetime:
    return datetime.now(UTC)
