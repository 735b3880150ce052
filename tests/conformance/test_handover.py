"""What another agent said and did reaches the model with the next request."""

from alive.agent.v1 import item_pb2, options_pb2, session_pb2
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply

from .conftest import Subject, said

HISTORY = options_pb2.History(
    omitted="The 3 oldest entries were left out.",
    items=[
        item_pb2.Item(message=item_pb2.MessageItem(role=item_pb2.ROLE_USER, text="Name a bird.")),
        item_pb2.Item(
            provider_id="other", message=item_pb2.MessageItem(role=item_pb2.ROLE_AGENT, text="It is a whimbrel.")
        ),
        item_pb2.Item(
            provider_id="other",
            status=item_pb2.ITEM_STATUS_FAILED,
            command=item_pb2.CommandItem(command="cat bird.txt", cwd=".", output="no such file", exit_code=1),
        ),
        item_pb2.Item(
            provider_id="other",
            file_change=item_pb2.FileChangeItem(
                changes=[
                    item_pb2.FileChange(
                        path="bird.txt", kind=item_pb2.FILE_CHANGE_KIND_ADD, diff="@@ -0,0 +1 @@\n+whimbrel\n"
                    )
                ]
            ),
        ),
        item_pb2.Item(
            provider_id="other",
            plan=item_pb2.PlanItem(
                steps=[item_pb2.PlanStep(text="draw it", state=item_pb2.PLAN_STEP_STATE_IN_PROGRESS)]
            ),
        ),
    ],
)


@requirement("session:handover")
async def test_history_reaches_the_model_before_the_input(subject: Subject) -> None:
    """Messages, commands, files, the plan; the transcript holds the input alone, and repeating is the same call."""
    prompt = subject.script("told", Reply(text="A whimbrel."))
    events = await subject.caller.run(prompt, history=HISTORY, turn_id="told")
    repeated = await subject.caller.run(prompt, turn_id="told")
    sent = subject.sent("told")

    for words in ("3 oldest", "Name a bird.", "other said", "It is a whimbrel.", "exit code 1", "no such file",
                  "other added the file bird.txt", "+whimbrel", "[>] draw it"):  # fmt: skip
        assert words in sent
    assert sent.rindex("Name a bird.") < sent.rindex("[script:")
    assert said(events) == "A whimbrel."
    assert repeated == events
    asked = session_pb2.ListItemsRequest(workspace_id="demo", session_id=events[0].session_id)
    listed = (await subject.caller.stub.ListItems(asked)).items
    assert [entry.item.message.text for entry in listed] == [prompt, "A whimbrel."]


@requirement("session:handover")
async def test_history_that_did_not_reach_the_model_reaches_it_with_the_next_turn(subject: Subject) -> None:
    """The first turn fails before the model answers; what was told once is not told again."""
    refused = subject.script("untold", Reply(fault=Fault(status=401), repeat=20))
    first = await subject.caller.run(refused, history=HISTORY)
    session_id = first[0].session_id
    second = await subject.caller.run(subject.script("untold-2", Reply(text="Now I know.")), session_id=session_id)
    await subject.caller.run(subject.script("untold-3", Reply(text="Still.")), session_id=session_id)
    last = str(subject.bodies("untold-3")[-1])

    assert first[-1].HasField("turn_failed")
    assert said(second) == "Now I know."
    assert "It is a whimbrel." in subject.sent("untold-2")
    assert last.count("It is a whimbrel.") == subject.sent("untold-2").count("It is a whimbrel.")
