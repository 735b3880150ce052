"""Holds workspaces to what they may use in a day or a month."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from alive.agent.v1 import event_pb2, workspace_service_pb2
from alive_kit.errors import QuotaExhausted

Limits = workspace_service_pb2.UsageLimits

_NANO_IN_MICRO = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a workspace has used, all providers together."""

    tokens: int
    nano_usd: int


class Books(Protocol):
    """Where it is booked what workspaces use."""

    async def spent(self, workspace_id: str, since: datetime) -> Spent:
        """Return what a workspace has used since a time."""


class Quota:
    """The limits of workspaces, over what is booked."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def check(self, workspace_id: str, limits: Limits) -> list[event_pb2.Notice]:
        """Return what a new turn of a workspace is to be told.

        Raises:
            QuotaExhausted: it may not begin before the next period.
        """
        if not any(name != "period" for name in (field.name for field, _ in limits.ListFields())):
            return []
        now = datetime.now(UTC)
        name, start, end = period(limits, now)
        spent = await self._books.spent(workspace_id, start)
        if used := above(spent, limits, "hard"):
            raise QuotaExhausted(workspace_id, used, name, end - now)
        if used := above(spent, limits, "soft"):
            message = f"The workspace has used {used} this {name}: more than its soft limit."
            severity = event_pb2.SEVERITY_WARNING
            return [event_pb2.Notice(severity=severity, code="usage_soft_limit", message=message)]
        return []


def period(limits: Limits, now: datetime) -> tuple[str, datetime, datetime]:
    """Return the name of the period, when the present one began, and when the next one will."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if limits.period == workspace_service_pb2.USAGE_PERIOD_DAY:
        return "day", midnight, midnight + timedelta(days=1)
    first = midnight.replace(day=1)
    return "month", first, (first + timedelta(days=31)).replace(day=1)


def above(spent: Spent, limits: Limits, kind: str) -> str:
    """Return, in words, what has reached a hard or a soft limit; empty when nothing has."""
    tokens, micro_usd = getattr(limits, f"{kind}_tokens"), getattr(limits, f"{kind}_micro_usd")
    if tokens and spent.tokens >= tokens:
        return f"{spent.tokens} tokens"
    if micro_usd and spent.nano_usd >= micro_usd * _NANO_IN_MICRO:
        return f"{spent.nano_usd / 1e9:.2f} US dollars"
    return ""
