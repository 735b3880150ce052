"""What outlives a provider's service, over the real CLIs."""

import shutil
from pathlib import Path

import pytest

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2, item_pb2
from alive_kit.testing.harness import serving
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Fault, Reply, ScriptedModel, WriteFile

from .conftest import KEY, PROVIDERS, Subject, configured, items, said


@requirement("session:restart")
@pytest.mark.parametrize("name", PROVIDERS)
async def test_sessions_and_streams_outlive_the_service(name: str, model: ScriptedModel, directory: Path) -> None:
    """One turn ends, one is cut off: its files as they are then are what the next service starts with."""
    (directory / "key").write_text(KEY)
    before, after = directory / "before", directory / "after"
    (before / "workspaces/demo").mkdir(parents=True)
    remembered = model.script(f"{name}-before", [Reply(text="The word is curlew.")])
    stalling = model.script(f"{name}-cut", [Reply(text="This is cut off.", chunk=4, fault=Fault(stall_after=2))])
    resumed = model.script(f"{name}-after", [Reply(text="Next.")])
    with configured(name, model.url, directory / "key") as create:
        async with serving(create(), before, homes=directory / "homes", workspaces=before / "workspaces") as caller:
            ended = await caller.run(remembered, turn_id="ended")
            session_id = ended[0].session_id
            call = caller.start(stalling, turn_id="cut", session_id=session_id)
            seen: list[event_pb2.Event] = []
            while not any(event.HasField("item_delta") for event in seen):
                seen.extend((await call.read()).events)
            shutil.copytree(before / "state", after / "state")
        async with serving(create(), after, homes=directory / "homes", workspaces=before / "workspaces") as caller:
            watched = await caller.watch("ended")
            cut = await caller.watch("cut")
            again = await caller.run(resumed, session_id=session_id)

    assert watched == ended
    assert cut[: len(seen)] == seen
    assert [event.seq for event in cut] == list(range(1, len(cut) + 1))
    assert cut[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_CRASHED
    assert items(cut, "message")[-1].status == item_pb2.ITEM_STATUS_FAILED
    assert said(again) == "Next."
    assert "curlew" in str(model.journal.entries(f"{name}-after")[0].body)


@requirement("item:content")
async def test_an_item_that_was_cut_is_read_whole(subject: Subject) -> None:
    """A file whose diff is larger than an event."""
    subject.workspace("large")
    content = "".join(f"line {number}\n" for number in range(40_000))
    script = subject.script("large", Reply(actions=[WriteFile(path="large.txt", content=content)]), Reply(text="Done."))
    events = await subject.caller.run(script, workspace_id="large")
    shown = items(events, "file_change")[0]
    asked = agent_service_pb2.ReadItemContentRequest(
        workspace_id="large", turn_id=events[0].turn_id, item_id=shown.item_id
    )
    chunks = [chunk.data async for chunk in subject.caller.stub.ReadItemContent(asked)]
    whole = item_pb2.Item.FromString(b"".join(chunks))

    assert shown.omitted_bytes > 0
    assert whole.file_change.changes[0].path == "large.txt"
    assert whole.file_change.changes[0].diff.count("\n+line ") == 40_000
