"""Who runs and who waits: limits hold, owners take turns, nobody waits for ever, and what a caller sees of it."""

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from alive.agent.v1 import error_pb2, event_pb2, options_pb2
from alive_kit.admission import INTERACTIVE_IN_A_ROW, Admission, Capacity, Place
from alive_kit.errors import AdmissionRefused
from alive_kit.load import Load
from alive_kit.testing.fakes import FakeProvider, answers, started, waits_for_interrupt
from alive_kit.testing.harness import Caller, collect, serving

BOUND = 10
CAPACITY = Capacity(turns=4, turns_of_owner=2, turns_of_workspace=3, queued=8, queued_of_owner=3, queued_of_workspace=5)
ENTERS = st.tuples(st.sampled_from("ABCD"), st.sampled_from("xyz"), st.booleans())
WAIT = {"wait": [*answers("Wait."), waits_for_interrupt]}


def admission(capacity: Capacity = CAPACITY) -> Admission:
    """Return places whose clock stands still."""
    return Admission(capacity, lambda: 0.0)


def enter(places: Admission, owner: str, workspace: str = "x", *, is_background: bool = False) -> Place:
    """Enter a turn."""
    return places.enter(workspace, owner, is_background=is_background)


@given(st.lists(st.one_of(ENTERS, st.integers(0, 30)), max_size=80))
def test_limits_hold_no_room_is_wasted_and_everybody_runs_in_the_end(steps: list[tuple[str, str, bool] | int]) -> None:
    """Turns enter and leave in any order; at last all that run leave, again and again."""
    places, present = admission(), []
    for step in steps:
        if isinstance(step, int):
            if present:
                present.pop(step % len(present)).leave()
        else:
            try:
                present.append(enter(places, step[0], step[1], is_background=step[2]))
            except AdmissionRefused:
                assert any(not place.admitted.is_set() for place in present)
        check(present)
    while present:
        running = [place for place in present if place.admitted.is_set()]
        assert running
        for place in running:
            present.remove(place)
            place.leave()
        check(present)


def check(present: list[Place]) -> None:
    """Check the limits, that nobody waits who could run, and that positions are those of a queue."""
    running = [place for place in present if place.admitted.is_set()]
    waiting = [place for place in present if not place.admitted.is_set()]
    owners, workspaces = (
        Counter(place.owner_id for place in running),
        Counter(place.workspace_id for place in running),
    )
    assert len(running) <= CAPACITY.turns
    assert max(owners.values(), default=0) <= CAPACITY.turns_of_owner
    assert max(workspaces.values(), default=0) <= CAPACITY.turns_of_workspace
    assert len(waiting) <= CAPACITY.queued
    assert max(Counter(place.owner_id for place in waiting).values(), default=0) <= CAPACITY.queued_of_owner
    for place in waiting:
        assert (
            len(running) == CAPACITY.turns
            or owners[place.owner_id] == CAPACITY.turns_of_owner
            or workspaces[place.workspace_id] == CAPACITY.turns_of_workspace
        )
        assert "running" in place.why
    assert sorted(place.position for place in waiting) == list(range(1, len(waiting) + 1))


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.booleans()), min_size=1, max_size=60), st.booleans())
def test_nobody_is_passed_over_for_ever(others: list[tuple[str, bool]], is_background: bool) -> None:
    """One turn waits while others keep coming and going: it runs after a bounded number of them."""
    places = admission(Capacity(turns=1, turns_of_owner=1, queued=1000, queued_of_owner=1000, queued_of_workspace=1000))
    running = enter(places, "A")
    crowd = [enter(places, owner, is_background=background) for owner, background in others]
    waits = enter(places, "Z", is_background=is_background)
    passed = 0
    bound = 3 * (INTERACTIVE_IN_A_ROW + 1)  # Each other owner once, and the other class as often as it may in between.
    while not waits.admitted.is_set() and passed <= bound:
        running.leave()
        running = next(place for place in [*crowd, waits] if place.admitted.is_set() and place is not running)
        crowd = [place for place in crowd if place is not running]
        crowd += [enter(places, owner, is_background=background) for owner, background in others[:2]]
        passed += running is not waits

    assert passed <= bound


def test_owners_take_turns_however_many_one_of_them_has() -> None:
    """Ten turns of one owner came before one of another: that one is the next but one at the latest."""
    places = admission(Capacity(turns=1))
    running = enter(places, "A")
    many = [enter(places, "A") for _ in range(10)]
    other = enter(places, "B")
    before = other.position, many[0].position
    running.leave()

    assert before == (1, 2)
    assert other.admitted.is_set()
    assert [place.position for place in many] == list(range(1, 11))


def test_interactive_turns_come_first_and_background_turns_not_last() -> None:
    """Of many, one in five admitted is a background turn."""
    places = admission(Capacity(turns=1, queued_of_owner=100, queued_of_workspace=100))
    running = enter(places, "A")
    waiting = [enter(places, "A", is_background=number < 5) for number in range(25)]
    order = ""
    while waiting:
        running.leave()
        running = next(place for place in waiting if place.admitted.is_set())
        waiting.remove(running)
        order += "b" if running.is_background else "i"

    assert order == "iiiib" * 5


def test_without_an_owner_a_workspace_is_its_own() -> None:
    """Another workspace is not held up."""
    places = admission(Capacity(turns_of_owner=1))
    first, second, elsewhere = enter(places, ""), enter(places, ""), enter(places, "", "y")

    assert [place.admitted.is_set() for place in (first, second, elsewhere)] == [True, False, True]


def test_a_busy_host_takes_no_background_turns_and_an_overloaded_one_only_the_first(tmp_path: Path) -> None:
    """And none at all when hardly any process may be started."""
    (tmp_path / "pids.current").write_text("10\n")
    (tmp_path / "pids.max").write_text("max\n")
    refused = []
    for busy, overloaded, pids in ((1e9, 1e9, "max"), (-1.0, 1e9, "max"), (-1.0, -1.0, "max"), (1e9, 1e9, "11")):
        (tmp_path / "pids.max").write_text(pids)
        load = Load(busy=busy, overloaded=overloaded, cgroup=tmp_path)
        row = ""
        for is_background, is_first in ((False, True), (False, False), (True, False)):
            try:
                load.check(is_background=is_background, is_first=is_first)
                row += "+"
            except AdmissionRefused:
                row += "-"
        refused.append(row)

    assert refused == ["+++", "++-", "+--", "---"]


async def test_a_turn_that_waits_says_where_it_stands_and_runs_in_its_turn(directory: Path) -> None:
    """Its first events are turn_queued, again when it moves up; the rest is a turn like any other."""
    async with serving(FakeProvider(WAIT), directory, turns=1) as caller:
        first = await begun(caller, "t1")
        second = caller.start("wait", turn_id="t2")
        waits = [await until(second, "turn_queued")]
        third = caller.start("go", turn_id="t3")
        waits.append(await until(third, "turn_queued"))
        await caller.interrupt("t1")
        await until(second, "turn_started")
        moved = await until(third, "turn_queued")
        await caller.interrupt("t2")
        await collect(third)
        events = await caller.watch("t3")
        first.cancel()

    assert [event.turn_queued.position for event in waits] == [1, 2]
    assert "as many turns are running as may (1)" in waits[0].turn_queued.reason
    assert moved.turn_queued.position == 1
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [str(event.WhichOneof("kind")) for event in events[:4]] == [
        "turn_queued", "turn_queued", "turn_started", "item_started",
    ]  # fmt: skip
    assert events[-1].HasField("turn_completed")


async def test_the_clock_of_a_turn_that_waits_has_not_begun(directory: Path) -> None:
    """It waits longer than its deadline, and completes."""
    limits = options_pb2.Limits(deadline={"nanos": 300_000_000}, idle_timeout={"nanos": 300_000_000})
    async with serving(FakeProvider(WAIT), directory, turns=1) as caller:
        first = await begun(caller, "t1", limits={"deadline": {"nanos": 900_000_000}})
        events = await caller.run("go", limits=limits)
        ended = await collect(first)

    assert ended[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_TIMEOUT
    assert events[-1].HasField("turn_completed")


@pytest.mark.parametrize("how", ["interrupt", "disconnect", "shutdown"])
async def test_a_turn_that_waits_can_be_ended(directory: Path, how: str) -> None:
    """At once, without an agent: by an interrupt, its caller going away, or the service going down."""
    provider = FakeProvider(WAIT)
    async with serving(provider, directory, turns=1) as caller:
        first = await begun(caller, "t1")
        delivery = options_pb2.Delivery(on_disconnect=options_pb2.ON_DISCONNECT_INTERRUPT)
        second = caller.start("go", turn_id="t2", delivery=delivery)
        await until(second, "turn_queued")
        watching = asyncio.create_task(caller.watch("t2"))
        match how:
            case "interrupt":
                await caller.interrupt("t2", "never mind")
            case "disconnect":
                watching.cancel()
                second.cancel()
                watching = asyncio.create_task(caller.watch("t2"))
            case "shutdown":
                assert caller.service
                watching.cancel()
                await caller.service.stop(0.0)
                watching = asyncio.create_task(rest_of(second, "turn_queued"))
        async with asyncio.timeout(BOUND):
            events = await watching
        first.cancel()

    assert [event.WhichOneof("kind") for event in events] == ["turn_queued", str(events[-1].WhichOneof("kind"))]
    match how:
        case "interrupt":
            assert events[-1].turn_interrupted.reason == "never mind"
        case "disconnect":
            assert events[-1].turn_interrupted.interrupted_by == event_pb2.INTERRUPTED_BY_DISCONNECT
        case "shutdown":
            assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_SHUTTING_DOWN
    assert len(provider.agents) == 1


async def test_a_full_queue_is_refused_and_nothing_is_kept(directory: Path) -> None:
    """RESOURCE_EXHAUSTED with the time after which to come again; the id is free; checking takes no place."""
    async with serving(FakeProvider(WAIT), directory, turns=1, queue=1) as caller:
        first = await begun(caller, "t1")
        second = caller.start("go", turn_id="t2")
        await until(second, "turn_queued")
        checked = await caller.run("go", validate_only=True)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.run("go", turn_id="t3")
        await caller.interrupt("t1")
        await collect(second)
        again = await caller.run("other", turn_id="t3")
        first.cancel()

    status = rpc_status.from_call(refusal.value)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status.details[0].Unpack(info)
    status.details[1].Unpack(retry)
    assert checked == []
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (info.reason, info.metadata["scope"]) == ("ADMISSION", "service")
    assert retry.retry_delay.ToTimedelta().total_seconds() >= 1
    assert again[-1].HasField("turn_completed")


async def test_a_turn_that_fails_gives_its_place_back(directory: Path) -> None:
    """Whatever goes wrong."""
    provider = FakeProvider({"bad": [started(), ValueError("defect")]})
    async with serving(provider, directory, turns=1, queue=0) as caller:
        for _ in range(3):
            assert (await caller.run("bad"))[-1].HasField("turn_failed")


async def rest_of(call: "grpc.aio.UnaryStreamCall", seen: str) -> list[event_pb2.Event]:
    """Return what a stream still says, behind an event that was read of it."""
    return [event_pb2.Event(**{seen: {}}), *await collect(call)]


async def begun(caller: Caller, turn_id: str, **fields: object) -> "grpc.aio.UnaryStreamCall":
    """Start a turn that waits for its interrupt, and return its stream once it runs."""
    call = caller.start("wait", turn_id=turn_id, **fields)
    await until(call, "turn_started")
    return call


async def until(call: "grpc.aio.UnaryStreamCall", kind: str) -> event_pb2.Event:
    """Return the next event of a kind."""
    async with asyncio.timeout(BOUND):
        while True:
            for event in (await call.read()).events:
                if event.HasField(kind):
                    return event
