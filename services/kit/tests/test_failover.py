"""A turn that another provider may take: nothing is stored or shown before the model says something."""

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from alive.agent.v1 import error_pb2, event_pb2, options_pb2, outcome_service_pb2, resolved_pb2, session_pb2
from alive_kit.failures import failure
from alive_kit.servicer import RESOLVED_KEY
from alive_kit.testing.fakes import FakeProvider, answers, started, usage, waits_for_interrupt
from alive_kit.testing.harness import Caller, collect, request, serving

from .test_outcomes import outcomes as booked

LIMITED = failure(error_pb2.FAILURE_REASON_RATE_LIMIT)
NOTICE = event_pb2.Event(notice=event_pb2.Notice(code="model_retry"))
SCRIPTS = {
    "limited": [started(), NOTICE, LIMITED],
    "nothing": [started()],
    "refused": [started(), failure(error_pb2.FAILURE_REASON_REFUSED)],
    "paid": [started(), usage(10, 0), LIMITED],
    "said": [*answers("Hello."), LIMITED],
    "wait": [started(), waits_for_interrupt],
}


def trying(caller: Caller, text: str, *, allowed: bool = True, **fields: object) -> "grpc.aio.UnaryStreamCall":
    """Start a turn as the router does where another provider may take it over."""
    resolved = resolved_pb2.ResolvedTurn(failover_allowed=allowed, attempt=1, request_digest=text.encode())
    return caller.stub.StartTurn(
        request(text, turn_id="t", **fields), metadata=((RESOLVED_KEY, resolved.SerializeToString()),)
    )


@pytest.mark.parametrize(("script", "failed"), [("limited", "RATE_LIMIT"), ("nothing", "CRASHED")])
async def test_a_turn_that_fails_before_the_model_said_anything_is_declined(
    directory: Path, script: str, failed: str
) -> None:
    """The status names the failure; nothing is left but its outcome, and the id can be used at once."""
    provider = FakeProvider(SCRIPTS)
    async with serving(provider, directory) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as declined:
            await collect(trying(caller, script))
        sessions = (await caller.stub.ListSessions(session_pb2.ListSessionsRequest(workspace_id="demo"))).sessions
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await caller.watch("t")
        again = await collect(trying(caller, script, allowed=False))
        outcomes = await booked(caller, 2)

    status = rpc_status.from_call(declined.value)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    status.details[0].Unpack(info)
    assert declined.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (info.reason, info.metadata["failure"], info.metadata["provider_id"]) == ("TURN_DECLINED", failed, "fake")
    assert list(sessions) == []
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert provider.deleted == [f"native-{provider.specs[0].request.session_id}"]
    assert error_pb2.FailureReason.Name(again[-1].turn_failed.error.reason).endswith(failed)
    assert [outcome.terminal for outcome in outcomes] == [
        outcome_service_pb2.TERMINAL_DECLINED,
        outcome_service_pb2.TERMINAL_FAILED,
    ]
    assert outcomes[0].reason == outcomes[1].reason == again[-1].turn_failed.error.reason


@pytest.mark.parametrize("script", ["refused", "paid", "said"])
async def test_what_another_provider_cannot_cure_ends_the_turn(directory: Path, script: str) -> None:
    """A refusal by policy, or a failure once the model has said something or was paid; the stream is whole."""
    async with serving(FakeProvider(SCRIPTS), directory) as caller:
        events = await collect(trying(caller, script))
        watched = await caller.watch("t")

    assert events == watched
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[0].HasField("turn_started")
    assert events[-1].HasField("turn_failed")


async def test_a_turn_that_is_tried_streams_once_the_model_speaks(directory: Path) -> None:
    """The same events as of any other turn, and the session goes on."""
    async with serving(FakeProvider(), directory) as caller:
        events = await collect(trying(caller, "go"))
        again = await caller.run("more", session_id=events[0].session_id)
        plain = await caller.run("go")

    assert [event.WhichOneof("kind") for event in events] == [event.WhichOneof("kind") for event in plain]
    assert again[0].session_id == events[0].session_id


async def test_a_session_takes_its_next_turn_after_one_that_was_declined(directory: Path) -> None:
    """It is as it was: its turns, and what the vendor calls it."""
    provider = FakeProvider(SCRIPTS)
    async with serving(provider, directory) as caller:
        session_id = (await caller.run("go"))[0].session_id
        asked = session_pb2.GetSessionRequest(workspace_id="demo", session_id=session_id)
        before = (await caller.stub.GetSession(asked)).session
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(trying(caller, "limited", session_id=session_id))
        after = (await caller.stub.GetSession(asked)).session
        events = await caller.run("go", session_id=session_id)

    assert before == after
    assert provider.deleted == []
    assert events[-1].HasField("turn_completed")


async def test_an_interrupt_of_a_turn_that_is_tried_ends_it(directory: Path) -> None:
    """That is no reason to ask somebody else."""
    async with serving(FakeProvider(SCRIPTS), directory) as caller:
        call = trying(caller, "wait")
        async with asyncio.timeout(10):
            await caller.interrupt("t")
            events = await collect(call)

    assert events[-1].HasField("turn_interrupted")


async def test_a_turn_that_nobody_reads_is_not_declined(directory: Path) -> None:
    """Its caller has left it to run to its end: nobody would ask another provider."""
    gate = asyncio.Event()

    async def gated(_: object) -> None:
        await gate.wait()

    provider = FakeProvider({"gated": [started(), gated, LIMITED]})
    async with serving(provider, directory) as caller:
        delivery = options_pb2.Delivery(on_disconnect=options_pb2.ON_DISCONNECT_DETACH)
        call = trying(caller, "gated", delivery=delivery)
        reading = asyncio.create_task(call.read())
        async with asyncio.timeout(10):
            while not provider.agents:
                await asyncio.wait({reading}, timeout=0.01)
            call.cancel()
            assert caller.service
            turn = caller.service._turns.find("demo", "t")
            while turn._readers:
                await asyncio.wait({asyncio.ensure_future(turn.ended.wait())}, timeout=0.01)
            gate.set()
            await turn.ended.wait()
            events = await caller.watch("t")
        with contextlib.suppress(asyncio.CancelledError):
            await reading

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_RATE_LIMIT


async def test_a_service_that_goes_down_leaves_the_turn_to_another_provider(directory: Path) -> None:
    """While the model has said nothing."""
    provider = FakeProvider(SCRIPTS)
    async with serving(provider, directory) as caller:
        ended = asyncio.gather(collect(trying(caller, "wait")), return_exceptions=True)
        async with asyncio.timeout(10):
            while not provider.agents:
                await asyncio.wait({ended}, timeout=0.01)
            assert caller.service
            await caller.service.stop(0.0)
            (error,) = await ended

    assert "TURN_DECLINED" in repr(dict(error.trailing_metadata() or ()))
    assert "SHUTTING_DOWN" in str(error.details())


async def test_no_two_new_sessions_have_one_id(directory: Path) -> None:
    """Though the first one is not written down yet: another provider may still take its turn."""
    resolved = resolved_pb2.ResolvedTurn(session_id="s", failover_allowed=True, attempt=1)
    metadata = ((RESOLVED_KEY, resolved.SerializeToString()),)
    provider = FakeProvider(SCRIPTS)
    async with serving(provider, directory) as caller:
        first = caller.stub.StartTurn(request("wait", turn_id="t1"), metadata=metadata)
        async with asyncio.timeout(10):
            while not provider.agents:
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await collect(caller.stub.StartTurn(request("said", turn_id="t2"), metadata=metadata))
        first.cancel()

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "session_id" in str(refusal.value.details())
