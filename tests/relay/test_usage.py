"""What turns used: booked once each, summed up, limited."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from alive.agent.v1 import error_pb2, event_pb2, outcome_service_pb2, usage_pb2, workspace_service_pb2
from alive_kit.failures import failure
from alive_kit.testing.fakes import answers, started, usage
from alive_router.database import Database
from alive_router.ledger import Ledger
from alive_router.quota import Spent, above, period
from alive_router.store import Store

from .conftest import System, beside, running
from .test_choice import refusal, update

BOUND = 20
Limits = workspace_service_pb2.UsageLimits
Settings = workspace_service_pb2.WorkspaceSettings
Usage = usage_pb2.Usage
Row = workspace_service_pb2.UsageRow


async def rows(system: System, *, until: int = 0, **fields: Any) -> list[Row]:
    """Ask for usage, again and again until so many turns are booked."""
    request = workspace_service_pb2.GetUsageRequest(**fields)
    async with asyncio.timeout(BOUND):
        while True:
            found = list((await system.workspaces.GetUsage(request)).rows)
            if sum(row.turns for row in found) >= until:
                return found
            await asyncio.sleep(0.02)


def used(usage: Usage) -> list[object]:
    """Return a script of an agent that says it used something."""
    return [started(), *answers("Hello.")[1:-1], event_pb2.Event(usage_updated=event_pb2.UsageUpdated(usage=usage))]


async def test_turns_are_counted_by_day_provider_and_model(system: System) -> None:
    """Those that failed before they started and those that leave no trace included."""
    system.providers["blue"].scripts["broken"] = [failure(1)]
    for _ in range(3):
        await system.caller.run("hello")
    await system.caller.run("hello", provider_id="blue", ephemeral=True)
    await system.caller.run("broken", provider_id="blue")
    found = await rows(system, until=5, workspace_id="demo")
    blue = await rows(system, workspace_id="demo", provider_id="blue", model="fake-1")
    today = f"{datetime.now(UTC):%Y-%m-%d}"

    assert [(row.day, row.workspace_id, row.provider_id, row.model, row.turns) for row in found] == [
        (today, "demo", "blue", "", 1),
        (today, "demo", "blue", "fake-1", 1),
        (today, "demo", "red", "fake-1", 3),
    ]
    assert found[2].usage == Usage(input_tokens=30, output_tokens=3, model_requests=3)
    assert found[0].usage == Usage()
    assert (found[0].unpriced_turns, found[2].unpriced_turns) == (0, 3)
    assert blue == [found[1]]


async def test_a_turn_that_was_taken_over_counts_once(system: System) -> None:
    """For the provider that took it, whose turn it then is; what the one that declined it used is booked too."""
    await update(system, Settings(failover={"provider_ids": ["blue"]}))
    refused = [started("fake-2"), usage(0, 0), failure(error_pb2.FAILURE_REASON_RATE_LIMIT)]
    system.providers["red"].scripts["go"] = refused
    await system.caller.run("go")
    await system.caller.run("hello", provider_id="red")
    found = await rows(system, until=2, workspace_id="demo")

    assert {(row.provider_id, row.model): (row.turns, row.usage.model_requests) for row in found} == {
        ("blue", "fake-1"): (1, 1),
        ("red", "fake-2"): (0, 1),
        ("red", "fake-1"): (1, 1),
    }


async def test_an_attempt_that_comes_again_is_booked_again(system: System, database: str) -> None:
    """A call whose every attempt was refused may come again under its id, and be taken then."""
    ended = Timestamp()
    ended.GetCurrentTime()
    outcomes = [
        outcome_service_pb2.Outcome(
            cursor=terminal.lower(),
            workspace_id="demo",
            turn_id="t",
            attempt=1,
            terminal=terminal,
            usage=Usage(input_tokens=1),
            start_time=Timestamp(seconds=ended.seconds - age),
            end_time=ended,
        )
        for age, terminal in ((2, "TERMINAL_DECLINED"), (1, "TERMINAL_COMPLETED"))
    ]
    own = Database(database or f"sqlite+aiosqlite:///{system.directory}/router.db")
    ledger = Ledger(own, keep=timedelta(days=1))
    await ledger.book("green", outcomes)
    await ledger.book("green", outcomes)
    found = await rows(system, provider_id="green")
    await own.close()

    assert [(row.turns, row.usage.input_tokens) for row in found] == [(1, 2)]


async def test_each_model_has_its_part_and_the_sum_is_the_turns(system: System) -> None:
    """What no model is said to have used is the main one's; a cost that is not known is absent."""
    side = usage_pb2.ModelUsage(model="small", usage=Usage(input_tokens=30, output_tokens=1))
    main = usage_pb2.ModelUsage(model="fake-1", usage=Usage(input_tokens=60, output_tokens=5))
    price = usage_pb2.Cost(nano_usd=1000, price_date="2026-11-01")
    side.usage.cost.nano_usd = 400
    total = Usage(input_tokens=100, output_tokens=6, cached_input_tokens=7, cost=price, models=[side, main])
    system.providers["red"].scripts["two"] = used(total)
    await system.caller.run("two")
    found = await rows(system, until=2, workspace_id="demo")

    assert [row.model for row in found] == ["fake-1", "small"]
    big, small = (row.usage for row in found)
    assert (big.input_tokens, big.output_tokens, big.cached_input_tokens, big.cost.nano_usd) == (70, 5, 7, 600)
    assert (small.input_tokens, small.output_tokens, small.cost.nano_usd) == (30, 1, 400)
    assert big.cost.price_date == "2026-11-01"
    assert not small.HasField("cached_input_tokens")


async def test_many_turns_at_once_are_booked_once_each(system: System) -> None:
    """A hundred on two providers, each call twice, with a second router on the same database."""
    async with beside(system) as other:
        calls = [
            each.caller.run("hello", turn_id=f"t{number}", provider_id="red" if number % 2 else "blue")
            for number in range(100)
            for each in (system, other)
        ]
        await asyncio.gather(*calls)
        found = await rows(system, until=100, workspace_id="demo")
        again = await rows(system, until=100, workspace_id="demo")

    assert {row.provider_id: row.turns for row in found} == {"red": 50, "blue": 50}
    assert sum(row.usage.input_tokens for row in found) == 1000
    assert again == found


async def test_what_is_read_again_is_not_booked_again(system: System, database: str) -> None:
    """By routers at the same time; and what is older than what is kept is not booked."""
    url = database or f"sqlite+aiosqlite:///{system.directory}/router.db"
    ended, old = Timestamp(), Timestamp()
    ended.GetCurrentTime()
    old.FromDatetime(datetime.now(UTC) - timedelta(days=3))
    outcomes = [
        outcome_service_pb2.Outcome(
            cursor=str(number),
            workspace_id="demo",
            turn_id=f"t{number}",
            attempt=1,
            terminal=outcome_service_pb2.TERMINAL_COMPLETED,
            usage=Usage(input_tokens=1),
            end_time=ended if number else old,
        )
        for number in range(50)
    ]
    databases = [Database(url) for _ in range(3)]
    ledgers = [Ledger(each, keep=timedelta(days=1)) for each in databases for _ in range(2)]
    await asyncio.gather(*(ledger.book("green", outcomes) for ledger in ledgers))
    found = await rows(system, provider_id="green")
    cursor = await ledgers[0].cursor("green")
    await asyncio.gather(*(each.close() for each in databases))

    assert [(row.turns, row.usage.input_tokens) for row in found] == [(49, 49)]
    assert cursor == "49"


async def test_a_provider_with_another_store_is_read_from_its_oldest(system: System, database: str) -> None:
    """Its cursor is refused, and nothing is booked twice."""
    await system.caller.run("hello")
    await rows(system, until=1, workspace_id="demo")
    other = Database(database or f"sqlite+aiosqlite:///{system.directory}/router.db")
    ledger = Ledger(other, keep=timedelta(days=1))
    lost = "0" * 16 + "-7"
    await ledger.book("red", [outcome_service_pb2.Outcome(cursor=lost)])  # Too old: the cursor alone is kept.
    async with beside(system), asyncio.timeout(BOUND):
        while (cursor := await ledger.cursor("red")) in {"", lost}:
            await asyncio.sleep(0.02)
    await other.close()
    await system.caller.run("hello")
    found = await rows(system, until=2, workspace_id="demo")

    assert cursor.endswith("-1")
    assert [row.turns for row in found] == [2]


async def test_a_soft_limit_is_said_and_a_hard_one_refuses(system: System) -> None:
    """Until the period is over; the turn that is running, and the same call again, are left alone."""
    await update(system, Settings(usage_limits=Limits(soft_tokens=11, hard_tokens=22)))
    first = await system.caller.run("hello", turn_id="first")
    await rows(system, until=1, workspace_id="demo")
    second = await system.caller.run("hello")
    await rows(system, until=2, workspace_id="demo")
    refused = await refusal(system.caller.run("hello"))
    repeated = await system.caller.run("hello", turn_id="first")
    other = system.caller.workspaces / "other"
    other.mkdir()
    elsewhere = await system.caller.run("hello", workspace_id="other")

    assert not [event for event in first if event.notice.code == "usage_soft_limit"]
    assert [event.notice.message for event in second if event.notice.code == "usage_soft_limit"]
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    delay = error_details_pb2.RetryInfo()
    status = status_pb2.Status.FromString(dict(refused.trailing_metadata() or ())["grpc-status-details-bin"])
    assert any(detail.Unpack(delay) for detail in status.details)
    assert 0 < delay.retry_delay.seconds <= 31 * 86_400
    assert b"QUOTA_EXHAUSTED" in status.SerializeToString()
    assert repeated == first
    assert elsewhere[-1].HasField("turn_completed")


def test_periods_end_at_midnight_or_with_the_month() -> None:
    """In UTC; December too."""
    now = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    new_year = datetime(2027, 1, 1, tzinfo=UTC)

    assert period(Limits(period="USAGE_PERIOD_DAY"), now) == ("day", datetime(2026, 12, 31, tzinfo=UTC), new_year)
    assert period(Limits(), now) == ("month", datetime(2026, 12, 1, tzinfo=UTC), new_year)


def test_money_is_limited_as_tokens_are() -> None:
    """In millionths of a dollar, over billionths."""
    limits = Limits(soft_micro_usd=5, hard_tokens=100)

    assert above(Spent(tokens=0, nano_usd=4_999), limits, "soft") == ""
    assert above(Spent(tokens=0, nano_usd=5_000), limits, "soft") == "0.00 US dollars"
    assert above(Spent(tokens=99, nano_usd=10**12), limits, "hard") == ""


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"workspace_id": "../x"}, "workspace_id"),
        ({"provider_id": "A"}, "provider_id"),
        ({"model": "a b"}, "model"),
        ({"start_time": Timestamp(seconds=-1)}, "start_time"),
        ({"end_time": Timestamp(seconds=1 << 50)}, "end_time"),
        ({"end_time": Timestamp(nanos=-5)}, "end_time"),
    ],
)
async def test_usage_that_is_asked_for_wrongly_is_refused(system: System, fields: dict[str, Any], field: str) -> None:
    """By the field's name; a workspace that does not exist is not found."""
    wrong = await refusal(rows(system, **fields))
    absent = await refusal(rows(system, workspace_id="absent"))

    assert wrong.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (wrong.details() or "")
    assert absent.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (Limits(hard_tokens=0), "settings.usage_limits.hard_tokens"),
        (Limits(soft_micro_usd=0), "settings.usage_limits.soft_micro_usd"),
        (Limits(period=9), "settings.usage_limits.period"),  # type: ignore[arg-type]
    ],
)
async def test_limits_that_are_wrong_change_nothing(system: System, limits: Limits, field: str) -> None:
    """The field is named."""
    wrong = await refusal(update(system, Settings(usage_limits=limits)))
    asked = workspace_service_pb2.GetWorkspaceRequest(workspace_id="demo")

    assert wrong.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (wrong.details() or "")
    assert not (await system.workspaces.GetWorkspace(asked)).workspace.HasField("update_time")


async def test_what_has_been_kept_long_enough_is_forgotten(database: str) -> None:
    """Which provider has a turn, and what was used; the next router looks when it starts."""
    async with running("red") as system:
        await system.caller.run("hello", turn_id="t")
        await rows(system, until=1)
        keep = {"turn_keep_seconds": 1e-6, "usage_keep_seconds": 1e-6, "state_dir": system.directory}
        async with running("blue", workspaces=system.caller.workspaces, **keep) as brief, asyncio.timeout(BOUND):
            while await rows(brief):
                await asyncio.sleep(0.02)
        store = Store(Database(database or f"sqlite+aiosqlite:///{system.directory}/router.db"))
        known = await store.turn("demo", "t")
        await store._database.close()
        watched = await system.caller.watch("t")

    assert known is None
    assert watched[-1].HasField("turn_completed")


async def test_a_database_that_is_gone_is_said(system: System, postgres: Any, database: str) -> None:
    """UNAVAILABLE with a reason of its own; turns and bookings go on once it is back."""
    if not database:
        pytest.skip("SQLite is not a server")
    await system.caller.run("hello")
    postgres.stop()
    try:
        refused = await refusal(system.caller.run("hello"))
    finally:
        postgres.start()
    await system.caller.run("hello")
    found = await rows(system, until=2, workspace_id="demo")

    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert b"STORE_UNAVAILABLE" in dict(refused.trailing_metadata() or ())["grpc-status-details-bin"]
    assert [row.turns for row in found] == [2]
