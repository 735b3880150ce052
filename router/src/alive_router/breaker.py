"""Keeps turns away from a provider that does not take them, and finds out when it does again.

A breaker opens after several failures in a row. Open, it lets one turn through after each back-off, to try: a success
closes it, a failure doubles the back-off. There is no clock in here but the one given.
"""

from collections.abc import Callable
from dataclasses import dataclass

FAILURES = 5
"""How many failures in a row open a breaker."""

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 10.0


@dataclass(slots=True, kw_only=True)
class Breaker:
    """Whether a provider is given turns."""

    clock: Callable[[], float]
    failures: int = 0
    """How many there were in a row."""
    backoff: float = 0.0
    """Seconds between two tries; 0 while it is closed."""
    due: float = 0.0
    """When the next turn may try."""

    def wait(self) -> float:
        """Return after how many seconds a turn may go through; 0 when it may now."""
        return max(self.due - self.clock(), 0.0) if self.backoff else 0.0

    def admit(self) -> bool:
        """Whether a turn may go through. Of an open breaker's each that may is a try: the next one has to wait."""
        if self.wait() > 0:
            return False
        self.due = self.clock() + self.backoff
        return True

    def succeeded(self) -> None:
        """Take note that the provider took a turn, or said what is wrong with it."""
        self.failures, self.backoff = 0, 0.0

    def failed(self) -> None:
        """Take note that the provider could not take a turn."""
        self.failures += 1
        if self.failures >= FAILURES:
            self.backoff = min(self.backoff * 2 or FIRST_SECONDS, LONGEST_SECONDS)
            self.due = self.clock() + self.backoff
