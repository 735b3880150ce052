"""What the router adds to a stream, beside a plain relay on grpc.aio, nginx and Envoy, between the same two ends."""

import asyncio
import contextlib
import random
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc

from alive_stack.stack import free_address

from . import between
from .ends import Caller, provider_end
from .processes import Process, python
from .row import Row, absent, against, compare

Series = dict[str, list[float]]

_CONSTANT = "Envoy with a constant answer"

STREAMS = 64
_RATE = 50.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something that a stream goes through; without a process it goes to the provider directly."""

    caller: Caller
    process: Process | None = None
    series: Series = field(default_factory=lambda: defaultdict(list))

    def cpu(self) -> float:
        """Return the seconds of CPU that were used so far."""
        return self.process.cpu if self.process else 0.0


async def measure(*, short: bool) -> list[Row]:
    """Measure all of them."""
    async with contextlib.AsyncExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="alive-")))
        provider = directory / "provider.sock"
        tcp = free_address()
        await exits.enter_async_context(provider_end(provider, tcp))
        places = {"direct": Place(caller=Caller(tcp))}
        missing = {}
        for name in ("router", "edge", "plain", "nginx", "envoy", "authz"):
            try:
                tcp = free_address()
                process = await exits.enter_async_context(getattr(between, name)(directory, provider, tcp))
                caller = Caller(tcp)
                exits.push_async_callback(caller.close)
                await caller.first()
                places[name] = Place(caller=caller, process=process)
            except (OSError, ImportError, grpc.aio.AioRpcError) as error:
                missing[name] = str(error)[-80:]
        for _ in range(2 if short else 7):
            for place in random.sample(list(places.values()), len(places)):
                await _round(place, short=short)
        rows = [*_rows(places, missing), *_edge_rows(places, missing)]
        return [*rows, await _coalesced(directory, short=short), *await _once(places, short=short)]


async def _round(place: Place, *, short: bool) -> None:
    caller, series = place.caller, place.series
    paced = await caller.paced(STREAMS, 0.8 if short else 3, _RATE, place.cpu)
    series["cpu"].append(paced.cpu)
    series["p50"].append(paced.percentile(50))
    series["p99"].append(paced.percentile(99))
    for streams in (1, STREAMS):
        series[f"burst {streams}"].append(await _burst(caller, streams, seconds=0.5 if short else 1.2))
    series["first"].append(median([await caller.first() for _ in range(20)]))
    before = place.cpu()
    await caller.short(100)
    series["short"].append((place.cpu() - before) / 100 * 1e6)


async def _burst(caller: Caller, streams: int, *, seconds: float) -> float:
    """Return the events per second of a burst that takes about so long."""
    rate = await caller.burst(streams, 3_000 // streams)
    return await caller.burst(streams, round(rate * seconds / streams))


def _rows(places: dict[str, Place], missing: dict[str, str]) -> list[Row]:
    ours, direct = places["router"].series, places["direct"].series
    rows = [
        compare("burst, 1 stream, events/s", ours["burst 1"], direct["burst 1"], "direct", more_is_better=True),
        compare("burst, 64 streams, events/s", ours["burst 64"], direct["burst 64"], "direct", more_is_better=True),
    ]
    for name in ("plain", "nginx", "envoy"):
        if name not in places:
            rows.append(absent("relay", name, missing[name]))
            continue
        rival = places[name].series
        is_plain = name == "plain"
        for key in ("burst 1", "burst 64"):
            title = f"{key.replace('burst ', 'burst, ')} stream(s), events/s"
            goal = 1.0 if is_plain else None
            rows.append(compare(title, ours[key], rival[key], name, goal=goal, more_is_better=True))
        title = "CPU per event, 64 streams x 50/s, µs"
        rows.append(compare(title, ours["cpu"], rival["cpu"], name, goal=1.1 if is_plain else None))
        for key, title in (
            ("p50", "p50 at that load, µs"),
            ("p99", "p99 at that load, µs"),
            ("first", "first event, µs"),
        ):
            rows.append(compare(title, ours[key], rival[key], name))
        rows.append(compare("short calls, CPU per call, µs", ours["short"], rival["short"], name))
    return rows


def _edge_rows(places: dict[str, Place], missing: dict[str, str]) -> list[Row]:
    """Compare the edge with what it is meant to be like."""
    if absent_ones := [name for name in ("edge", "nginx", "envoy", "authz") if name in missing]:
        return [absent("edge", name, missing[name]) for name in absent_ones]
    ours, direct = places["edge"].series, places["direct"].series
    nginx, envoy, authz = (places[name].series for name in ("nginx", "envoy", "authz"))
    rows = [
        compare(f"edge: {key}, events/s", ours[key], direct[key], "direct", goal=0.8, more_is_better=True)
        for key in ("burst 1", "burst 64")
    ]
    return [
        *rows,
        compare("edge: CPU per event, 64 streams x 50/s, µs", ours["cpu"], nginx["cpu"], "nginx", goal=1.3),
        compare("edge: CPU per event, 64 streams x 50/s, µs", ours["cpu"], envoy["cpu"], "envoy", goal=1.1),
        compare("edge: p50 at that load, µs", ours["p50"], nginx["p50"], "nginx"),
        against("edge: added p50 at that load, µs", _added(ours["p50"], direct["p50"]), 50, "µs"),
        against("edge: added p99 at that load, µs", _added(ours["p99"], direct["p99"]), 150, "µs"),
        compare("edge: first event, µs", ours["first"], authz["first"], _CONSTANT, goal=1.3),
        compare(
            "edge: added to the first event, µs",
            _added(ours["first"], direct["first"]),
            _added(authz["first"], direct["first"]),
            _CONSTANT,
        ),
        compare("edge: short calls, CPU per call, µs", ours["short"], authz["short"], _CONSTANT),
    ]


def _added(ours: list[float], direct: list[float]) -> list[float]:
    return [one - other for one, other in zip(ours, direct, strict=True)]


async def _once(places: dict[str, Place], *, short: bool) -> list[Row]:
    """Compare with the plain relay what takes long: memory, and cancellations."""
    found: dict[str, dict[str, float]] = {}
    cancelled = 300 if short else 10_000
    for name in ("router", "edge", "plain"):  # In this order: what the plain relay loses keeps the provider busy.
        place = places[name]
        found[name] = {
            "idle": await _growth(place, "hold", 200 if short else 1_000),
            "stall": await _growth(place, "burst 100000", 20 if short else 50),
            "lost": await _lost(place.caller, places["direct"].caller, cancelled) / cancelled,
        }
    ours, edge, plain = found["router"], found["edge"], found["plain"]
    return [
        against("edge: 1,000 idle streams, MB", [edge["idle"] * 1e3], 25, "MB"),
        against("edge: stalled reader, MB", [edge["stall"]], 0.5, "MB"),
        _missed("edge: share of cancellations missed", edge["lost"], plain["lost"]),
        against("1,000 idle streams, MB", [ours["idle"] * 1e3], 45, "MB"),
        against("stalled reader, MB", [ours["stall"]], 2.4, "MB"),
        _missed("share of cancellations missed", ours["lost"], plain["lost"]),
    ]


def _missed(name: str, ours: float, plain: float) -> Row:
    """Return the row of cancellations that the provider never heard of; the ratio is our share of them."""
    return Row(name=name, ours=ours, rival=plain, ratio=ours, spread=(ours, ours), rival_name="plain", goal=0.0)


async def _growth(place: Place, prompt: str, streams: int) -> float:
    """Return the megabytes that a stream costs whose reader reads one message and no more."""
    assert place.process
    before = place.process.memory
    calls = [place.caller.start(prompt) for _ in range(streams)]
    for call in calls:
        await call.read()
    await asyncio.sleep(1)
    grown = place.process.memory - before
    for call in calls:
        call.cancel()
    return grown / streams


async def _lost(caller: Caller, direct: Caller, cancelled: int) -> int:
    """Return how many of many streams go on at the provider though their callers have left in full speed."""
    for _ in range(cancelled // 50):
        calls = [caller.start("paced 600 1000") for _ in range(50)]
        for call in calls:
            await call.read()
        for call in calls:
            call.cancel()
    for _ in range(20):
        await asyncio.sleep(0.1)
        if not await direct.running():
            break
    return await direct.running()


async def _coalesced(directory: Path, *, short: bool) -> Row:
    """Compare a flood through the kit and the router with a connection that carries an event a message."""
    events = 20_000 if short else 100_000
    async with provider(directory) as (socket, _), _router(directory, socket) as caller:
        direct = Caller(f"unix:{directory}/provider.sock")
        ours, rival = [], []
        for _ in range(2 if short else 5):
            ours.append(await caller.read(f"flood {events}"))
            rival.append(await direct.read(f"burst {events}"))
        await direct.close()
    name = "coalesced through kit and router, events/s"
    return compare(name, ours, rival, "direct, an event a message", goal=1.0, more_is_better=True)


@contextlib.asynccontextmanager
async def provider(directory: Path) -> AsyncIterator[tuple[Path, Process]]:
    """Run a provider of the kit."""
    home = directory / "kit"
    (home / "workspaces" / "demo").mkdir(parents=True, exist_ok=True)
    socket = home / "agent.sock"
    variables = {
        "ALIVE_LISTEN": f"unix:{socket}",
        "ALIVE_WORKSPACES": str(home / "workspaces"),
        "ALIVE_STATE_DIR": str(home / "state"),
    }
    async with python("tests.bench.provider", socket=socket, **variables) as process:
        await Caller(f"unix:{socket}").ready()
        yield socket, process


@contextlib.asynccontextmanager
async def _router(directory: Path, socket: Path) -> AsyncIterator[Caller]:
    home = directory / "second"
    home.mkdir(exist_ok=True)
    async with between.router(home, socket):
        caller = Caller(f"unix:{home}/router.sock")
        yield caller
        await caller.close()
