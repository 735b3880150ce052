"""Books what turns used, each attempt once, and sums it up."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from alive.agent.v1 import outcome_service_pb2, usage_pb2, workspace_service_pb2
from alive_router.database import Database, insert_missing
from alive_router.quota import Spent
from alive_router.tables import CURSORS, OUTCOMES, TURNS, USAGE

MOST_ROWS = 10_000
"""Rows of usage that one answer has at most."""

_COUNTS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "model_requests",
)
_SUMMED = (*_COUNTS, "nano_usd")
_MODEL_CHARACTERS = 128


class Ledger:
    """The books."""

    def __init__(self, database: Database, *, keep: timedelta) -> None:
        self._database = database
        self._keep = keep

    async def cursor(self, provider_id: str) -> str:
        """Return the cursor of the last outcome of a provider that is booked; empty when there is none."""
        query = sa.select(CURSORS.c.cursor).where(CURSORS.c.provider_id == provider_id)
        async with self._database.reading() as connection:
            return (await connection.execute(query)).scalar_one_or_none() or ""

    async def forget_cursor(self, provider_id: str) -> None:
        """Have everything be read again that a provider keeps; what is booked is not booked twice."""
        async with self._database.writing() as connection:
            await connection.execute(sa.delete(CURSORS).where(CURSORS.c.provider_id == provider_id))

    async def book(self, provider_id: str, outcomes: Iterable[outcome_service_pb2.Outcome]) -> None:
        """Book a provider's outcomes, those that are not booked yet, and take note of the last one's cursor."""
        cursor, oldest = "", datetime.now(UTC) - self._keep
        async with self._database.writing() as connection:
            for outcome in outcomes:
                cursor = outcome.cursor
                if _time(outcome) >= oldest:  # What is older has been booked, and is forgotten.
                    await _book(connection, provider_id, outcome)
            await connection.execute(
                insert_missing(connection.dialect.name, CURSORS).values(provider_id=provider_id, cursor=cursor)
            )
            advance = sa.update(CURSORS).where(CURSORS.c.provider_id == provider_id).values(cursor=cursor)
            await connection.execute(advance)

    async def rows(self, *conditions: sa.ColumnElement[bool]) -> list[workspace_service_pb2.UsageRow]:
        """Return the sums of what fulfils some conditions, at most one more than `MOST_ROWS`."""
        named = (USAGE.c.day, USAGE.c.workspace_id, USAGE.c.owner_id, USAGE.c.provider_id, USAGE.c.model)
        used = sa.func.coalesce(USAGE.c.input_tokens, 0) + sa.func.coalesce(USAGE.c.output_tokens, 0) > 0
        unpriced = sa.case((sa.and_(USAGE.c.nano_usd.is_(None), used), USAGE.c.turns), else_=0)
        query = (
            sa.select(
                *named,
                sa.func.sum(USAGE.c.turns).label("turns"),
                sa.func.sum(unpriced).label("unpriced_turns"),
                *(sa.func.sum(USAGE.c[name]).label(name) for name in _SUMMED),
                sa.func.max(USAGE.c.price_date).label("price_date"),
            )
            .where(*conditions)
            .group_by(*named)
            .order_by(*named)
            .limit(MOST_ROWS + 1)
        )
        async with self._database.reading(much=True) as connection:
            return [_usage_row(row) for row in (await connection.execute(query)).mappings()]

    async def spent(self, workspace_id: str, since: datetime) -> Spent:
        """Return what a workspace has used since a time."""
        counted = (USAGE.c.input_tokens, USAGE.c.output_tokens, USAGE.c.nano_usd)
        sums = [sa.func.coalesce(sa.func.sum(column), 0) for column in counted]
        query = sa.select(*sums).where(USAGE.c.workspace_id == workspace_id, USAGE.c.end_time >= since)
        async with self._database.reading(much=True) as connection:
            taken, given, nano_usd = (await connection.execute(query)).one()
        return Spent(tokens=int(taken + given), nano_usd=int(nano_usd))

    async def forget_older(self) -> None:
        """Forget what was used longer ago than is kept."""
        oldest = datetime.now(UTC) - self._keep
        async with self._database.writing(much=True) as connection:
            for table in (USAGE, OUTCOMES):
                await connection.execute(sa.delete(table).where(table.c.end_time < oldest))


def conditions(
    request: workspace_service_pb2.GetUsageRequest, workspaces: Iterable[str]
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield what rows fulfil that are asked for; of workspaces by id, or by the beginning of ids before a ``*``."""
    for name in ("workspace_id", "owner_id", "provider_id", "model"):
        if value := getattr(request, name):
            yield USAGE.c[name] == value
    if request.HasField("start_time"):
        yield USAGE.c.day >= f"{request.start_time.ToDatetime():%Y-%m-%d}"
    if request.HasField("end_time"):
        yield USAGE.c.end_time < request.end_time.ToDatetime(tzinfo=UTC)
    mine = (
        USAGE.c.workspace_id.startswith(pattern[:-1], autoescape=True)
        if pattern.endswith("*")
        else USAGE.c.workspace_id == pattern
        for pattern in workspaces
    )
    yield sa.or_(sa.false(), *mine)


async def _book(connection: Any, provider_id: str, outcome: outcome_service_pb2.Outcome) -> None:
    """Book an outcome unless it is booked."""
    turn = {"workspace_id": outcome.workspace_id, "turn_id": outcome.turn_id}
    attempt = {
        **turn,
        "provider_id": provider_id,
        "attempt": outcome.attempt,
        "start_time": outcome.start_time.ToDatetime(tzinfo=UTC),
    }
    new = insert_missing(connection.dialect.name, OUTCOMES).values(
        **attempt,
        terminal=outcome.terminal,
        reason=outcome.reason,
        end_time=_time(outcome),
    )
    if not (await connection.execute(new)).rowcount:
        return
    await connection.execute(sa.insert(USAGE), [{**attempt, **row} for row in _rows(outcome)])
    if outcome.terminal != outcome_service_pb2.TERMINAL_DECLINED:
        mine = (TURNS.c.workspace_id == outcome.workspace_id, TURNS.c.turn_id == outcome.turn_id)
        await connection.execute(sa.update(TURNS).where(*mine).values(end_time=_time(outcome)))


def _rows(outcome: outcome_service_pb2.Outcome) -> Iterator[dict[str, Any]]:
    """Yield what each model used. The sum of all of them is the outcome's usage."""
    parts = {part.model[:_MODEL_CHARACTERS]: _counts(part.usage) for part in outcome.usage.models}
    model = outcome.model[:_MODEL_CHARACTERS]
    main = model if model in parts or not parts else next(iter(parts))
    parts[main] = _rest(_counts(outcome.usage), parts, main)
    ended = _time(outcome)
    common = {"owner_id": outcome.owner_id, "day": f"{ended:%Y-%m-%d}", "end_time": ended}
    turns = int(outcome.terminal != outcome_service_pb2.TERMINAL_DECLINED)
    price_date = outcome.usage.cost.price_date or None
    for name, counts in parts.items():
        yield {**common, "model": name, "turns": turns, "price_date": price_date, **counts}


def _rest(
    total: Mapping[str, int | None], parts: Mapping[str, Mapping[str, int | None]], main: str
) -> dict[str, int | None]:
    """Return the main model's part: what the others did not use. What has no total stays as the part itself says."""
    own = parts.get(main, {})
    others = [counts for name, counts in parts.items() if name != main]
    return {
        name: own.get(name) if value is None else max(0, value - sum(counts[name] or 0 for counts in others))
        for name, value in total.items()
    }


def _counts(usage: usage_pb2.Usage) -> dict[str, int | None]:
    counts = {name: getattr(usage, name) if usage.HasField(name) else None for name in _COUNTS}  # type: ignore[arg-type]
    counts["nano_usd"] = usage.cost.nano_usd if usage.HasField("cost") else None
    return counts


def _time(outcome: outcome_service_pb2.Outcome) -> datetime:
    return outcome.end_time.ToDatetime(tzinfo=UTC)


def _usage_row(row: sa.RowMapping) -> workspace_service_pb2.UsageRow:
    usage = usage_pb2.Usage()
    for name in _COUNTS:
        if row[name] is not None:
            setattr(usage, name, int(row[name]))
    if row["nano_usd"] is not None:
        usage.cost.nano_usd, usage.cost.price_date = int(row["nano_usd"]), row["price_date"] or ""
    return workspace_service_pb2.UsageRow(
        day=row["day"],
        workspace_id=row["workspace_id"],
        owner_id=row["owner_id"],
        provider_id=row["provider_id"],
        model=row["model"],
        turns=int(row["turns"]),
        unpriced_turns=int(row["unpriced_turns"]),
        usage=usage,
    )
