"""How cost grows: with the number of streams at once, and with the length of a session's transcript.

The long form draws the curves into docs/scale.png.
"""

import contextlib
import tempfile
import time
from pathlib import Path
from statistics import median

from alive_kit.testing.fakes import FakeProvider, Step, message_completed, message_started, started
from alive_kit.testing.harness import serving

from . import between
from .ends import Caller, provider_end
from .processes import CHECKOUT
from .row import Row, compare

Curve = dict[int, float]

_EVENTS_PER_SECOND = 2_000


async def measure(*, short: bool) -> list[Row]:
    """Measure the curves, and compare the far end of each with its near end."""
    per_event, per_turn = await _streams((1, 10, 100) if short else (1, 10, 100, 300, 1_000))
    next_turn, replay = await _lengths((10, 100, 1_000) if short else (10, 100, 1_000, 10_000))
    curves = {
        "router CPU per event at 2,000/s, by streams, µs": per_event,
        "router CPU per turn, by turns at once, µs": per_turn,
        "next turn, by items of its session, ms": next_turn,
        "replayed event, by items of its turn, µs": replay,
    }
    if not short:
        with contextlib.suppress(ImportError):
            _draw(curves, CHECKOUT / "docs" / "scale.png")
    return [_ends(name, curve) for name, curve in curves.items()]


async def _streams(counts: tuple[int, ...]) -> tuple[Curve, Curve]:
    """Return what an event and what a turn cost the router, by how many there are at once."""
    per_event, per_turn = {}, {}
    with tempfile.TemporaryDirectory(prefix="alive-") as name:
        directory = Path(name)
        socket = directory / "provider.sock"
        async with provider_end(socket), between.router(directory, socket) as router:
            caller = Caller(f"unix:{directory}/router.sock")
            await caller.first()
            for count in counts:
                paced = await caller.paced(count, 3 + count / 50, _EVENTS_PER_SECOND / count, lambda: router.cpu)
                per_event[count] = paced.cpu
                before = router.cpu
                await caller.burst(count, 1)
                per_turn[count] = (router.cpu - before) / count * 1e6
            await caller.close()
    return per_event, per_turn


async def _lengths(counts: tuple[int, ...]) -> tuple[Curve, Curve]:
    """Return what the next turn of a session costs, and an event of a turn that is read again, by their length."""
    provider, next_turn, replay = FakeProvider(), {}, {}
    with tempfile.TemporaryDirectory(prefix="alive-") as name:
        async with serving(provider, Path(name)) as caller:
            for count in counts:
                provider.scripts[f"items-{count}"] = _items(count)
                events = await caller.run(f"items-{count}", turn_id=f"turn-{count}")
                session_id = events[0].session_id
                next_turn[count] = median([await _timed(caller.run("go", session_id=session_id)) for _ in range(9)])
                again = [await _timed(caller.watch(f"turn-{count}")) for _ in range(5)]
                replay[count] = median(again) * 1e3 / len(events)
    return next_turn, replay


def _items(count: int) -> list[Step]:
    script: list[Step] = [started()]
    for number in range(count):
        script += [message_started(f"message-{number}"), message_completed("Some words.", f"message-{number}")]
    return script


async def _timed(work: object) -> float:
    began = time.perf_counter()
    await work  # type: ignore[misc]
    return (time.perf_counter() - began) * 1e3


def _ends(name: str, curve: Curve) -> Row:
    """Return the row of a curve: its far end beside its near end. Linear cost keeps the ratio at one."""
    near, far = min(curve), max(curve)
    return compare(f"{name}: at the far end", [curve[far]], [curve[near]], "the near end", goal=2.0)


def _draw(curves: dict[str, Curve], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415  # For benchmarks only.

    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    for axis, (name, curve) in zip(axes.flat, curves.items(), strict=True):
        axis.plot(list(curve), list(curve.values()), marker="o")
        axis.set(title=name, xscale="log", ylim=(0, max(curve.values()) * 1.3))
        axis.title.set_fontsize(9)
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=90, metadata={"Software": None})
