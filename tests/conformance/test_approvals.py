"""What agents ask, and what comes of the answers."""

import asyncio
import json
from collections.abc import Iterable

import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, approval_pb2, event_pb2, item_pb2, options_pb2, provider_pb2
from alive_kit.testing.harness import collect, request
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import AskUser, CallTool, EditFile, RawTool, Reply, RunCommand, WriteFile

from .conftest import Subject, items, said
from .test_mcp import asking, notes

ONCE = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ALLOW_ONCE)
SESSION = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ALLOW_FOR_SESSION)
DENY = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_DENY, message="Use the other one.")
STOP = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_DENY_AND_INTERRUPT, message="That is enough.")
ASK = options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_ASK)
ACCEPT_EDITS = options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_ACCEPT_EDITS)


class Talk:
    """A turn that asks, and a caller who answers."""

    def __init__(self, subject: Subject, prompt: str, **fields: object) -> None:
        self.subject = subject
        self.call = subject.caller.start(prompt, **{"permissions": ASK, **fields})
        self.workspace_id = str(fields.get("workspace_id", "demo"))
        self.events: list[event_pb2.Event] = []
        self.asked: list[approval_pb2.ApprovalRequested] = []

    async def question(self) -> approval_pb2.ApprovalRequested | None:
        """Read on until something is asked; None when the turn ended."""
        while (response := await self.call.read()) is not grpc.aio.EOF:
            self.events.extend(response.events)
            for event in response.events:
                if event.HasField("approval_requested"):
                    self.asked.append(event.approval_requested)
                    return event.approval_requested
        return None

    async def answer(self, decision: approval_pb2.Decision) -> None:
        """Answer the latest question."""
        await self.subject.caller.stub.ResolveApproval(self.resolving(decision))

    def resolving(self, decision: approval_pb2.Decision) -> approval_pb2.ResolveApprovalRequest:
        """Return the request that answers the latest question."""
        return approval_pb2.ResolveApprovalRequest(
            workspace_id=self.workspace_id,
            turn_id=self.events[0].turn_id,
            approval_id=self.asked[-1].approval_id,
            decision=decision,
        )

    async def run(self, *decisions: approval_pb2.Decision) -> list[event_pb2.Event]:
        """Answer every question with the next decision, and return all events."""
        remaining = list(decisions)
        while await self.question():
            await self.answer(remaining.pop(0))
        assert not remaining
        return self.events


def resolved(events: Iterable[event_pb2.Event]) -> list[approval_pb2.ApprovalResolved]:
    """Return what was decided."""
    return [event.approval_resolved for event in events if event.HasField("approval_resolved")]


@requirement("approval:command")
async def test_a_command_is_asked_for_and_runs_once_it_is_allowed(subject: Subject) -> None:
    """A command that only reads is asked for too."""
    prompt = subject.script("ask-run", Reply(actions=[RunCommand(command="ls /usr")]), Reply(text="Done."))
    talk = Talk(subject, prompt)
    events = await talk.run(ONCE)
    command = items(events, "command")[0]

    assert talk.asked[0].command.command == command.command.command == "ls /usr"
    assert talk.asked[0].command.cwd == "."
    assert talk.asked[0].item_id == command.item_id
    assert talk.asked[0].HasField("expire_time")
    assert "bin" in command.command.output
    assert resolved(events)[0].decision == ONCE
    assert resolved(events)[0].decided_by == approval_pb2.DECIDED_BY_CALLER
    assert events[0].turn_started.approval_policy == options_pb2.APPROVAL_POLICY_ASK
    assert said(events) == "Done."


@requirement("approval:command")
async def test_a_command_that_is_denied_does_not_run(subject: Subject) -> None:
    """The agent goes on without it; its item is declined."""
    workspace = subject.workspace("denied")
    prompt = subject.script("ask-deny", Reply(actions=[RunCommand(command="touch made")]), Reply(text="Then not."))
    events = await Talk(subject, prompt, workspace_id="denied").run(DENY)

    assert not (workspace / "made").exists()
    assert items(events, "command")[0].status == item_pb2.ITEM_STATUS_DECLINED
    assert said(events) == "Then not."


@requirement("approval:file-change")
async def test_a_file_change_is_asked_for_with_a_diff(subject: Subject) -> None:
    """One file is allowed, the other denied."""
    workspace = subject.workspace("asked-files")
    yes, no = WriteFile(path="yes.txt", content="heron\n"), WriteFile(path="no.txt", content="stork\n")
    prompt = subject.script("ask-write", Reply(actions=[yes]), Reply(actions=[no]), Reply(text="Done."))
    talk = Talk(subject, prompt, workspace_id="asked-files")
    events = await talk.run(ONCE, DENY)

    assert [asked.file_change.changes[0].path for asked in talk.asked] == ["yes.txt", "no.txt"]
    assert "+heron" in talk.asked[0].file_change.changes[0].diff
    assert (workspace / "yes.txt").read_text() == "heron\n"
    assert not (workspace / "no.txt").exists()
    assert items(events, "file_change")[1].status == item_pb2.ITEM_STATUS_DECLINED


@requirement("approval:file-change")
async def test_accept_edits_asks_for_commands_only(subject: Subject) -> None:
    """A file is written and changed without a question, a command is not run without one."""
    workspace = subject.workspace("edits")
    prompt = subject.script(
        "edits",
        Reply(actions=[WriteFile(path="a.txt", content="heron\n")]),
        Reply(actions=[EditFile(path="a.txt", old="heron", new="stork")]),
        Reply(actions=[RunCommand(command="touch made")]),
        Reply(text="Done."),
    )
    talk = Talk(subject, prompt, workspace_id="edits", permissions=ACCEPT_EDITS)
    await talk.run(DENY)

    assert [asked.WhichOneof("subject") for asked in talk.asked] == ["command"]
    assert (workspace / "a.txt").read_text() == "stork\n"
    assert not (workspace / "made").exists()


@requirement("approval:tool")
async def test_a_tool_of_an_mcp_server_is_asked_for_unless_it_only_reads(subject: Subject) -> None:
    """One server, two tools."""
    prompt = subject.script(
        "ask-tool",
        Reply(actions=[CallTool(server="notes", tool="peek")]),
        Reply(actions=[CallTool(server="notes", tool="add", arguments={"a": 1, "b": 2})]),
        Reply(actions=[CallTool(server="notes", tool="add", arguments={"a": 3, "b": 4})]),
        Reply(text="Done."),
    )
    talk = Talk(subject, prompt, mcp_servers=[notes(subject)])
    events = await talk.run(ONCE, DENY)
    calls = items(events, "tool_call")

    assert [(asked.tool_call.server, asked.tool_call.tool) for asked in talk.asked] == [("notes", "add")] * 2
    assert json.loads(talk.asked[0].tool_call.arguments_json) == {"a": 1, "b": 2}
    assert [call.status for call in calls[:2]] == [item_pb2.ITEM_STATUS_COMPLETED] * 2
    assert calls[2].status in {item_pb2.ITEM_STATUS_DECLINED, item_pb2.ITEM_STATUS_FAILED}
    assert said(events) == "Done."


@requirement("approval:once")
async def test_what_is_allowed_runs_once_and_within_its_walls(subject: Subject) -> None:
    """Also what they stop: it writes into the workspace, connects to a port of the host, and fails where it may not."""
    port = subject.model.url.rpartition(":")[2]
    connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
    command = RunCommand(command=f'echo ran >> runs; python3 -c "{connect}"')
    workspace = subject.workspace("once")
    prompt = subject.script("once", Reply(actions=[command]), Reply(text="Tried."))
    (item,) = items(await Talk(subject, prompt, workspace_id="once").run(ONCE), "command")

    assert (workspace / "runs").read_text() == "ran\n"
    assert (item.status == item_pb2.ITEM_STATUS_FAILED) is subject.boxed


@requirement("approval:escalation")
async def test_a_command_that_is_to_leave_the_sandbox_is_asked_for(subject: Subject) -> None:
    """As any other; what is denied does not run."""
    workspace = subject.workspace("escalation")
    actions = [leaving(subject, f"touch {name}") for name in ("allowed", "denied")]
    replies = [Reply(actions=[action]) for action in actions]
    talk = Talk(subject, subject.script("leaving", *replies, Reply(text="Done.")), workspace_id="escalation")
    await talk.run(ONCE, DENY)

    assert [asked.command.command for asked in talk.asked] == ["touch allowed", "touch denied"]
    assert {asked.reason for asked in talk.asked} == {"It needs to." if isinstance(actions[0], RawTool) else ""}
    assert (workspace / "allowed").exists()
    assert not (workspace / "denied").exists()


def leaving(subject: Subject, command: str) -> RawTool | RunCommand:
    """Return a command with which the model asks to run it outside of the CLI's own sandbox, where there is one."""
    match subject.name:
        case "claude":
            more = {"command": command, "dangerouslyDisableSandbox": True, "description": "It needs to."}
            return RawTool(name="Bash", arguments=more)
        case "codex":
            more = {"cmd": command, "sandbox_permissions": "require_escalated", "justification": "It needs to."}
            return RawTool(name="exec_command", arguments=more)
        case _:
            return RunCommand(command=command)


@requirement("approval:session")
async def test_what_is_allowed_for_the_session_is_not_asked_again(subject: Subject) -> None:
    """Neither in the same turn nor in the next; another command is."""
    again = RunCommand(command="echo heron")
    prompt = subject.script("for-session", Reply(actions=[again]), Reply(actions=[again]), Reply(text="Done."))
    first = Talk(subject, prompt)
    events = await first.run(SESSION)
    other = RunCommand(command="echo stork")
    prompt = subject.script("for-session-2", Reply(actions=[again]), Reply(actions=[other]), Reply(text="Done."))
    second = Talk(subject, prompt, session_id=events[0].session_id)
    await second.run(ONCE)

    assert len(items(events, "command")) == 2
    assert [asked.command.command for asked in second.asked] == ["echo stork"]


@requirement("approval:interrupt")
async def test_deny_and_interrupt_ends_the_turn(subject: Subject) -> None:
    """By decision; nothing ran."""
    workspace = subject.workspace("stopped")
    prompt = subject.script("stop", Reply(actions=[RunCommand(command="touch made")]), Reply(text="Never."))
    events = await Talk(subject, prompt, workspace_id="stopped").run(STOP)

    assert events[-1].turn_interrupted.interrupted_by == event_pb2.INTERRUPTED_BY_DECISION
    assert events[-1].turn_interrupted.reason == "That is enough."
    assert not (workspace / "made").exists()


@requirement("approval:interrupt")
async def test_a_pending_approval_holds_up_nobody(subject: Subject) -> None:
    """Another turn runs meanwhile; an interrupt ends the one that waits, and a late answer changes nothing."""
    prompt = subject.script("pending", Reply(actions=[RunCommand(command="touch made")]), Reply(text="Never."))
    talk = Talk(subject, prompt, turn_id=f"{subject.kind}-pending")
    await talk.question()
    other = await subject.caller.run(subject.script("meanwhile", Reply(text="Me first.")))
    async with asyncio.timeout(5):
        await subject.caller.interrupt(f"{subject.kind}-pending")
    talk.events += await collect(talk.call)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await talk.answer(ONCE)
    again = await subject.caller.run(
        subject.script("after-pending", Reply(text="Next.")), session_id=talk.events[0].session_id
    )

    assert said(other) == "Me first."
    assert talk.events[-1].turn_interrupted.interrupted_by == event_pb2.INTERRUPTED_BY_CALLER
    assert resolved(talk.events)[0].decided_by == approval_pb2.DECIDED_BY_TURN_END
    assert late.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert said(again) == "Next."


@requirement("approval:timeout")
async def test_an_approval_that_nobody_answers_is_denied(subject: Subject) -> None:
    """The turn goes on without it."""
    workspace = subject.workspace("unanswered")
    prompt = subject.script("silent", Reply(actions=[RunCommand(command="touch made")]), Reply(text="Then not."))
    permissions = options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_ASK)
    permissions.approval_timeout.FromMilliseconds(200)
    events = await subject.caller.run(prompt, workspace_id="unanswered", permissions=permissions)

    assert resolved(events)[0].decided_by == approval_pb2.DECIDED_BY_TIMEOUT
    assert not (workspace / "made").exists()
    assert said(events) == "Then not."


@requirement("approval:changed")
async def test_a_command_runs_with_changed_input_or_the_answer_is_refused(subject: Subject) -> None:
    """What can be changed says so, and shows its input."""
    workspace = subject.workspace("changed")
    prompt = subject.script("changed", Reply(actions=[RunCommand(command="touch asked")]), Reply(text="Done."))
    talk = Talk(subject, prompt, workspace_id="changed")
    asked = await talk.question()
    assert asked is not None
    arguments = json.loads(asked.input_json or "{}")
    changed = approval_pb2.Decision(
        kind=approval_pb2.DECISION_KIND_ALLOW_ONCE,
        changed_input_json=json.dumps({**arguments, "command": "touch changed"}),
    )
    if asked.accepts_changed_input:
        await talk.answer(changed)
    else:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await talk.answer(changed)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "decision.changed_input_json" in (refusal.value.details() or "")
        await talk.answer(ONCE)
    await talk.run()

    assert (workspace / "changed").exists() is asked.accepts_changed_input
    assert (workspace / "asked").exists() is not asked.accepts_changed_input


@requirement("approval:question")
async def test_a_question_is_asked_and_its_answer_reaches_the_model(subject: Subject) -> None:
    """With its options; the answer is a text of the user's own."""
    question = AskUser(question="Which bird?", options=["Heron", "Stork"])
    prompt = subject.script("question", Reply(actions=[question]), Reply(text="An egret."))
    talk = Talk(subject, prompt)
    asked = await talk.question()
    assert asked is not None
    answer = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ANSWER)
    answer.answers.add(question_id=asked.questions.questions[0].question_id, values=["Egret"])
    await talk.answer(answer)
    events = await talk.run()

    assert asked.questions.questions[0].text == "Which bird?"
    assert [option.label for option in asked.questions.questions[0].options][:2] == ["Heron", "Stork"]
    assert "Egret" in json.dumps(subject.bodies("question")[1])
    assert said(events) == "An egret."


@requirement("approval:elicitation")
@pytest.mark.parametrize("answer", ["given", "denied"])
async def test_what_an_mcp_server_asks_the_user_is_asked(subject: Subject, answer: str) -> None:
    """With its schema, which the answer must satisfy; the server gets it, or hears that there is none."""
    call = Reply(actions=[CallTool(server="asking", tool="greet")])
    prompt = subject.script(f"elicit-{answer}", call, Reply(text="Hello."))
    talk = Talk(subject, prompt, mcp_servers=[asking(subject)])
    asked = await talk.question()
    assert asked is not None
    given = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ANSWER, content_json='{"name": "Egret"}')
    misfit = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ANSWER, content_json='{"name": 7}')
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await talk.answer(misfit)
    await talk.answer(given if answer == "given" else DENY)
    (item,) = items(await talk.run(), "tool_call")
    result = json.loads(item.tool_call.result[0].text)

    assert (asked.elicitation.server, asked.elicitation.message) == ("asking", "Who are you?")
    assert json.loads(asked.elicitation.schema_json)["required"] == ["name"]
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "decision.content_json" in (refusal.value.details() or "")
    if answer == "given":
        assert (result["action"], result["content"]) == ("accept", {"name": "Egret"})
    else:
        assert result["action"] == "decline"


POLICIES = {
    #                 command, file, tool that reads, tool, question, what a server asks
    "BYPASS": ("ran", "ran", "ran", "ran", "refused", "refused"),
    "ASK": ("asked", "asked", "ran", "asked", "asked", "asked"),
    "ACCEPT_EDITS": ("asked", "ran", "ran", "asked", "asked", "asked"),
    "PLAN": ("refused", "refused", "ran", "refused", "refused", "refused"),
}


@requirement("approval:policy")
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_policy_means_the_same_for_every_provider(subject: Subject, policy: str) -> None:
    """The model tries everything; what is asked is denied."""
    name = f"policy-{policy.lower().replace('_', '-')}"
    workspace = subject.workspace(name)
    tries = [
        RunCommand(command="touch command"),
        WriteFile(path="file", content="heron\n"),
        CallTool(server="notes", tool="peek"),
        CallTool(server="notes", tool="add", arguments={"a": 1, "b": 2}),
        AskUser(question="Which bird?", options=["Heron", "Stork"]),
        CallTool(server="asking", tool="greet"),
    ]
    permissions = options_pb2.Permissions(approval_policy=f"APPROVAL_POLICY_{policy}")
    prompt = subject.script(name, *(Reply(actions=[action]) for action in tries), Reply(text="Done."))
    servers = [notes(subject), asking(subject)]
    talk = Talk(subject, prompt, workspace_id=name, permissions=permissions, mcp_servers=servers)
    while await talk.question():
        await talk.answer(approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_DENY))
    results = {item.tool_call.tool: text(item) for item in items(talk.events, "tool_call")}
    subjects = {asked.tool_call.tool or asked.WhichOneof("subject") for asked in talk.asked}
    tried = {
        "command": (workspace / "command").exists(),
        "file_change": (workspace / "file").exists(),
        "peek": "nothing" in results.get("peek", ""),
        "add": "3" in results.get("add", ""),
        "questions": False,
        "elicitation": "accept" in results.get("greet", ""),
    }
    outcomes = ("asked" if what in subjects else "ran" if has_run else "refused" for what, has_run in tried.items())

    assert said(talk.events) == "Done."
    assert tuple(outcomes) == POLICIES[policy]


def text(item: item_pb2.Item) -> str:
    """Return what a tool answered."""
    return "".join(part.text for part in item.tool_call.result)


@requirement("approval:answer")
async def test_an_answer_that_does_not_fit_changes_nothing(subject: Subject) -> None:
    """Each is refused in its own way; then the right one is taken, once."""
    prompt = subject.script("misfit", Reply(actions=[RunCommand(command="true")]), Reply(text="Done."))
    talk = Talk(subject, prompt)
    await talk.question()
    right = talk.resolving(ONCE)
    wrong = {
        "unknown turn": ({"turn_id": "nobody"}, grpc.StatusCode.NOT_FOUND),
        "unknown approval": ({"approval_id": "nothing"}, grpc.StatusCode.NOT_FOUND),
        "no kind": ({"decision": approval_pb2.Decision()}, grpc.StatusCode.INVALID_ARGUMENT),
        "answer to no question": (
            {"decision": approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ANSWER)},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    }
    codes = {}
    for name, (fields, _) in wrong.items():
        bad = approval_pb2.ResolveApprovalRequest()
        bad.CopyFrom(right)
        bad.ClearField(next(iter(fields)))
        bad.MergeFrom(approval_pb2.ResolveApprovalRequest(**fields))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await subject.caller.stub.ResolveApproval(bad)
        codes[name] = refusal.value.code()
    await subject.caller.stub.ResolveApproval(right)
    with pytest.raises(grpc.aio.AioRpcError) as twice:
        await subject.caller.stub.ResolveApproval(right)
    events = await talk.run()

    assert codes == {name: code for name, (_, code) in wrong.items()}
    assert twice.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(resolved(events)) == 1


@requirement("steer")
async def test_a_running_turn_is_steered_or_the_provider_says_that_it_cannot(subject: Subject) -> None:
    """While a command waits for permission; afterwards the turn has ended."""
    prompt = subject.script("steered", Reply(actions=[RunCommand(command="true")]), Reply(text="Done.", repeat=3))
    talk = Talk(subject, prompt)
    await talk.question()
    part = request("Think of the heron.").input
    steering = agent_service_pb2.SteerTurnRequest(workspace_id="demo", turn_id=talk.events[0].turn_id, input=part)
    can = subject.capability("SteerTurn").support != provider_pb2.CAPABILITY_SUPPORT_UNSUPPORTED
    if can:
        await subject.caller.stub.SteerTurn(steering)
    else:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await subject.caller.stub.SteerTurn(steering)
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await talk.answer(ONCE)
    events = await talk.run()
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await subject.caller.stub.SteerTurn(steering)

    assert ("Think of the heron." in subject.sent("steered")) is can
    assert users(events)[1:] == ["Think of the heron."] * can
    assert events[-1].HasField("turn_completed")
    assert late.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def users(events: Iterable[event_pb2.Event]) -> list[str]:
    """Return what the user said."""
    completed = [event.item_completed.item for event in events if event.HasField("item_completed")]
    return [item.message.text for item in completed if item.message.role == item_pb2.ROLE_USER]


@requirement("steer")
@pytest.mark.parametrize("count", [1, 2])
async def test_what_is_added_to_the_last_answer_is_answered_in_the_same_turn(subject: Subject, count: int) -> None:
    """Its usage is the turn's; then the session takes its next turn, which has an answer of its own."""
    if subject.capability("SteerTurn").support == provider_pb2.CAPABILITY_SUPPORT_UNSUPPORTED:
        pytest.skip("it cannot be steered")
    slow = Reply(text="This takes a while to say.", chunk=2, gap=0.1)
    name = f"late-{count}"
    prompt = subject.script(name, slow, Reply(text="About the heron.", repeat=count), Reply(text="Next."))
    call, events = subject.caller.start(prompt), list[event_pb2.Event]()
    while not any(event.HasField("item_delta") for event in events):
        events += (await call.read()).events
    ids = {"workspace_id": "demo", "turn_id": events[0].turn_id}
    for number in range(count):
        part = request(f"Think of heron {number}.").input
        await subject.caller.stub.SteerTurn(agent_service_pb2.SteerTurnRequest(**ids, input=part))
    events += await collect(call)
    told = subject.bodies(name)
    after = await subject.caller.run("and now", session_id=events[0].session_id)

    assert users(events)[1:] == [f"Think of heron {number}." for number in range(count)]
    assert all(f"Think of heron {number}." in json.dumps(told[-1]) for number in range(count))
    assert len(told) > 1
    assert "About the heron." in [item.message.text for item in items(events, "message")]
    assert 1 <= events[-1].turn_completed.usage.model_requests <= len(told)  # What was cut short may not be counted.
    assert sum(event.HasField("turn_started") for event in events) == 1
    assert after[-1].turn_completed.usage.model_requests == 1
    assert said(after) in {"About the heron.", "Next."}
