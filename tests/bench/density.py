"""What sessions that wait take: memory, threads, processes and descriptors; and that none of it grows."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

from .bare import BARE
from .processes import family
from .row import Row, compare
from .system import System, system

SPARE = 15.0
"""MB that a waiting session may take beside its CLI: client, bridge and box."""

FLAT = 1.05
_WAITING, _SESSIONS = 20, 120


async def measure(*, short: bool) -> list[Row]:
    """Measure both providers."""
    waiting, sessions, turns = (4, 8, 60) if short else (_WAITING, _SESSIONS, 1000)
    rows = []
    limits = dict.fromkeys(("ALIVE_WARM_AGENTS", "ALIVE_TURNS_PER_OWNER", "ALIVE_TURNS_PER_WORKSPACE"), str(waiting))
    async with system(**limits) as running:
        for provider in BARE:
            rows.append(await _memory(running, provider, waiting))
            rows += await _growth(running, provider, sessions, waiting, turns)
    return rows


async def _memory(running: System, provider: str, count: int) -> Row:
    """Compare waiting sessions with as many CLIs that nobody put into a box."""
    await _sessions(running, provider, count)
    async with contextlib.AsyncExitStack() as exits:
        bare = []
        for _ in range(count):
            home = Path(exits.enter_context(tempfile.TemporaryDirectory()))
            bare.append(await exits.enter_async_context(BARE[provider](running.model_url, running.key, home)))
            await bare[-1].ask(running.marker)
        # At the same time: what processes share is counted to each in part.
        ours = sum(map(pss, running.agents(provider))) / count
        rival = sum(pss(process) for cli in bare for process in family(cli.pid)) / count
    goal = (rival + SPARE) / rival
    return compare(f"{provider}: a waiting session (MB)", [ours], [rival], "a bare CLI", goal=goal)


async def _growth(running: System, provider: str, sessions: int, waiting: int, turns: int) -> list[Row]:
    """Have many sessions, most of them parked, as many turns at once as may wait, and many turns one after another.

    Every fourth is one of a session that is parked: an agent ends, and another one starts.
    """
    opened = await _sessions(running, provider, sessions)
    await asyncio.gather(*(running.turn(provider, session) for session in opened[:waiting]))
    service = running.running.pid(f"alive_{provider}")
    counts = []
    for number in range(turns + 1):
        await running.turn(provider, opened[-1 if number % 4 else number // 4 % len(opened)])
        if number in {turns // 4, turns}:
            counts.append(_counts(service, running, provider))
    names = ("MB of its service", "threads of its service", "descriptors of its service", "processes in its boxes")
    pairs = zip(names, counts[1], counts[0], strict=True)
    return [
        compare(f"{provider}: {name} after many turns", [ours], [before], "a quarter of them", goal=FLAT)
        for name, ours, before in pairs
    ]


async def _sessions(running: System, provider: str, count: int) -> list[str]:
    """Open sessions, four at a time."""
    slots = asyncio.Semaphore(4)

    async def opened() -> str:
        async with slots:
            return (await running.turn(provider))[1]

    return await asyncio.gather(*(opened() for _ in range(count)))


def _counts(service: int, running: System, provider: str) -> tuple[float, ...]:
    proc = Path(f"/proc/{service}")
    numbers = (len(list((proc / name).iterdir())) for name in ("task", "fd"))
    return (pss(service), *map(float, numbers), float(len(list(running.agents(provider)))))


def pss(process: int) -> float:
    """Return the memory of a process in MB: its own, and its share of what others use too."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
