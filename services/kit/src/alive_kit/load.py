"""Knows how busy the host is, and refuses turns before it breaks down."""

import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from alive_kit.errors import AdmissionRefused

_LOOK_SECONDS = 2.0
"""How old what is known may be."""

_RETRY = timedelta(seconds=10)

_PID_SHARE = 0.85
_PID_HEADROOM = 64
"""From which share of the control group's processes on, or with how few left, no agent is started."""


@dataclass(slots=True, kw_only=True)
class Load:
    """The load of the host, as far as it keeps turns out."""

    busy: float
    """Load average for each CPU above which background turns are refused."""
    overloaded: float
    """Load average for each CPU above which every turn is refused but the first of a workspace."""
    cgroup: Path = Path("/sys/fs/cgroup")

    _due: float = 0.0
    _average: float = 0.0
    _pids: tuple[int, int] | None = field(default=None)

    def check(self, *, is_background: bool, is_first: bool) -> None:
        """Refuse a turn for which the host has too much to do; the first of its workspace only without processes.

        Raises:
            AdmissionRefused: with the time after which to come again.
        """
        self._look()
        if self._pids and (
            self._pids[0] >= _PID_SHARE * self._pids[1] or self._pids[1] - self._pids[0] <= _PID_HEADROOM
        ):
            self._refuse(f"{self._pids[0]} of {self._pids[1]} processes are there")
        if is_first:
            return
        if self._average > self.overloaded:
            self._refuse("the host has too much to do")
        if is_background and self._average > self.busy:
            self._refuse("the host has too much to do for turns that nobody waits for")

    def _refuse(self, why: str) -> None:
        raise AdmissionRefused(why, scope="host", retry_after=_RETRY)

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _LOOK_SECONDS
            self._average = os.getloadavg()[0] / (os.cpu_count() or 1)
            self._pids = self._read_pids()

    def _read_pids(self) -> tuple[int, int] | None:
        """Return how many processes there are and how many there may be; None without a limit."""
        try:
            return int((self.cgroup / "pids.current").read_text()), int((self.cgroup / "pids.max").read_text())
        except (OSError, ValueError):  # No control group of its own, or "max".
            return None
