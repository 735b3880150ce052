"""The relay: what comes out of the router is what the provider said."""

import asyncio

import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, event_pb2, resolved_pb2
from alive_kit.servicer import RESOLVED_KEY
from alive_kit.testing.fakes import answers, delta, message_completed, message_started, started, waits_for_interrupt
from alive_kit.testing.harness import collect, request
from alive_router.relay import forwarded

from .conftest import System

BOUND = 10


async def test_events_pass_unchanged(system: System) -> None:
    """What the router shows is what the provider kept, unknown fields included."""
    relayed = await system.caller.run("hello", turn_id="t")
    kept = await system.services["red"].watch("t")

    assert relayed == kept
    assert relayed[-1].HasField("turn_completed")


async def test_a_large_turn_passes_in_order(system: System) -> None:
    """Twenty thousand deltas, more than any buffer holds."""
    deltas = [delta(f"{number} ") for number in range(20_000)]
    system.providers["red"].scripts["many"] = [started(), message_started(), *deltas, message_completed("done")]
    events = await system.caller.run("many")

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sum(event.HasField("item_delta") for event in events) == 20_000


async def test_a_refusal_passes_with_its_details(system: System) -> None:
    """The provider's own status and trailers reach the caller, and the turn id is free again."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await system.caller.run("go", turn_id="t", permissions={"extra_directories": ["other"]})
    trailers = dict(refusal.value.trailing_metadata() or ())

    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert b"OPTION_UNSUPPORTED" in trailers["grpc-status-details-bin"]
    assert (await system.caller.run("hello", turn_id="t"))[-1].HasField("turn_completed")


async def test_a_turn_is_watched_and_interrupted_where_it_runs(system: System) -> None:
    """Through the router, without saying which provider has it."""
    system.providers["blue"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    call = system.caller.start("wait", turn_id="t", provider_id="blue")
    await call.read()
    watching = asyncio.create_task(system.caller.watch("t"))
    async with asyncio.timeout(BOUND):
        result = await system.caller.interrupt("t")
        events = await watching

    assert result == agent_service_pb2.INTERRUPT_RESULT_INTERRUPTED
    assert events[0].seq == 1
    assert events[-1].HasField("turn_interrupted")


async def test_an_interrupt_that_comes_first_is_kept(system: System) -> None:
    """Whichever provider gets the turn then."""
    system.providers["blue"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    kept = await system.caller.interrupt("early")
    events = await system.caller.run("wait", turn_id="early", provider_id="blue")

    assert kept == agent_service_pb2.INTERRUPT_RESULT_KEPT
    assert events[-1].HasField("turn_interrupted")


async def test_a_turn_that_the_router_does_not_know_is_found(system: System) -> None:
    """It was started at a provider directly."""
    await system.services["blue"].run("hello", turn_id="direct")

    assert (await system.caller.watch("direct"))[-1].HasField("turn_completed")


async def test_the_same_call_at_the_same_time_is_one_turn(system: System) -> None:
    """A caller that repeats itself before it has an answer."""
    calls = [system.caller.run("hello", turn_id="twice") for _ in range(10)]
    streams = await asyncio.gather(*calls)

    assert all(events == streams[0] for events in streams)
    assert len(system.providers["red"].agents) == 1


async def test_a_cancelled_call_is_cancelled_at_the_provider(system: System) -> None:
    """A hundred callers leave in mid-stream; no reader is left behind."""
    provider = system.providers["red"]
    provider.scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    delivery = {"on_disconnect": "ON_DISCONNECT_INTERRUPT"}
    calls = [system.caller.start("wait", delivery=delivery, turn_id=f"t{number}") for number in range(100)]
    await asyncio.gather(*(call.read() for call in calls))
    for call in calls:
        call.cancel()
    async with asyncio.timeout(BOUND):
        await asyncio.gather(*(agent.closed.wait() for agent in provider.agents))

    assert len(provider.agents) == 100


async def test_the_callers_deadline_holds_at_the_provider(system: System) -> None:
    """The turn is interrupted once its caller's time is over."""
    provider = system.providers["red"]
    provider.scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    asked = request("wait", delivery={"on_disconnect": "ON_DISCONNECT_INTERRUPT"})
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await collect(system.caller.stub.StartTurn(asked, timeout=0.3))
    async with asyncio.timeout(BOUND):
        await provider.agents[0].closed.wait()

    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_reader_that_does_not_read_holds_nothing_up(system: System) -> None:
    """The turn goes on for others; the slow reader gets everything once it reads."""
    big = [delta("x" * 10_000) for _ in range(1_000)]
    system.providers["red"].scripts["big"] = [started(), message_started(), *big, message_completed("done")]
    slow = system.caller.start("big", turn_id="t")
    first = list((await slow.read()).events)
    async with asyncio.timeout(BOUND):
        quick = await system.caller.watch("t")
        late = first + await collect(slow)

    assert [event.seq for event in late] == [event.seq for event in quick]


async def test_a_provider_that_dies_ends_the_stream_as_lost(system: System) -> None:
    """The status names the turn, which is not said to have ended. An edge can only reset a stream that has begun."""
    system.providers["red"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    call = system.caller.start("wait", turn_id="t")
    await call.read()
    await system.services["red"].service.server.stop(0)
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        await collect(call)

    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    if not system.has_edge:
        assert b"STREAM_LOST" in dict(lost.value.trailing_metadata() or ())["grpc-status-details-bin"]
        assert "'t'" in (lost.value.details() or "")


async def test_a_caller_cannot_say_what_only_the_router_may(system: System) -> None:
    """Its own resolved entry, and its credentials, end at the router."""
    forged = resolved_pb2.ResolvedTurn(notices=[event_pb2.Notice(code="forged")], session_id="forged")
    metadata = (
        (RESOLVED_KEY, forged.SerializeToString()),
        ("authorization", "Bearer secret"),
        ("traceparent", "00-a-b"),
    )
    events = await collect(system.caller.stub.StartTurn(request("hello"), metadata=metadata))

    assert not any(event.notice.code == "forged" for event in events)
    assert events[0].session_id != "forged"


def test_only_what_is_a_callers_to_say_is_forwarded() -> None:
    """Traces pass; credentials, the transport's own words and what only the router may say do not."""
    said = [
        ("traceparent", "00-a-b"),
        (RESOLVED_KEY, b"forged"),
        ("x-alive-anything", "forged"),
        ("authorization", "Bearer secret"),
        ("cookie", "secret"),
        ("user-agent", "grpcurl"),
        ("grpc-timeout", "1S"),
    ]
    assert forwarded(said) == [("traceparent", "00-a-b")]
