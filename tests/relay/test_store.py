"""What the router keeps of turns: as a whole, or not at all."""

import contextlib

import pytest

from alive_kit.errors import StoreUnavailable
from alive_router.store import TurnRow

from .conftest import System

SESSION = "x" * 100


def turn(turn_id: str, session_id: str) -> TurnRow:
    """Return a turn of provider ``red``."""
    return TurnRow(workspace_id="demo", turn_id=turn_id, session_id=session_id, provider_id="red")


async def test_a_turn_that_is_kept_already_changes_nothing(system: System) -> None:
    """Not even the session that it would have opened; the next one is kept."""
    store = system.router._store
    first = await store.add_turn(turn("t", "one"), opens_session=True)
    again = await store.add_turn(turn("t", "two"), opens_session=True)
    other = await store.add_turn(turn("u", "one"), opens_session=False)

    assert (first, again, other) == (True, False, True)
    assert await store.provider_of_session("demo", "two") == ""
    assert [one.turn_id for one in await store.turns_of_session("demo", "one")] == ["t", "u"]


async def test_a_store_without_room_keeps_nothing_and_goes_on(system: System, database: str) -> None:
    """Once there is room again."""
    if database:
        pytest.skip("only SQLite can be told that its disk is full")
    store = system.router._store
    driver = system.router._database._engine.driver
    driver.execute("PRAGMA max_page_count = 1")
    kept = 0
    with contextlib.suppress(StoreUnavailable):
        while await store.add_turn(turn(f"t{kept}", SESSION), opens_session=not kept):
            kept += 1
    with pytest.raises(StoreUnavailable):
        await store.add_turn(turn("full", SESSION), opens_session=False)
    driver.execute("PRAGMA max_page_count = 1000000")
    fits = await store.add_turn(turn("last", SESSION), opens_session=False)

    assert fits
    assert len(await store.turns_of_session("demo", SESSION)) == kept + 1
