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
