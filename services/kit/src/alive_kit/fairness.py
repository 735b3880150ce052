"""Keeps one turn's flood from delaying the events of other turns: all of them share one event loop."""

import asyncio
import time

SLICE_SECONDS = 0.0005
"""How long a turn may go on without letting others run."""


class Slice:
    """One turn's share of the event loop."""

    def __init__(self) -> None:
        self._end = time.perf_counter() + SLICE_SECONDS

    async def share(self) -> None:
        """Let others run when the slice is used up. After each message of a vendor: thousands may wait."""
        if time.perf_counter() > self._end:
            await asyncio.sleep(0)
            self._end = time.perf_counter() + SLICE_SECONDS
