"""What each provider keeps of turns that ended, for the router to book."""

import asyncio

from alive.agent.v1 import error_pb2, outcome_service_pb2, outcome_service_pb2_grpc
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply

from .conftest import Subject

BOUND = 20


@requirement("turn:outcome")
async def test_each_turn_that_ended_has_one_outcome(subject: Subject) -> None:
    """One that completed without a trace, and one that the vendor refused."""
    subject.workspace("outcomes")
    good = subject.script("outcome", Reply(text="Done."))
    bad = subject.script("outcome-refused", Reply(fault=Fault(status=401), repeat=40))
    ended = await subject.caller.run(good, turn_id="brief", workspace_id="outcomes", ephemeral=True)
    failed = await subject.caller.run(bad, turn_id="refused", workspace_id="outcomes")
    stub = outcome_service_pb2_grpc.OutcomeServiceStub(subject.caller.channel)
    call = stub.WatchOutcomes(outcome_service_pb2.WatchOutcomesRequest())
    found: dict[str, outcome_service_pb2.Outcome] = {}
    async with asyncio.timeout(BOUND):
        while len(found) < 2:
            outcomes = (await call.read()).outcomes
            found |= {each.turn_id: each for each in outcomes if each.workspace_id == "outcomes"}
    call.cancel()
    brief, refused = found["brief"], found["refused"]

    assert brief.terminal == outcome_service_pb2.TERMINAL_COMPLETED
    assert brief.usage == ended[-1].turn_completed.usage
    assert brief.usage.input_tokens > 0
    assert brief.model == ended[0].turn_started.model
    assert refused.terminal == outcome_service_pb2.TERMINAL_FAILED
    assert refused.reason == failed[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_AUTH
