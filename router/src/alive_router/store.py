"""Keeps what the router knows: settings of workspaces, and which provider has a session or a turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from alive.agent.v1 import workspace_service_pb2
from alive_router.database import Database, insert_missing
from alive_router.tables import SESSIONS, TURNS, WORKSPACES

Settings = workspace_service_pb2.WorkspaceSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """Which provider has a turn."""

    workspace_id: str
    turn_id: str
    session_id: str
    provider_id: str
    owner_id: str = ""
    """On whose behalf; empty where callers have no identity."""


class Store:
    """The router's memory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def workspace(self, workspace_id: str) -> workspace_service_pb2.Workspace:
        """Return a workspace with its settings; empty ones when they were never set."""
        workspace = workspace_service_pb2.Workspace(workspace_id=workspace_id)
        workspace.settings.SetInParent()
        query = sa.select(WORKSPACES).where(WORKSPACES.c.workspace_id == workspace_id)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
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
            new = insert_missing(connection, WORKSPACES).values(
                workspace_id=workspace_id, settings=b"", update_time=_now()
            )
            await connection.execute(new)  # From here on the row is this transaction's.
            query = sa.select(WORKSPACES.c.settings).where(is_it).with_for_update()
            settings = Settings.FromString((await connection.execute(query)).scalar_one())
            values = {"settings": change(settings).SerializeToString(), "update_time": _now()}
            await connection.execute(sa.update(WORKSPACES).where(is_it).values(values))
        return await self.workspace(workspace_id)

    async def provider_of_session(self, workspace_id: str, session_id: str) -> str:
        """Return the provider that has a session; empty when there is no such session."""
        query = sa.select(SESSIONS.c.provider_id).where(
            SESSIONS.c.workspace_id == workspace_id, SESSIONS.c.session_id == session_id
        )
        async with self._database.reading() as connection:
            return (await connection.execute(query)).scalar_one_or_none() or ""

    async def add_session(self, workspace_id: str, session_id: str, provider_id: str) -> None:
        """Keep which provider has a session."""
        values = {"workspace_id": workspace_id, "session_id": session_id, "provider_id": provider_id}
        async with self._database.writing() as connection:
            await connection.execute(sa.insert(SESSIONS).values(create_time=_now(), **values))

    async def forget_session(self, workspace_id: str, session_id: str) -> None:
        """Forget a session and its turns."""
        async with self._database.writing() as connection:
            for table in (TURNS, SESSIONS):
                mine = (table.c.workspace_id == workspace_id, table.c.session_id == session_id)
                await connection.execute(sa.delete(table).where(*mine))

    async def turn(self, workspace_id: str, turn_id: str) -> TurnRow | None:
        """Return what is kept of a turn; None when it is not known."""
        query = sa.select(TURNS).where(TURNS.c.workspace_id == workspace_id, TURNS.c.turn_id == turn_id)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return TurnRow(
            workspace_id=workspace_id,
            turn_id=turn_id,
            session_id=row.session_id,
            provider_id=row.provider_id,
            owner_id=row.owner_id,
        )

    async def add_turn(self, turn: TurnRow, *, opens_session: bool) -> bool:
        """Keep which provider has a turn, and its session when it opens one; return False when it is kept already."""
        created = _now()
        session = {"workspace_id": turn.workspace_id, "session_id": turn.session_id, "provider_id": turn.provider_id}
        try:
            async with self._database.writing() as connection:
                values = {"turn_id": turn.turn_id, "create_time": created, "owner_id": turn.owner_id, **session}
                await connection.execute(sa.insert(TURNS).values(values))
                if opens_session:
                    await connection.execute(sa.insert(SESSIONS).values(create_time=created, **session))
        except sa.exc.IntegrityError:
            return False
        return True

    async def forget_turn(self, turn: TurnRow, *, opens_session: bool) -> None:
        """Forget a turn that was refused, and the session it would have opened."""
        async with self._database.writing() as connection:
            await connection.execute(sa.delete(TURNS).where(*_is(TURNS, turn, "turn_id")))
            if opens_session:
                await connection.execute(sa.delete(SESSIONS).where(*_is(SESSIONS, turn, "session_id")))

    async def forget_older(self, before: datetime) -> None:
        """Forget the turns that began before a time. Sessions stay."""
        async with self._database.writing() as connection:
            await connection.execute(sa.delete(TURNS).where(TURNS.c.create_time < before))


def _is(table: sa.Table, turn: TurnRow, name: str) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions for a turn's row in a table."""
    yield table.c.workspace_id == turn.workspace_id
    yield table.c[name] == getattr(turn, name)


def _now() -> datetime:
    return datetime.now(UTC)
