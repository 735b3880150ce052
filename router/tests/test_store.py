"""The store, on each database: its migrations make exactly the tables the code uses, and take them away again."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from alive.agent.v1 import options_pb2, workspace_service_pb2
from alive_kit.errors import StoreUnavailable
from alive_kit.testing.postgres import Postgres
from alive_router.database import Database
from alive_router.store import Store, TurnRow
from alive_router.tables import METADATA

Settings = workspace_service_pb2.WorkspaceSettings

BOUND = 10


def differences(connection: sa.Connection) -> list[object]:
    """Return what is different between the tables and the code."""
    return list(compare_metadata(MigrationContext.configure(connection), METADATA))


def tables(connection: sa.Connection) -> list[str]:
    """Return the names of the tables."""
    return sa.inspect(connection).get_table_names()


async def migrated(url: str) -> Database:
    """Return a database whose tables are up to date."""
    database = Database(url)
    await database.migrate()
    return database


async def test_the_migrations_make_the_tables_of_the_code(url: str) -> None:
    """Neither more nor less."""
    database = await migrated(url)
    async with database.reading() as connection:
        found = await connection.run_sync(differences)
    await database.close()

    assert found == []


async def test_the_migrations_go_down_and_up_again(url: str) -> None:
    """Nothing but Alembic's own table is left below; twice up is once up."""
    database = await migrated(url)
    await database.migrate("base")
    async with database.reading() as connection:
        left = await connection.run_sync(tables)
    await database.migrate()
    await database.migrate()
    async with database.reading() as connection:
        found = await connection.run_sync(differences)
    await database.close()

    assert left == ["alembic_version"]
    assert found == []


async def test_routers_that_start_together_migrate_once(postgres: Postgres) -> None:
    """On one database, each with connections of its own."""
    databases = [Database(url) for url in [postgres.new_database()] for _ in range(4)]
    await asyncio.gather(*(database.migrate() for database in databases))
    async with databases[0].reading() as connection:
        found = await connection.run_sync(differences)
    await asyncio.gather(*(database.close() for database in databases))

    assert found == []


async def test_a_turn_is_kept_once_and_forgotten_with_its_session(url: str) -> None:
    """As when a provider refuses it."""
    database = await migrated(url)
    store = Store(database)
    turn = TurnRow(workspace_id="demo", turn_id="t", session_id="s", provider_id="red", owner_id="acme")
    added = await asyncio.gather(*(store.add_turn(turn, opens_session=True) for _ in range(8)))
    kept = await store.turn("demo", "t"), await store.provider_of_session("demo", "s")
    await store.forget_turn(turn, opens_session=True)
    gone = await store.turn("demo", "t"), await store.provider_of_session("demo", "s")
    await database.close()

    assert sorted(added) == [False] * 7 + [True]
    assert kept == (turn, "red")
    assert gone == (None, "")


async def test_the_turns_of_a_session_keep_their_order_and_who_had_them(url: str) -> None:
    """Also when another provider takes one; a fork has them too, and keeps them when the original is gone."""
    database = await migrated(url)
    store = Store(database)
    for turn_id, provider_id in (("t1", "red"), ("t2", "red"), ("t3", "blue")):
        turn = TurnRow(workspace_id="demo", turn_id=turn_id, session_id="s", provider_id=provider_id)
        await store.add_turn(turn, opens_session=turn_id == "t1")
    await store.move_turn(TurnRow(workspace_id="demo", turn_id="t2", session_id="s", provider_id="red"), "blue")
    await store.tell_later(turn, 1)
    turns = await store.turns_of_session("demo", "s")
    shared = await store.shared_sessions("demo")
    moved = await store.turn("demo", "t2")
    await store.fork_session("demo", "s", "f", "blue")
    await store.forget_session("demo", "s")
    forked = await store.turns_of_session("demo", "f")
    gone = await store.turns_of_session("demo", "s")
    await database.close()

    assert [(row.turn_id, row.number, row.told, row.chosen_provider_id, row.provider_id) for row in turns] == [
        ("t1", 1, 0, "red", "red"),
        ("t2", 2, 1, "red", "blue"),
        ("t3", 3, 1, "blue", "blue"),
    ]
    assert shared == {"s"}
    assert moved is not None
    assert moved.provider_id == "blue"
    assert forked == turns
    assert gone == []


async def test_a_store_of_before_keeps_the_order_of_its_turns(url: str) -> None:
    """The migration puts them in order, session by session."""
    database = Database(url)
    await database.migrate("0002")
    async with database.writing() as connection:
        for table, ids in (("sessions", "'s'"), ("turns", "'t2', 's'"), ("turns", "'t1', 's'"), ("turns", "'t0', 'x'")):
            names = "session_id" if table == "sessions" else "turn_id, session_id"
            time = f"2026-01-01 00:00:0{ids[2]}" if table == "turns" else "2026-01-01 00:00:00"
            await connection.execute(
                sa.text(
                    f"INSERT INTO {table} (workspace_id, {names}, provider_id, create_time) "
                    f"VALUES ('demo', {ids}, 'red', '{time}')"
                )
            )
    await database.migrate()
    async with database.reading() as connection:
        query = sa.text("SELECT turn_id, number, told FROM session_turns ORDER BY number")
        rows = (await connection.execute(query)).all()
    await database.close()

    assert [tuple(row) for row in rows] == [("t1", 1, 0), ("t2", 2, 1)]


async def test_settings_are_kept_as_they_were_given(url: str) -> None:
    """Over a restart of the store; a workspace without settings has none."""
    settings = Settings(provider_id="red", project_instructions=False)
    database = await migrated(url)
    await Store(database).change_workspace("demo", lambda _: settings)
    await database.close()
    again = await migrated(url)
    kept, other = await Store(again).workspace("demo"), await Store(again).workspace("other")
    await again.close()

    assert kept.settings == settings
    assert kept.HasField("update_time")
    assert other.settings == Settings()
    assert not other.HasField("update_time")


async def test_changes_at_the_same_time_do_not_undo_each_other(url: str) -> None:
    """Of two routers, forty of them; one that fails changes nothing."""
    databases = [await migrated(url), Database(url)]
    stores = [Store(database) for database in databases]

    def adding(number: int) -> object:
        def change(settings: Settings) -> Settings:
            settings.mcp_servers.add(name=f"server-{number}")
            return settings

        return change

    def failing(_: Settings) -> Settings:
        raise LookupError

    await asyncio.gather(*(stores[number % 2].change_workspace("demo", adding(number)) for number in range(40)))
    for workspace_id in ("demo", "new"):
        with pytest.raises(LookupError):
            await stores[0].change_workspace(workspace_id, failing)
    kept, new = await stores[1].workspace("demo"), await stores[1].workspace("new")
    await asyncio.gather(*(database.close() for database in databases))

    assert {server.name for server in kept.settings.mcp_servers} == {f"server-{number}" for number in range(40)}
    assert not new.HasField("update_time")


async def test_another_writer_holds_nobody_up_but_writers(tmp_path: Path) -> None:
    """SQLite has one at a time: while a backup or a second router writes, calls are read, and streams go on."""
    database = await migrated(f"sqlite+aiosqlite:///{tmp_path}/router.db")
    store = Store(database)
    with contextlib.closing(sqlite3.connect(tmp_path / "router.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        settings = Settings(provider_id="red")
        change = asyncio.create_task(store.change_workspace("demo", lambda _: settings))
        done, _ = await asyncio.wait({change}, timeout=0.05)
        meanwhile = await store.workspace("demo")
        other.execute("COMMIT")
    async with asyncio.timeout(BOUND):
        changed = await change
    await database.close()

    assert not done
    assert meanwhile.settings == Settings()
    assert changed.settings == settings


async def test_a_database_that_is_gone_is_unavailable_and_used_again(postgres: Postgres) -> None:
    """The server is ended under the router's connections; calls fail until it is back, and then do not."""
    database = await migrated(postgres.new_database())
    store = Store(database)
    await store.change_workspace("demo", lambda _: Settings(agent=options_pb2.AgentOptions(model="m")))
    postgres.stop()
    try:
        for call in (store.workspace("demo"), store.change_workspace("demo", lambda settings: settings)):
            with pytest.raises(StoreUnavailable):
                await call
    finally:
        postgres.start()
    kept = await store.workspace("demo")
    await database.close()

    assert kept.settings.agent.model == "m"


async def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    """A directory in its place; a server that is not there."""
    for url in (f"sqlite+aiosqlite:///{tmp_path}", f"postgresql+asyncpg://alive@/none?host={tmp_path}"):
        database = Database(url)
        with pytest.raises(StoreUnavailable):
            await database.migrate()
        await database.close()
