"""The relay between a provider and a caller of different speed. The provider here says bytes, one event a message."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, event_pb2
from alive_kit.testing.harness import collect, request
from alive_router.copying import READ_AHEAD_BYTES
from alive_router.relay import RESPONSE_BYTES

from .speaker import Speaker, speaking

BOUND = 20


@pytest.fixture
async def speaker() -> AsyncIterator[Speaker]:
    """Return a provider ``speaker`` behind a router, and a caller of the router."""
    async with speaking() as (speaker, _):
        yield speaker


def message(seq: int, text: str = "word") -> bytes:
    event = event_pb2.Event(seq=seq, item_delta=event_pb2.ItemDelta(item_id="message-1", text=text))
    return agent_service_pb2.StartTurnResponse(events=[event]).SerializeToString()


async def test_a_message_that_is_alone_is_not_held_back(speaker: Speaker) -> None:
    """It arrives while its stream goes on."""
    speaker.messages = [message(1)]
    async with asyncio.timeout(BOUND):
        response = await speaker.caller.start("go").read()

    assert response.SerializeToString() == message(1)


async def test_a_reader_that_stalls_stops_its_provider(speaker: Speaker) -> None:
    """After what is read ahead and what the sockets hold. What waits is joined: in order, nothing lost or twice."""
    speaker.messages = [message(seq, "x" * 4_000) for seq in range(1, 8_001)]
    speaker.go_on.set()
    call = speaker.caller.start("go")
    first = await call.read()
    await speaker.stopped()
    said = speaker.said
    async with asyncio.timeout(BOUND):
        responses = [first]
        while (response := await call.read()) is not grpc.aio.EOF:
            responses.append(response)

    assert said * len(speaker.messages[0]) < READ_AHEAD_BYTES + (12 << 20)
    assert [event.seq for response in responses for event in response.events] == list(range(1, 8_001))
    assert len(responses) < 8_000 or speaker.has_edge
    assert max(response.ByteSize() for response in responses) <= RESPONSE_BYTES


async def test_no_cancellation_is_missed(speaker: Speaker) -> None:
    """Three hundred callers leave while their streams are at full speed."""
    speaker.messages = [message(seq) for seq in range(1, 100_000)]
    async with asyncio.timeout(60):
        for _ in range(6):
            calls = [speaker.caller.start("go") for _ in range(50)]
            for call in calls:
                await call.read()
            for call in calls:
                call.cancel()
        while speaker.running:
            speaker.idle.clear()
            await speaker.idle.wait()


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.DATA_LOSS])
async def test_status_and_trailers_pass(speaker: Speaker, code: grpc.StatusCode) -> None:
    """After messages that were read ahead, too."""
    speaker.messages = [message(1), message(2)]
    speaker.code, speaker.trailers = code, (("x-text", "words"), ("x-bytes-bin", b"\x00\xff"))
    speaker.go_on.set()
    call = speaker.caller.start("go")
    with contextlib.suppress(grpc.aio.AioRpcError):
        await collect(call)

    assert await call.code() is code
    assert {**dict(await call.trailing_metadata() or ())}.items() >= dict(speaker.trailers).items()
    assert code is grpc.StatusCode.OK or await call.details() == "as it was said"


async def test_a_drain_loses_no_stream() -> None:
    """A router that is asked to end lets running streams end first."""
    async with speaking() as (speaker, system):
        speaker.messages = [message(seq) for seq in range(1, 101)]
        call = speaker.caller.start("go")
        first = list((await call.read()).events)
        stopping = asyncio.create_task(system.router.stop(BOUND))
        speaker.go_on.set()
        events = first + await collect(call)
        await stopping

    assert [event.seq for event in events] == list(range(1, 101))
    assert await call.code() is grpc.StatusCode.OK


async def test_the_chunks_of_an_items_content_are_not_joined(speaker: Speaker) -> None:
    """Their bytes field would be the last one's, so each stays a message, however late it is read."""
    speaker.messages = [message(1)]
    speaker.go_on.set()
    await collect(speaker.caller.stub.StartTurn(request("go", turn_id="t")))
    chunk = agent_service_pb2.ReadItemContentResponse(data=b"x" * 4_000)
    speaker.messages = [chunk.SerializeToString()] * 4_000
    asked = agent_service_pb2.ReadItemContentRequest(workspace_id="demo", turn_id="t", item_id="message-1")
    call = speaker.caller.stub.ReadItemContent(asked)
    await speaker.stopped()

    assert sum([len(chunk.data) async for chunk in call]) == 4_000 * 4_000
