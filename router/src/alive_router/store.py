"""Keeps what the router knows: settings of workspaces, and which provider has a session or a turn."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from alive.agent.v1 import workspace_service_pb2
from alive_router.database import Database, insert_missing
from alive_router.tables import SESSION_TURNS, SESSIONS, TURNS, WORKSPACES

Settings = workspace_service_pb2.WorkspaceSettings

# Of every turn. Built once: SQLAlchemy takes longer to build a statement than SQLite to execute it.
_WORKSPACE = sa.select(WORKSPACES).where(WORKSPACES.c.workspace_id == sa.bindparam("workspace"))
_TURN = sa.select(TURNS).where(
    TURNS.c.workspace_id == sa.bindparam("workspace"), TURNS.c.turn_id == sa.bindparam("turn")
)
_SESSION = sa.select(SESSIONS.c.provider_id).where(
    SESSIONS.c.workspace_id == sa.bindparam("workspace"), SESSIONS.c.session_id == sa.bindparam("session")
)
_TURNS_OF_SESSION = (
    sa.select(SESSION_TURNS)
    .where(
        SESSION_TURNS.c.workspace_id == sa.bindparam("workspace"),
        SESSION_TURNS.c.session_id == sa.bindparam("session"),
    )
    .order_by(SESSION_TURNS.c.number, SESSION_TURNS.c.turn_id)
)
_LATEST_OF_SESSION = (
    _TURNS_OF_SESSION.order_by(None).order_by(SESSION_TURNS.c.number.desc(), SESSION_TURNS.c.turn_id.desc()).limit(1)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """Which provider has a turn."""

    workspace_id: str
    turn_id: str
    session_id: str
    provider_id: str
    owner_id: str = ""
    """On whose behalf; empty where callers have no identity."""
    create_time: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)
    """When it was written down."""

    @property
    def age(self) -> float:
        """Seconds since then."""
        return (datetime.now(UTC) - self.create_time).total_seconds()


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

    @property
    def knows_all(self) -> bool:
        """Whether its provider knows the session up to its end."""
        return self.told == self.number - 1


class Store:
    """The router's memory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def workspace(self, workspace_id: str) -> workspace_service_pb2.Workspace:
        """Return a workspace with its settings; empty ones when they were never set."""
        workspace = workspace_service_pb2.Workspace(workspace_id=workspace_id)
        workspace.settings.SetInParent()
        async with self._database.reading() as connection:
            row = (await connection.execute(_WORKSPACE, {"workspace": workspace_id})).one_or_none()
        if row:
            workspace.settings.ParseFromString(row.settings)
            workspace.update_time.FromDatetime(row.update_time)
        return workspace

    async def change_workspace(
        self, workspace_id: str, change: Callable[[Settings], Settings]
    ) -> workspace_service_pb2.Workspace:
        """Change a workspace's settings, and return it; what one change does no other one undoes."""
        is_it = WORKSPACES.c.workspace_id == workspace_id
        async with self._database.writing() as connection:
            new = insert_missing(connection.dialect.name, WORKSPACES).values(
                workspace_id=workspace_id, settings=b"", update_time=_now()
            )
            await connection.execute(new)  # From here on the row is this transaction's.
            query = sa.select(WORKSPACES.c.settings).where(is_it).with_for_update()
            settings = Settings.FromString((await connection.execute(query)).scalar_one())
            values = {"settings": change(settings).SerializeToString(), "update_time": _now()}
            await connection.execute(sa.update(WORKSPACES).where(is_it).values(values))
        return await self.workspace(workspace_id)

    async def provider_of_session(self, workspace_id: str, session_id: str) -> str:
        """Return the provider that a session was opened with; empty when there is no such session."""
        async with self._database.reading() as connection:
            found = await connection.execute(_SESSION, {"workspace": workspace_id, "session": session_id})
            return found.scalar_one_or_none() or ""

    async def turns_of_session(self, workspace_id: str, session_id: str) -> list[SessionTurn]:
        """Return the turns of a session, oldest first."""
        async with self._database.reading() as connection:
            found = await connection.execute(_TURNS_OF_SESSION, {"workspace": workspace_id, "session": session_id})
            return [_session_turn(row) for row in found]

    async def latest_turn(self, workspace_id: str, session_id: str) -> SessionTurn | None:
        """Return the latest turn of a session; None when it has none."""
        async with self._database.reading() as connection:
            found = await connection.execute(_LATEST_OF_SESSION, {"workspace": workspace_id, "session": session_id})
            row = found.one_or_none()
        return _session_turn(row) if row else None

    async def shared_sessions(self, workspace_id: str) -> set[str]:
        """Return the sessions of a workspace that several providers have had turns of."""
        turns = SESSION_TURNS.c
        query = (
            sa.select(turns.session_id)
            .where(turns.workspace_id == workspace_id)
            .group_by(turns.session_id)
            .having(sa.func.count(sa.distinct(turns.provider_id)) > 1)
        )
        async with self._database.reading(much=True) as connection:
            return set((await connection.execute(query)).scalars())

    async def fork_session(self, workspace_id: str, session_id: str, fork_id: str, provider_id: str) -> None:
        """Keep a fork: a session with the turns of another one."""
        values = {"workspace_id": workspace_id, "session_id": fork_id, "provider_id": provider_id}
        names = [column.name for column in SESSION_TURNS.columns]
        columns = [sa.literal(fork_id) if name == "session_id" else SESSION_TURNS.c[name] for name in names]
        copied = sa.select(*columns).where(*_of_session(SESSION_TURNS, workspace_id, session_id))
        async with self._database.writing() as connection:
            await connection.execute(sa.insert(SESSIONS).values(create_time=_now(), **values))
            await connection.execute(sa.insert(SESSION_TURNS).from_select(names, copied))

    async def forget_session(self, workspace_id: str, session_id: str) -> None:
        """Forget a session and its turns."""
        async with self._database.writing() as connection:
            for table in (TURNS, SESSION_TURNS, SESSIONS):
                await connection.execute(sa.delete(table).where(*_of_session(table, workspace_id, session_id)))

    async def turn(self, workspace_id: str, turn_id: str) -> TurnRow | None:
        """Return what is kept of a turn; None when it is not known."""
        async with self._database.reading() as connection:
            row = (await connection.execute(_TURN, {"workspace": workspace_id, "turn": turn_id})).one_or_none()
        if row is None:
            return None
        return TurnRow(
            workspace_id=workspace_id,
            turn_id=turn_id,
            session_id=row.session_id,
            provider_id=row.provider_id,
            owner_id=row.owner_id,
            create_time=row.create_time.replace(tzinfo=UTC),  # SQLite forgets that.
        )

    async def add_turn(self, turn: TurnRow, *, opens_session: bool, is_kept: bool = True) -> bool:
        """Keep which provider has a turn; return False when it is kept already.

        With it goes the session that it opens, and, unless nothing of it is kept, its place in its session.
        """
        created = turn.create_time
        session = {"workspace_id": turn.workspace_id, "session_id": turn.session_id, "provider_id": turn.provider_id}
        try:
            async with self._database.writing() as connection:
                values = {"turn_id": turn.turn_id, "create_time": created, "owner_id": turn.owner_id, **session}
                await connection.execute(sa.insert(TURNS), values)
                if opens_session:
                    await connection.execute(sa.insert(SESSIONS), {"create_time": created, **session})
                if is_kept:
                    await connection.execute(_next_turn(connection.dialect.name), _in_session(turn))
        except sa.exc.IntegrityError:
            return False
        return True

    async def move_turn(self, turn: TurnRow, provider_id: str) -> None:
        """Keep that another provider has a turn than the one chosen for it."""
        async with self._database.writing() as connection:
            for table in (TURNS, SESSION_TURNS):
                update = sa.update(table).where(*_is(table, turn, "turn_id"), table.c.session_id == turn.session_id)
                await connection.execute(update.values(provider_id=provider_id))

    async def tell_later(self, turn: TurnRow, told: int) -> None:
        """Keep that a turn's provider was not told of what lies between a turn of its session and this one."""
        update = sa.update(SESSION_TURNS).where(*_is(SESSION_TURNS, turn, "turn_id"))
        async with self._database.writing() as connection:
            await connection.execute(update.where(SESSION_TURNS.c.session_id == turn.session_id).values(told=told))

    async def forget_turn(self, turn: TurnRow, *, opens_session: bool) -> None:
        """Forget a turn that was refused, and the session it would have opened."""
        async with self._database.writing() as connection:
            for table in (TURNS, SESSION_TURNS):
                await connection.execute(sa.delete(table).where(*_is(table, turn, "turn_id")))
            if opens_session:
                await connection.execute(sa.delete(SESSIONS).where(*_is(SESSIONS, turn, "session_id")))

    async def forget_older(self, before: datetime) -> None:
        """Forget the turns that began before a time. Sessions stay."""
        async with self._database.writing(much=True) as connection:
            await connection.execute(sa.delete(TURNS).where(TURNS.c.create_time < before))


def _session_turn(row: "sa.Row[Any]") -> SessionTurn:
    return SessionTurn(
        turn_id=row.turn_id,
        number=row.number,
        told=row.told,
        chosen_provider_id=row.chosen_provider_id,
        provider_id=row.provider_id,
    )


def _is(table: sa.Table, turn: TurnRow, name: str) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions for a turn's row in a table."""
    yield table.c.workspace_id == turn.workspace_id
    yield table.c[name] == getattr(turn, name)


def _of_session(table: sa.Table, workspace_id: str, session_id: str) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions for a session's rows in a table."""
    yield table.c.workspace_id == workspace_id
    yield table.c.session_id == session_id


@functools.cache
def _next_turn(dialect: str) -> sa.Insert:
    """Return what puts a turn behind the others of its session."""
    of_session: dict[str, sa.BindParameter[str]] = {
        name: sa.bindparam(f"the_{name}") for name in ("workspace_id", "session_id")
    }
    latest = (
        sa.select(sa.func.coalesce(sa.func.max(SESSION_TURNS.c.number), 0))
        .where(*(SESSION_TURNS.c[name] == value for name, value in of_session.items()))
        .scalar_subquery()
    )
    provider_id: sa.BindParameter[str] = sa.bindparam("the_provider_id")
    return insert_missing(dialect, SESSION_TURNS).values(
        **of_session,
        turn_id=sa.bindparam("the_turn_id"),
        number=latest + 1,
        told=latest,
        chosen_provider_id=provider_id,
        provider_id=provider_id,
    )


def _in_session(turn: TurnRow) -> dict[str, str]:
    """Return the parameters of `_next_turn`."""
    return {f"the_{name}": getattr(turn, name) for name in ("workspace_id", "session_id", "turn_id", "provider_id")}


def _now() -> datetime:
    return datetime.now(UTC)
