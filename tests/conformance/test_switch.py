"""A session that goes from one provider to the other and back, over the real CLIs behind a real router."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from alive.agent.v1 import session_pb2, workspace_service_pb2, workspace_service_pb2_grpc
from alive_kit.testing.harness import Caller, calling, serving
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import Reply, RunCommand, ScriptedModel, WriteFile
from alive_router.service import RouterService
from alive_router.settings import RouterSettings

from .conftest import KEY, PROVIDERS, configured, notices, said


@contextlib.asynccontextmanager
async def routed(model: ScriptedModel, directory: Path, *, wrong_key: str = "") -> AsyncIterator[Caller]:
    """Run a router in front of every provider, one of them with a wrong key, and yield a caller of it."""
    for name in PROVIDERS:
        (directory / f"{name}.key").write_text("wrong" if name == wrong_key else KEY)
    workspaces = directory / "workspaces"
    (workspaces / "demo").mkdir(parents=True)
    async with contextlib.AsyncExitStack() as exits:
        for name in PROVIDERS:
            with configured(name, model.url, directory / f"{name}.key") as create:
                provider = create()
            (directory / name).mkdir()
            await exits.enter_async_context(serving(provider, directory / name, workspaces=workspaces))
        address = f"unix:{directory}/router.sock"
        endpoints = {name: f"unix:{directory}/{name}/agent.sock" for name in PROVIDERS}
        settings = RouterSettings(listen=address, providers=endpoints, workspaces=workspaces, state_dir=directory)
        router = await RouterService.create(settings)
        await router.start()
        exits.push_async_callback(router.stop, 0.0)
        yield await exits.enter_async_context(calling(address, workspaces))


@requirement("session:switch")
@pytest.mark.parametrize("here", PROVIDERS)
async def test_a_session_goes_to_another_provider_and_back(here: str, model: ScriptedModel, directory: Path) -> None:
    """Every model request carries what was said and done before, whoever did it, and nothing twice."""
    there = next(name for name in PROVIDERS if name != here)
    scripts = {
        "first": [
            Reply(actions=[WriteFile(path="bird.txt", content="turnstone\n")]),
            Reply(actions=[RunCommand(command="cat bird.txt; exit 3")]),
            Reply(text="The word is whimbrel."),
        ],
        "second": [Reply(text="It was whimbrel. Now it is godwit.")],
        "third": [Reply(text="Whimbrel, then godwit.")],
    }
    prompts = {name: model.script(f"{here}-{name}", replies) for name, replies in scripts.items()}
    async with routed(model, directory) as caller:
        first = await caller.run(prompts["first"], provider_id=here)
        session_id = first[0].session_id
        second = await caller.run(prompts["second"], session_id=session_id, provider_id=there)
        third = await caller.run(prompts["third"], session_id=session_id, provider_id=here)
        asked = session_pb2.ListItemsRequest(workspace_id="demo", session_id=session_id)
        items = (await caller.stub.ListItems(asked)).items
        sent = {name: str(model.journal.entries(f"{here}-{name}")[-1].body) for name in scripts}

    assert [events[0].provider_id for events in (first, second, third)] == [here, there, here]
    assert third[0].turn_started.resumed
    for words in ("whimbrel", "bird.txt", "turnstone", "exit code 3", f"{here} ran this", "cat bird.txt"):
        assert words in sent["second"], words
    assert "now it is godwit" in sent["third"].lower()
    assert f"{there} said" in sent["third"]
    assert sent["third"].count("It was whimbrel.") == 1
    assert f"{here} said" not in sent["third"]
    assert [notices(events).count("session_moved") for events in (first, second, third)] == [0, 1, 1]
    assert said(third) == "Whimbrel, then godwit."
    made = [entry.item.provider_id for entry in items]
    assert made == [*[here] * (len(items) - 4), there, there, here, here]
    assert [entry.turn_id for entry in items][-4:] == [second[0].turn_id] * 2 + [third[0].turn_id] * 2


@requirement("turn:failover")
@pytest.mark.parametrize("here", PROVIDERS)
async def test_a_turn_that_one_vendor_refuses_is_taken_over(here: str, model: ScriptedModel, directory: Path) -> None:
    """The vendor of the chosen provider refuses the key: the other one answers, in the same stream."""
    there = next(name for name in PROVIDERS if name != here)
    prompt = model.script(f"{here}-refused", [Reply(text="I take it.")])
    async with routed(model, directory, wrong_key=here) as caller:
        workspaces = workspace_service_pb2_grpc.WorkspaceServiceStub(caller.channel)
        update = workspace_service_pb2.UpdateWorkspaceRequest(
            workspace_id="demo", settings={"failover": {"provider_ids": [there]}}
        )
        await workspaces.UpdateWorkspace(update)
        events = await caller.run(prompt, provider_id=here, turn_id="t")
        watched = await caller.watch("t")

    assert {event.provider_id for event in events} == {there}
    assert notices(events)[0] == "failover"
    assert said(events) == "I take it."
    assert events == watched
