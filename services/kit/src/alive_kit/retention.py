"""Forgets what has been kept long enough."""

import time
from dataclasses import dataclass, field

from alive_kit.journal import Journal
from alive_kit.outbox import Outbox

_INTERVAL_SECONDS = 3600.0
"""How often it is looked for what is too old."""


@dataclass(kw_only=True)
class Retention:
    """How long, and how much, a service keeps of turns that have ended. Transcripts of sessions stay."""

    journal: Journal
    outbox: Outbox
    seconds: float
    """How long the events of a turn are kept."""
    size: int
    """Bytes of the database above which the oldest turns are dropped."""
    outcome_seconds: float
    """How long outcomes are kept."""

    _due: float = field(default=0.0)

    def apply(self) -> None:
        """Drop what is too much, and from time to time what is too old."""
        self.journal.forget_beyond(self.size)
        if time.monotonic() >= self._due:
            self.journal.forget_older(self.seconds)
            self.outbox.forget_older(self.outcome_seconds)
            self._due = time.monotonic() + _INTERVAL_SECONDS
