"""How soon a turn says something: one that follows, and one that starts a CLI, through the router, boxed.

Against the bare SDKs, which are not boxed and keep their CLI, and against another agent server.
"""

import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from alive_kit.testing.scripted_model import Reply, RunCommand

from .bare import BARE
from .boxed import boxed
from .row import Row, absent, compare
from .sandbox_agent import NAME, sandbox_agent
from .system import System, Times, system

_GOAL = 1.1
_BARE = "the bare SDK"
_BOXED = "the bare SDK, in the same box"

Turn = Callable[[], Awaitable[Times]]


async def measure(*, short: bool) -> list[Row]:
    """Compare both providers."""
    rows = []
    async with system() as running:
        for provider in BARE:
            rows += await _following(running, provider, 10 if short else 40)
            rows += await _after_command(running, provider, 3 if short else 10)
            rows += await _cold(running, provider, 3 if short else 15)
    async with system(ALIVE_EDGE="true") as running:
        for provider in BARE:
            rows += await _through_the_edge(running, provider, 5 if short else 40)
    return rows


async def _following(running: System, provider: str, rounds: int) -> list[Row]:
    _, session_id = await running.turn(provider)

    async def ours() -> Times:
        return (await running.turn(provider, session_id))[0]

    async with contextlib.AsyncExitStack() as exits:
        homes = [Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="alive-"))) for _ in range(2)]
        bare = await exits.enter_async_context(BARE[provider](running.model_url, running.key, homes[0]))
        rivals: dict[str, Turn] = {_BARE: lambda: bare.ask(running.marker)}
        try:
            other = await exits.enter_async_context(sandbox_agent(provider, running.model_url, running.key, homes[1]))
            await other.ask(running.marker)
            rivals[NAME] = lambda: other.ask(running.marker)
        except OSError as error:
            return [
                *await _compared(f"{provider}: following turn", ours, rivals, rounds),
                absent(provider, NAME, str(error)),
            ]
        return await _compared(f"{provider}: following turn", ours, rivals, rounds)


async def _through_the_edge(running: System, provider: str, rounds: int) -> list[Row]:
    _, session_id = await running.turn(provider)

    async def ours() -> Times:
        return (await running.turn(provider, session_id))[0]

    with tempfile.TemporaryDirectory(prefix="alive-") as home:
        async with BARE[provider](running.model_url, running.key, Path(home)) as bare:
            rivals: dict[str, Turn] = {_BARE: lambda: bare.ask(running.marker)}
            return await _compared(f"edge: {provider}: following turn", ours, rivals, rounds)


async def _after_command(running: System, provider: str, rounds: int) -> list[Row]:
    """A turn after one that ran a command, once an agent waits for it."""
    _, session_id = await running.turn(provider)
    command = await running.script(
        f"{provider}-command", Reply(actions=[RunCommand(command="true")]), Reply(text="A few words.")
    )

    async def ours() -> Times:
        await running.turn(provider, session_id, command)
        await running.until_warm(session_id)
        return (await running.turn(provider, session_id))[0]

    with tempfile.TemporaryDirectory(prefix="alive-") as home:
        async with BARE[provider](running.model_url, running.key, Path(home)) as bare:
            rivals: dict[str, Turn] = {_BARE: lambda: bare.ask(running.marker)}
            return await _compared(f"{provider}: warmed turn after one with a command", ours, rivals, rounds)


async def _cold(running: System, provider: str, rounds: int) -> list[Row]:
    async def ours() -> Times:
        return (await running.turn(provider))[0]

    async def rival() -> Times:
        with tempfile.TemporaryDirectory(prefix="alive-") as home:
            began = time.perf_counter()
            async with BARE[provider](running.model_url, running.key, Path(home)) as bare:
                start = (time.perf_counter() - began) * 1e3
                asked = await bare.ask(running.marker)
                return Times(event=start + asked.event, word=start + asked.word)

    rows = await _compared(f"{provider}: cold turn", ours, {_BARE: rival}, rounds, goal=None)
    return [*rows, await _cold_in_a_box(running, provider, rounds)]


async def _cold_in_a_box(running: System, provider: str, rounds: int) -> Row:
    """Compare with the bare SDK whose CLI starts in a box like ours: what the service and the router add."""
    name = f"{provider}: cold turn, first event, ms"
    async with boxed(provider, running.running.uid(f"alive_{provider}"), running.state, "bench") as start:
        try:
            await start()
        except ValueError:
            return absent(name, _BOXED, "cannot run under the service's UID")
        ours, rival = [], []
        for _ in range(rounds):
            ours.append((await running.turn(provider))[0].event)
            rival.append(await start())
    return compare(name, ours, rival, _BOXED, goal=_GOAL)


async def _compared(
    name: str, ours: Turn, rivals: dict[str, Turn], rounds: int, goal: float | None = _GOAL
) -> list[Row]:
    """Run all of them in turn, and return the rows of their first events and first words."""
    for turn in (ours, *rivals.values()):
        await turn()  # What is slow only once is not what is measured.
    series: dict[str, list[Times]] = {"": [], **{rival: [] for rival in rivals}}
    for _ in range(rounds):
        for rival, turn in (("", ours), *rivals.items()):
            series[rival].append(await turn())
    return [
        compare(
            f"{name}, first {what}, ms",
            _values(series[""], what),
            _values(series[rival], what),
            rival,
            goal=goal if rival == _BARE else 1.0,
        )
        for rival in rivals
        for what in ("event", "word")
    ]


def _values(times: Sequence[Times], what: str) -> list[float]:
    return [getattr(one, what) for one in times]
