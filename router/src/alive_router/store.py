"""Keeps what the router knows: settings of workspaces, and which provider has a session or a turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from alive.agent.v1 import workspace_service_pb2
from alive_router.database import Database, insert_missing
from alive_router.statements import Statement
from alive_router.tables import SESSION_TURNS, SESSIONS, TURNS, WORKSPACES

Settings = workspace_service_pb2.WorkspaceSettings

_OF_SESSION = [SESSION_TURNS.c[name] for name in ("turn_id", "number", "told", "chosen_provider_id", "provider_id")]
"""What a `SessionTurn` is made of."""

_WORKSPACE = Statement(
    lambda _: sa.select(WORKSPACES.c.settings, WORKSPACES.c.update_time).where(
        WORKSPACES.c.workspace_id == sa.bindparam("workspace")
    )
)
_SETTINGS = Statement(
    lambda _: sa.select(WORKSPACES.c.settings).where(WORKSPACES.c.workspace_id == sa.bindparam("workspace"))
)
_TURN = Statement(
    lambda _: sa.select(TURNS.c.session_id, TURNS.c.provider_id, TURNS.c.owner_id, TURNS.c.create_time).where(
        TURNS.c.workspace_id == sa.bindparam("workspace"), TURNS.c.turn_id == sa.bindparam("turn")
    )
)
_SESSION = Statement(
    lambda _: sa.select(SESSIONS.c.provider_id).where(
        SESSIONS.c.workspace_id == sa.bindparam("workspace"), SESSIONS.c.session_id == sa.bindparam("session")
    )
)
_TURNS_OF_SESSION = Statement(lambda _: _turns_of_session().order_by(SESSION_TURNS.c.number, SESSION_TURNS.c.turn_id))
_LATEST_OF_SESSION = Statement(
    lambda _: _turns_of_session().order_by(SESSION_TURNS.c.number.desc(), SESSION_TURNS.c.turn_id.desc()).limit(1)
)
_TURN_COLUMNS = ("workspace_id", "turn_id", "session_id", "provider_id", "create_time", "owner_id")
_NEW_TURN = Statement(lambda _: _new(TURNS, *_TURN_COLUMNS))
_NEW_SESSION = Statement(lambda _: _new(SESSIONS, "workspace_id", "session_id", "provider_id", "create_time"))


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


@dataclass(frozen=True, slots=True)
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
        for settings, update_time in await self._database.read(_WORKSPACE, workspace=workspace_id):
            workspace.settings.ParseFromString(settings)
            workspace.update_time.FromDatetime(update_time)
        return workspace

    async def settings(self, workspace_id: str) -> Settings:
        """Return a workspace's settings; empty ones when they were never set."""
        found = await self._database.read(_SETTINGS, workspace=workspace_id)
        return Settings.FromString(found[0][0]) if found else Settings()

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
        found = await self._database.read(_SESSION, workspace=workspace_id, session=session_id)
        return str(found[0][0]) if found else ""

    async def turns_of_session(self, workspace_id: str, session_id: str) -> list[SessionTurn]:
        """Return the turns of a session, oldest first."""
        found = await self._database.read(_TURNS_OF_SESSION, workspace=workspace_id, session=session_id)
        return [SessionTurn(*row) for row in found]

    async def latest_turn(self, workspace_id: str, session_id: str) -> SessionTurn | None:
        """Return the latest turn of a session; None when it has none."""
        found = await self._database.read(_LATEST_OF_SESSION, workspace=workspace_id, session=session_id)
        return SessionTurn(*found[0]) if found else None

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
        for session_id, provider_id, owner_id, create_time in await self._database.read(
            _TURN, workspace=workspace_id, turn=turn_id
        ):
            return TurnRow(
                workspace_id=workspace_id,
                turn_id=turn_id,
                session_id=session_id,
                provider_id=provider_id,
                owner_id=owner_id,
                create_time=create_time.replace(tzinfo=UTC),  # SQLite forgets that.
            )
        return None

    async def add_turn(self, turn: TurnRow, *, opens_session: bool, is_kept: bool = True) -> bool:
        """Keep which provider has a turn; return False when it is kept already.

        With it goes the session that it opens, and, unless nothing of it is kept, its place in its session.
        """
        values = {name: getattr(turn, name) for name in _TURN_COLUMNS}
        session = {name: values[name] for name in ("workspace_id", "session_id", "provider_id", "create_time")}
        changes = [(_NEW_TURN, values)]
        if opens_session:
            changes.append((_NEW_SESSION, session))
        if is_kept:
            changes.append((_NEXT_TURN, _in_session(turn)))
        return await self._database.write(*changes)

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


def _is(table: sa.Table, turn: TurnRow, name: str) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions for a turn's row in a table."""
    yield table.c.workspace_id == turn.workspace_id
    yield table.c[name] == getattr(turn, name)


def _of_session(table: sa.Table, workspace_id: str, session_id: str) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions for a session's rows in a table."""
    yield table.c.workspace_id == workspace_id
    yield table.c.session_id == session_id


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


_NEXT_TURN = Statement(_next_turn)


def _turns_of_session() -> "sa.Select[Any]":
    return sa.select(*_OF_SESSION).where(
        SESSION_TURNS.c.workspace_id == sa.bindparam("workspace"),
        SESSION_TURNS.c.session_id == sa.bindparam("session"),
    )


def _new(table: sa.Table, *names: str) -> sa.Insert:
    return sa.insert(table).values({name: sa.bindparam(name, type_=table.c[name].type) for name in names})


def _in_session(turn: TurnRow) -> dict[str, str]:
    """Return the parameters of `_next_turn`."""
    return {f"the_{name}": getattr(turn, name) for name in ("workspace_id", "session_id", "turn_id", "provider_id")}


def _now() -> datetime:
    return datetime.now(UTC)
