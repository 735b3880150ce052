"""How soon a turn begins: one that follows, and one that starts a CLI, through the router against the bare SDKs."""

import contextlib
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from alive_kit.testing.harness import Caller, calling
from alive_kit.testing.scripted_model import Reply, Script
from alive_kit.testing.scripted_model.control import ModelControl

from ..e2e.conftest import Running, up
from .bare import BARE
from .row import Row

GOAL = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The whole system on this host, and what a rival needs to reach the same model."""

    running: Running
    caller: Caller
    model_url: str
    key: str
    state: Path
    marker: str
    """Prompt for an answer of a few words."""

    async def turn(self, provider: str, session_id: str = "") -> tuple[float, str]:
        """Run a turn; return the seconds until its first event reached the caller, and its session."""
        begun, first, session = time.perf_counter(), 0.0, ""
        call = self.caller.start(self.marker, provider_id=provider, workspace_id="bench", session_id=session_id)
        while (response := await call.read()) is not grpc.aio.EOF:
            first = first or time.perf_counter() - begun
            session = response.events[-1].session_id
            last = response.events[-1]
        assert last.HasField("turn_completed"), last
        return first, session


@contextlib.asynccontextmanager
async def system(**variables: str) -> AsyncIterator[System]:
    """Run the system until the block ends."""
    with up(**variables) as running:
        url = re.search(r"scripted model at (http://\S+)", running.output)
        assert url
        (running.state / "workspaces/bench").mkdir()
        async with calling(running.address, running.state / "workspaces") as caller, ModelControl(url[1]) as model:
            marker = await model.script("bench", Script(replies=[Reply(text="A few words.")], loop=True))
            key = (running.state / "secrets/scripted-model/key").read_text().strip()
            yield System(
                running=running, caller=caller, model_url=url[1], key=key, state=running.state, marker=f"{marker} go"
            )


async def measure(*, short: bool) -> list[Row]:
    """Compare both providers with their SDKs."""
    rows = []
    async with system() as running:
        for provider in BARE:
            rows.append(await _follow_up(running, provider, 10 if short else 40))
            rows.append(await _cold(running, provider, 4 if short else 15))
    return rows


async def _follow_up(running: System, provider: str, rounds: int) -> Row:
    _, session_id = await running.turn(provider)
    with tempfile.TemporaryDirectory() as home:
        async with BARE[provider](running.model_url, running.key, Path(home)) as bare:
            await bare.ask(running.marker)

            async def ours() -> float:
                return (await running.turn(provider, session_id))[0]

            return await compare(
                f"{provider}: follow-up turn, first event (ms)", ours, lambda: bare.ask(running.marker), rounds
            )


async def _cold(running: System, provider: str, rounds: int) -> Row:
    async def ours() -> float:
        return (await running.turn(provider))[0]

    async def rival() -> float:
        with tempfile.TemporaryDirectory() as home:
            begun = time.perf_counter()
            async with BARE[provider](running.model_url, running.key, Path(home)) as bare:
                return time.perf_counter() - begun + await bare.ask(running.marker)

    return await compare(f"{provider}: cold turn, first event (ms)", ours, rival, rounds)


async def compare(
    name: str, ours: Callable[[], Awaitable[float]], rival: Callable[[], Awaitable[float]], rounds: int
) -> Row:
    """Run both in turn and return what came of it, in milliseconds."""
    pairs = [(await ours() * 1000, await rival() * 1000) for _ in range(rounds)]
    return row(name, pairs, "the bare SDK")


def row(name: str, pairs: Sequence[tuple[float, float]], rival_name: str, goal: float | None = GOAL) -> Row:
    """Return the medians over rounds of ours and the rival's."""
    ratios = [ours / rival for ours, rival in pairs]
    return Row(
        name=name,
        ours=statistics.median(ours for ours, _ in pairs),
        rival=statistics.median(rival for _, rival in pairs),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        rival_name=rival_name,
        goal=goal,
    )
