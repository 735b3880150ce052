"""Approvals: what may be answered, when, and what is remembered."""

import asyncio
from pathlib import Path

import grpc
import pytest

from alive.agent.v1 import approval_pb2, error_pb2, event_pb2, item_pb2, options_pb2
from alive_kit.testing.fakes import FakeProvider, Step, answers
from alive_kit.testing.harness import Caller, collect, serving

SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
FORM = approval_pb2.ApprovalRequested(elicitation=approval_pb2.Elicitation(server="notes", schema_json=SCHEMA))
QUESTIONS = approval_pb2.ApprovalRequested(
    questions=approval_pb2.QuestionSet(
        questions=[
            approval_pb2.Question(question_id="one", text="Which?"),
            approval_pb2.Question(question_id="two", text="Which ones?", multiple=True),
        ]
    )
)
COMMAND = approval_pb2.ApprovalRequested(command=item_pb2.CommandItem(command="true", cwd="."))
ANSWER = approval_pb2.DECISION_KIND_ANSWER


async def ask(caller: Caller, **fields: object) -> tuple[object, approval_pb2.ResolveApprovalRequest]:
    """Start a turn that asks, and return its call with the request that answers it."""
    call = caller.start("ask", **fields)
    while True:
        for event in (await call.read()).events:
            if event.HasField("approval_requested"):
                approval_id = event.approval_requested.approval_id
                return call, approval_pb2.ResolveApprovalRequest(
                    workspace_id="demo", turn_id=event.turn_id, approval_id=approval_id
                )


def asking(asked: approval_pb2.ApprovalRequested) -> FakeProvider:
    """Return a provider whose agents ask once."""
    script: list[Step] = [*answers("Asked.")]
    script.insert(1, asked)
    return FakeProvider({"ask": script})


MISFITS = {
    "content that does not satisfy the schema": (
        FORM,
        approval_pb2.Decision(kind=ANSWER, content_json='{"n": "x"}'),
        "decision.content_json",
    ),
    "content that is no object": (FORM, approval_pb2.Decision(kind=ANSWER, content_json="7"), "decision.content_json"),
    "content that is not JSON": (FORM, approval_pb2.Decision(kind=ANSWER, content_json="{"), "decision.content_json"),
    "no content": (FORM, approval_pb2.Decision(kind=ANSWER), "decision.content_json"),
    "an allowance of a question": (
        QUESTIONS,
        approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ALLOW_ONCE),
        "decision.kind",
    ),
    "an answer to one of two": (
        QUESTIONS,
        approval_pb2.Decision(kind=ANSWER, answers=[approval_pb2.Answer(question_id="one", values=["x"])]),
        "decision.answers",
    ),
    "two values where one may be chosen": (
        QUESTIONS,
        approval_pb2.Decision(
            kind=ANSWER,
            answers=[
                approval_pb2.Answer(question_id="one", values=["x", "y"]),
                approval_pb2.Answer(question_id="two", values=["x", "y"]),
            ],
        ),
        "decision.answers[0].values",
    ),
    "an answer without a value": (
        QUESTIONS,
        approval_pb2.Decision(
            kind=ANSWER,
            answers=[approval_pb2.Answer(question_id="one", values=["x"]), approval_pb2.Answer(question_id="two")],
        ),
        "decision.answers[1].values",
    ),
    "changed input where none can be": (
        COMMAND,
        approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ALLOW_ONCE, changed_input_json="{}"),
        "decision.changed_input_json",
    ),
    "a long message": (
        COMMAND,
        approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_DENY, message="x" * 10_001),
        "decision.message",
    ),
    "no kind": (COMMAND, approval_pb2.Decision(), "decision.kind"),
}


@pytest.mark.parametrize(("asked", "decision", "field"), MISFITS.values(), ids=MISFITS.keys())
async def test_an_answer_that_does_not_fit_is_refused_by_field(
    tmp_path: Path, asked: approval_pb2.ApprovalRequested, decision: approval_pb2.Decision, field: str
) -> None:
    """And the approval stays open for one that does."""
    async with serving(asking(asked), tmp_path) as caller:
        call, resolving = await ask(caller)
        resolving.decision.CopyFrom(decision)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await caller.stub.ResolveApproval(resolving)
        resolving.decision.CopyFrom(approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_DENY))
        await caller.stub.ResolveApproval(resolving)
        events = await collect(call)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (refusal.value.details() or "")
    assert events[-1].HasField("turn_completed")


async def test_an_elicitation_and_questions_are_answered(tmp_path: Path) -> None:
    """What was answered reaches the agent as it is."""
    content = approval_pb2.Decision(kind=ANSWER, content_json='{"n": 7}')
    chosen = approval_pb2.Decision(
        kind=ANSWER,
        answers=[
            approval_pb2.Answer(question_id="one", values=["x"]),
            approval_pb2.Answer(question_id="two", values=["x", "y"]),
        ],
    )
    for asked, decision in ((FORM, content), (QUESTIONS, chosen)):
        provider = asking(asked)
        async with serving(provider, tmp_path) as caller:
            call, resolving = await ask(caller)
            resolving.decision.CopyFrom(decision)
            await caller.stub.ResolveApproval(resolving)
            await collect(call)
        assert provider.agents[0].decisions == [decision]


async def test_silence_while_an_approval_is_open_is_not_the_agents(tmp_path: Path) -> None:
    """The idle timeout is shorter than the caller takes to answer; the deadline holds all the same."""
    limits = options_pb2.Limits()
    limits.idle_timeout.FromMilliseconds(50)
    limits.deadline.FromMilliseconds(400)
    async with serving(asking(COMMAND), tmp_path) as caller:
        call, _ = await ask(caller, limits=limits)
        events = await collect(call)

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_TIMEOUT
    assert [event.approval_resolved.decided_by for event in events if event.HasField("approval_resolved")] == [
        approval_pb2.DECIDED_BY_TURN_END
    ]


async def test_what_is_allowed_for_a_session_outlives_the_service(tmp_path: Path) -> None:
    """And is gone with the session; another session is asked."""
    async with serving(asking(COMMAND), tmp_path) as caller:
        call, resolving = await ask(caller)
        resolving.decision.kind = approval_pb2.DECISION_KIND_ALLOW_FOR_SESSION
        await caller.stub.ResolveApproval(resolving)
        session_id = (await collect(call))[0].session_id
    async with serving(asking(COMMAND), tmp_path) as caller:
        same = await caller.run("ask", session_id=session_id)
        other, resolving = await ask(caller)
        resolving.decision.kind = approval_pb2.DECISION_KIND_DENY
        await asyncio.gather(caller.stub.ResolveApproval(resolving), collect(other))

    assert not any(event.HasField("approval_requested") for event in same)


@pytest.mark.parametrize(
    ("path", "is_asked"), [("a/b.txt", False), ("/etc/passwd", True), ("../other/a.txt", True), ("", True)]
)
async def test_accept_edits_accepts_what_is_inside_the_workspace(tmp_path: Path, path: str, is_asked: bool) -> None:
    """Nothing else."""
    asked = approval_pb2.ApprovalRequested(
        file_change=item_pb2.FileChangeItem(changes=[item_pb2.FileChange(path=path)])
    )
    permissions = options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_ACCEPT_EDITS)
    permissions.approval_timeout.FromMilliseconds(50)
    async with serving(asking(asked), tmp_path) as caller:
        events: list[event_pb2.Event] = await caller.run("ask", permissions=permissions)

    assert any(event.HasField("approval_requested") for event in events) is is_asked
