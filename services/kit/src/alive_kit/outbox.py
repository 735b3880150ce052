"""Keeps what became of each turn until the router has booked it, and long after.

A record is begun with its turn, and has what is known so far: a turn whose service dies is booked too, ephemeral ones
included, since they cost money. It gets its place, the cursor, when the turn ends. A cursor names the database beside
the place: one of another database is refused instead of read as a place in this one.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator

from alive.agent.v1 import error_pb2, event_pb2, outcome_service_pb2
from alive_kit.errors import CursorOutOfRange, InvalidField

BATCH = 100
"""Outcomes that one response carries at most."""

_CURSOR = re.compile(r"([0-9a-f]{16})-([0-9]{1,18})")


class Outbox:
    """The outcomes of a service's turns, in the order in which they ended."""

    def __init__(self, database: sqlite3.Connection, provider_id: str) -> None:
        self._database = database
        self._provider_id = provider_id
        self._epoch: str = database.execute("SELECT epoch FROM outbox").fetchone()[0]
        self._grown = asyncio.Event()
        self._closed = False

    def note(self, outcome: outcome_service_pb2.Outcome) -> None:
        """Keep what is known so far of a turn that runs."""
        values = (outcome.workspace_id, outcome.turn_id, outcome.SerializeToString())
        self._database.execute("INSERT OR REPLACE INTO begun VALUES (?, ?, ?)", values)

    def begun(self) -> list[outcome_service_pb2.Outcome]:
        """Return what is known of the turns that have not ended."""
        rows = self._database.execute("SELECT outcome FROM begun").fetchall()
        return [outcome_service_pb2.Outcome.FromString(row["outcome"]) for row in rows]

    def end(self, outcome: outcome_service_pb2.Outcome, terminal: event_pb2.Event) -> None:
        """Keep how a turn ended, for good."""
        complete(outcome, terminal)
        self._keep(outcome)

    def decline(self, outcome: outcome_service_pb2.Outcome, error: error_pb2.TurnError) -> None:
        """Keep that a turn was left to another provider."""
        outcome.terminal = outcome_service_pb2.TERMINAL_DECLINED
        outcome.reason = error.reason
        self._keep(outcome)

    def _keep(self, outcome: outcome_service_pb2.Outcome) -> None:
        outcome.provider_id = self._provider_id
        outcome.end_time.GetCurrentTime()
        key = (outcome.workspace_id, outcome.turn_id)
        self._database.execute("DELETE FROM begun WHERE workspace_id = ? AND turn_id = ?", key)
        values = (outcome.end_time.ToNanoseconds(), outcome.SerializeToString())
        self._database.execute("INSERT INTO outcomes (end_time, outcome) VALUES (?, ?)", values)
        self._grown.set()
        self._grown = asyncio.Event()

    def forget_older(self, seconds: float) -> None:
        """Drop the outcomes of turns that ended longer ago."""
        due = time.time_ns() - round(seconds * 1e9)
        self._database.execute("DELETE FROM outcomes WHERE end_time < ?", (due,))

    def close(self) -> None:
        """Let readers end once they have everything."""
        self._closed = True
        self._grown.set()

    async def follow(self, after_cursor: str) -> AsyncIterator[outcome_service_pb2.WatchOutcomesResponse]:
        """Yield the outcomes behind a cursor, from the oldest kept without one: what is kept, then live.

        Raises:
            InvalidField: it is no cursor.
            CursorOutOfRange: it lies outside what is kept.
        """
        number = self._number(after_cursor)
        while True:
            grown = self._grown
            response, number = self._read(number)
            if response.outcomes:
                yield response
            elif self._closed:
                return
            else:
                await grown.wait()

    def _read(self, number: int) -> tuple[outcome_service_pb2.WatchOutcomesResponse, int]:
        """Return one response of outcomes behind a number, and the last number in it."""
        response = outcome_service_pb2.WatchOutcomesResponse()
        query = "SELECT number, outcome FROM outcomes WHERE number > ? ORDER BY number LIMIT ?"
        for row in self._database.execute(query, (number, BATCH)).fetchall():
            outcome = response.outcomes.add()
            outcome.ParseFromString(row["outcome"])
            number = row["number"]
            outcome.cursor = f"{self._epoch}-{number}"
        return response, number

    def _number(self, cursor: str) -> int:
        """Return the number behind which to read."""
        if not cursor:
            return 0
        parts = _CURSOR.fullmatch(cursor)
        if parts is None:
            raise InvalidField({"after_cursor": "is not one that an outcome came with"})
        number = int(parts[2])
        last = self._database.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outcomes'")
        newest: int = last.fetchone()[0]
        oldest = self._database.execute("SELECT coalesce(min(number), ?) FROM outcomes", (newest + 1,)).fetchone()[0]
        if parts[1] != self._epoch or not oldest - 1 <= number <= newest:
            raise CursorOutOfRange(cursor)
        return number


def complete(outcome: outcome_service_pb2.Outcome, terminal: event_pb2.Event) -> None:
    """Write into an outcome what a terminal event says."""
    match terminal.WhichOneof("kind"):
        case "turn_completed":
            outcome.terminal = outcome_service_pb2.TERMINAL_COMPLETED
            outcome.usage.CopyFrom(terminal.turn_completed.usage)
        case "turn_interrupted":
            outcome.terminal = outcome_service_pb2.TERMINAL_INTERRUPTED
            outcome.usage.CopyFrom(terminal.turn_interrupted.usage)
        case _:
            outcome.terminal = outcome_service_pb2.TERMINAL_FAILED
            outcome.reason = terminal.turn_failed.error.reason or error_pb2.FAILURE_REASON_UNKNOWN
            outcome.usage.CopyFrom(terminal.turn_failed.usage)
