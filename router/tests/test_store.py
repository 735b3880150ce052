"""The store: its migrations make exactly the tables the code uses, and take them away again."""

from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from alive.agent.v1 import workspace_service_pb2
from alive_router.store import METADATA, Store, TurnRow, migrate


def url(path: Path) -> str:
    """Return the URL of a store in a directory."""
    return f"sqlite+aiosqlite:///{path}/router.db"


def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    """Neither more nor less."""
    migrate(url(tmp_path))
    engine = sa.create_engine(f"sqlite:///{tmp_path}/router.db")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
    engine.dispose()

    assert differences == []


def test_the_migrations_go_down_and_up_again(tmp_path: Path) -> None:
    """Nothing but Alembic's own table is left below."""
    migrate(url(tmp_path))
    migrate(url(tmp_path), "base")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/router.db")
    tables = sa.inspect(engine).get_table_names()
    engine.dispose()
    migrate(url(tmp_path))

    assert tables == ["alembic_version"]


async def test_a_turn_is_kept_once_and_forgotten_with_its_session(tmp_path: Path) -> None:
    """As when a provider refuses it."""
    store = await Store.open(url(tmp_path))
    turn = TurnRow(workspace_id="demo", turn_id="t", session_id="s", provider_id="red")
    first = await store.add_turn(turn, opens_session=True)
    second = await store.add_turn(turn, opens_session=True)
    kept = await store.turn("demo", "t"), await store.provider_of_session("demo", "s")
    await store.forget_turn(turn, opens_session=True)
    gone = await store.turn("demo", "t"), await store.provider_of_session("demo", "s")
    await store.close()

    assert (first, second) == (True, False)
    assert kept == (turn, "red")
    assert gone == (None, "")


async def test_the_turns_of_a_session_keep_their_order_and_who_had_them(tmp_path: Path) -> None:
    """Also when another provider takes one; a fork has them too, and keeps them when the original is gone."""
    store = await Store.open(url(tmp_path))
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
    await store.close()

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


def test_a_store_of_before_keeps_the_order_of_its_turns(tmp_path: Path) -> None:
    """The migration puts them in order, session by session."""
    migrate(url(tmp_path), "0001")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/router.db")
    with engine.begin() as connection:
        for table, ids in (("sessions", "'s'"), ("turns", "'t2', 's'"), ("turns", "'t1', 's'"), ("turns", "'t0', 'x'")):
            names = "session_id" if table == "sessions" else "turn_id, session_id"
            time = f"2026-01-01 00:00:0{ids[2]}" if table == "turns" else "2026-01-01 00:00:00"
            connection.execute(
                sa.text(
                    f"INSERT INTO {table} (workspace_id, {names}, provider_id, create_time) "
                    f"VALUES ('demo', {ids}, 'red', '{time}')"
                )
            )
    migrate(url(tmp_path))
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT turn_id, number, told FROM session_turns ORDER BY number")).all()
    engine.dispose()

    assert [tuple(row) for row in rows] == [("t1", 1, 0), ("t2", 2, 1)]


async def test_settings_are_kept_as_they_were_given(tmp_path: Path) -> None:
    """Over a restart of the store; a workspace without settings has none."""
    settings = workspace_service_pb2.WorkspaceSettings(provider_id="red", project_instructions=False)
    store = await Store.open(url(tmp_path))
    await store.set_workspace("demo", settings)
    await store.close()
    again = await Store.open(url(tmp_path))
    kept, other = await again.workspace("demo"), await again.workspace("other")
    await again.close()

    assert kept.settings == settings
    assert kept.HasField("update_time")
    assert other.settings == workspace_service_pb2.WorkspaceSettings()
    assert not other.HasField("update_time")
