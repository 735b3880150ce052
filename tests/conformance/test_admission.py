"""Turns that wait for their place, and turns that are left to another provider."""

import asyncio
from pathlib import Path

import grpc
import pytest

from alive.agent.v1 import resolved_pb2, session_pb2
from alive_kit.servicer import RESOLVED_KEY
from alive_kit.testing.harness import collect, request, serving
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply, ScriptedModel

from .conftest import KEY, PROVIDERS, Subject, configured, kinds, said


@requirement("turn:queued")
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_turn_waits_runs_and_can_be_ended_while_it_waits(
    name: str, model: ScriptedModel, directory: Path
) -> None:
    """One turn at a time: the second one runs after the first, the third one is interrupted before."""
    (directory / "key").write_text(KEY)
    stalls = model.script(f"{name}-holds", [Reply(text="This holds the place.", chunk=4, fault=Fault(stall_after=2))])
    answers = model.script(f"{name}-waits", [Reply(text="My turn.")])
    with configured(name, model.url, directory / "key") as create:
        async with serving(create(), directory, turns=1) as caller:
            first = caller.start(stalls, turn_id="first")
            await first.read()
            second, third = caller.start(answers, turn_id="second"), caller.start(answers, turn_id="third")
            queued = [(await call.read()).events[0].turn_queued.position for call in (second, third)]
            async with asyncio.timeout(5):
                await caller.interrupt("third")
            await caller.interrupt("first")
            await collect(second)
            ran, ended = await caller.watch("second"), await caller.watch("third")

    assert queued == [1, 2]
    assert kinds(ran)[0] == "turn_queued"
    assert said(ran) == "My turn."
    assert kinds(ended) == ["turn_queued", "turn_interrupted"]
    assert len(model.journal.entries(f"{name}-waits")) == 1


@requirement("turn:declined")
@pytest.mark.parametrize(("status", "failed"), [(401, "AUTH"), (429, "RATE_LIMIT")])
async def test_a_turn_that_another_provider_may_take_leaves_nothing(subject: Subject, status: int, failed: str) -> None:
    """A status instead of events, no session, and the same turn can be started again."""
    workspace = f"declined-{status}"
    subject.workspace(workspace)
    prompt = subject.script(workspace, Reply(fault=Fault(status=status), repeat=50))
    resolved = resolved_pb2.ResolvedTurn(failover_allowed=True, request_digest=b"d").SerializeToString()
    asked = request(prompt, workspace_id=workspace, turn_id="t")
    with pytest.raises(grpc.aio.AioRpcError) as declined:
        await collect(subject.caller.stub.StartTurn(asked, metadata=((RESOLVED_KEY, resolved),)))
    sessions = await subject.caller.stub.ListSessions(session_pb2.ListSessionsRequest(workspace_id=workspace))
    answer = subject.script(workspace, Reply(text="Now."))
    events = await collect(subject.caller.stub.StartTurn(asked, metadata=((RESOLVED_KEY, resolved),)))

    assert declined.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failed in str(declined.value.details())
    assert not sessions.sessions
    assert answer == prompt
    assert said(events)
