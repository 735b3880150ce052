"""What a provider's service does with events before they are on their way: keeping them, and sharing its loop."""

import asyncio
import tempfile
from pathlib import Path

from .ends import Caller
from .processes import Process, python
from .relay import provider
from .row import Row, compare


async def measure(*, short: bool) -> list[Row]:
    """Measure both."""
    with tempfile.TemporaryDirectory(prefix="alive-") as directory:
        async with provider(Path(directory)) as (socket, process):
            caller = Caller(f"unix:{socket}")
            try:
                return [await _kept(caller, process, short=short), await _neighbour(caller, socket, short=short)]
            finally:
                await caller.close()


async def _kept(caller: Caller, process: Process, *, short: bool) -> Row:
    """Compare turns whose events are kept with ephemeral ones, by CPU: waiting for a shared disk is noise."""
    events, kept, ephemeral = 20_000 if short else 100_000, [], []
    for _ in range(5 if short else 9):
        for series, is_ephemeral in ((kept, False), (ephemeral, True)):
            before = process.cpu
            await caller.read(f"flood {events}", ephemeral=is_ephemeral)
            series.append((process.cpu - before) / events * 1e6)
    return compare("stored before shown, CPU per event, µs", kept, ephemeral, "an ephemeral turn", goal=1.1)


async def _neighbour(caller: Caller, provider: Path, *, short: bool) -> Row:
    """Compare a paced turn beside a flooding one with the same turn alone."""
    prompt, beside, alone = f"paced {1 if short else 4} 200", [], []
    for number in range(3 if short else 7):
        alone.append(_p99(await caller.latencies(prompt)))
        ready = provider.with_name(f"flooder-{number}.sock")
        async with python("tests.bench.flooder", f"unix:{provider}", str(ready), socket=ready):
            beside.append(_p99(await caller.latencies(prompt)))
        await asyncio.sleep(0.5)
    return compare("p99 beside a flooding turn, µs", beside, alone, "alone", goal=3.0)


def _p99(latencies: list[float]) -> float:
    return sorted(latencies)[len(latencies) * 99 // 100]
