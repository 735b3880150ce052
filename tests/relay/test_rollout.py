"""To whom providers are rolled out, and what becomes of those who had one that is rolled back."""

from typing import Any

import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, error_pb2, event_pb2, workspace_service_pb2
from alive_kit.failures import failure
from alive_kit.testing.fakes import started
from alive_router.audience import admits, audience_of, place
from alive_router.settings import RouterSettings

from .conftest import System, beside, running
from .test_choice import refusal, update

Rollout = workspace_service_pb2.Rollout
Settings = workspace_service_pb2.WorkspaceSettings


async def roll(system: System, provider_id: str = "blue", **fields: Any) -> Rollout:
    """Change a rollout."""
    rollout = Rollout(**{"provider_id": provider_id, "enabled": True, **fields})
    return (await system.workspaces.UpdateRollout(workspace_service_pb2.UpdateRolloutRequest(rollout=rollout))).rollout


async def listed(system: System, workspace_id: str = "demo") -> dict[str, tuple[bool, str]]:
    """Return whether a workspace may use each provider, and why not."""
    request = workspace_service_pb2.ListProvidersRequest(workspace_id=workspace_id)
    answer = await system.workspaces.ListProviders(request)
    return {entry.info.provider_id: (entry.usable, entry.reason) for entry in answer.providers}


def rolled_back(events: list[event_pb2.Event]) -> list[str]:
    """Return what a turn says of a provider that is no longer its workspace's."""
    return [event.notice.message for event in events if event.notice.code == "provider_rolled_back"]


async def test_a_provider_is_only_for_those_to_whom_it_is_rolled_out(system: System) -> None:
    """Others are refused, however they name it, and told so by ListProviders; the list is changed without a restart."""
    (system.caller.workspaces / "other").mkdir()
    await roll(system, workspace_ids=["other"])
    asked = await refusal(system.caller.run("hello", provider_id="blue"))
    checked = await refusal(system.caller.run("hello", provider_id="blue", validate_only=True))
    set_ = await refusal(update(system, Settings(provider_id="blue")))
    failover = await refusal(update(system, Settings(failover={"provider_ids": ["blue"]})))
    shown, shown_other = await listed(system), await listed(system, "other")
    other = await system.caller.run("hello", provider_id="blue", workspace_id="other")
    await roll(system, workspace_ids=["other", "demo"])
    now = await system.caller.run("hello", provider_id="blue")

    for error in (asked, checked, set_, failover):
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert b"PROVIDER_NOT_ROLLED_OUT" in dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert not shown["blue"][0]
    assert "not rolled out" in shown["blue"][1]
    assert shown_other["blue"][0]
    assert other[0].provider_id == now[0].provider_id == "blue"


@pytest.mark.parametrize("back", [{"percentage": 0}, {"enabled": False, "percentage": 100}])
async def test_a_rollback_leaves_settings_and_uses_the_default(system: System, back: dict[str, Any]) -> None:
    """With a notice, on every router; a session there moves with its memory; rolled out again, new ones are there."""
    await roll(system, percentage=100)
    await update(system, Settings(provider_id="blue"))
    before = await system.caller.run("hello")
    await roll(system, **back)
    during = await system.caller.run("hello")
    by_name = await system.caller.run("hello", provider_id="red")
    moved = await system.caller.run("hello", session_id=before[0].session_id)
    told = [item.message.text for item in system.providers["red"].specs[-1].request.history.items]
    async with beside(system) as other:
        elsewhere = await other.caller.run("hello")
        info = await other.caller.stub.GetProviderInfo(agent_service_pb2.GetProviderInfoRequest(workspace_id="demo"))
    asked = workspace_service_pb2.GetWorkspaceRequest(workspace_id="demo")
    kept = (await system.workspaces.GetWorkspace(asked)).workspace.settings.provider_id
    await roll(system, percentage=100)
    after = await system.caller.run("hello")

    assert [events[0].provider_id for events in (before, during, elsewhere, after)] == ["blue", "red", "red", "blue"]
    assert moved[0].provider_id == "red"
    assert told == ["hello", "Hello."]
    assert rolled_back(during)
    assert rolled_back(moved)
    assert rolled_back(elsewhere)
    assert not rolled_back(by_name)
    assert not rolled_back(after)
    assert info.provider.provider_id == "red"
    assert kept == "blue"


async def test_a_rollback_leaves_no_model_of_the_other_provider(system: System) -> None:
    """The settings keep it, and a turn elsewhere is told that its provider's own one answers."""
    await update(system, Settings(provider_id="blue", agent={"model": "blue-1"}))
    await roll(system, percentage=0)
    events = await system.caller.run("hello")
    asked = workspace_service_pb2.GetWorkspaceRequest(workspace_id="demo")
    kept = (await system.workspaces.GetWorkspace(asked)).workspace.settings.agent.model

    assert events[-1].HasField("turn_completed")
    assert "model_replaced" in {event.notice.code for event in events}
    assert system.providers["red"].specs[-1].request.agent.model == ""
    assert kept == "blue-1"


async def test_a_provider_that_is_rolled_back_takes_nothing_over(system: System) -> None:
    """Though the workspace's settings name it, from before."""
    await update(system, Settings(failover={"provider_ids": ["blue"]}))
    await roll(system, percentage=0)
    system.providers["red"].scripts["go"] = [started(), failure(error_pb2.FAILURE_REASON_RATE_LIMIT)]
    events = await system.caller.run("go")

    assert events[-1].HasField("turn_failed")
    assert {event.provider_id for event in events} == {"red"}
    assert system.providers["blue"].specs == []


async def test_a_preferred_provider_comes_before_the_default(system: System) -> None:
    """For those who may use it and name nothing else."""
    (system.caller.workspaces / "other").mkdir()
    await roll(system, workspace_ids=["demo"], preferred=True)
    mine = await system.caller.run("hello")
    others = await system.caller.run("hello", workspace_id="other")
    await update(system, Settings(provider_id="red"))
    named = await system.caller.run("hello")

    assert [events[0].provider_id for events in (mine, others, named)] == ["blue", "red", "red"]


async def test_rollouts_are_read_as_they_were_set(system: System) -> None:
    """All of them or one; those of every provider that has one."""
    none = await system.workspaces.GetRollout(workspace_service_pb2.GetRolloutRequest())
    kept = await roll(system, percentage=30, owner_ids=["acme"])
    one = await system.workspaces.GetRollout(workspace_service_pb2.GetRolloutRequest(provider_id="blue"))
    red = await system.workspaces.GetRollout(workspace_service_pb2.GetRolloutRequest(provider_id="red"))

    assert not none.rollouts
    assert list(one.rollouts) == [kept]
    assert kept.HasField("update_time")
    assert not red.rollouts


@pytest.mark.parametrize(
    ("rollout", "code", "word"),
    [
        (Rollout(), grpc.StatusCode.INVALID_ARGUMENT, "rollout.provider_id"),
        (Rollout(provider_id="A b"), grpc.StatusCode.INVALID_ARGUMENT, "rollout.provider_id"),
        (Rollout(provider_id="red"), grpc.StatusCode.INVALID_ARGUMENT, "default provider"),
        (Rollout(provider_id="green"), grpc.StatusCode.NOT_FOUND, "rollout.provider_id"),
        (Rollout(provider_id="blue", percentage=101), grpc.StatusCode.INVALID_ARGUMENT, "rollout.percentage"),
        (Rollout(provider_id="blue", workspace_ids=["../x"]), grpc.StatusCode.INVALID_ARGUMENT, "workspace_ids[0]"),
        (Rollout(provider_id="blue", owner_ids=["a b"]), grpc.StatusCode.INVALID_ARGUMENT, "rollout.owner_ids[0]"),
        (Rollout(provider_id="blue", owner_ids=["a"] * 1001), grpc.StatusCode.INVALID_ARGUMENT, "rollout.owner_ids"),
    ],
)
async def test_rollouts_that_are_wrong_change_nothing(
    system: System, rollout: Rollout, code: grpc.StatusCode, word: str
) -> None:
    """The field is named."""
    request = workspace_service_pb2.UpdateRolloutRequest(rollout=rollout)
    error = await refusal(system.workspaces.UpdateRollout(request))
    left = await system.workspaces.GetRollout(workspace_service_pb2.GetRolloutRequest())

    assert error.code() is code
    assert word in (error.details() or "")
    assert not left.rollouts


async def test_the_configuration_holds_until_something_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that is off, and a percentage; what is set through the service wins over both."""
    monkeypatch.setenv("ENABLE_BLUE_PROVIDER", "false")
    async with running("red", "blue", "green", rollout={"green": 0}) as system:
        before = await listed(system)
        await roll(system, percentage=100)
        after = await listed(system)

    assert {name: usable for name, (usable, _) in before.items()} == {"red": True, "blue": False, "green": False}
    assert after["blue"][0]


def test_settings_of_rollouts_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A percentage that is none, a flag that is none, and the default provider are refused by name."""
    values = {"providers": "red=unix:/r,blue=unix:/b", "workspaces": tmp_path, "state_dir": tmp_path}
    for rollout, word in (("blue=101", "percentage"), ("green=1", "green"), ("red=5", "default provider")):
        with pytest.raises(ValueError, match=word):
            RouterSettings(**values, rollout=rollout)
    monkeypatch.setenv("ENABLE_BLUE_PROVIDER", "maybe")
    with pytest.raises(ValueError, match="ENABLE_BLUE_PROVIDER"):
        RouterSettings(**values)


def test_a_percentage_is_the_same_workspaces_and_more_as_it_grows() -> None:
    """Close to what it says, another part for each provider, and the first preferred one of several."""
    workspaces = [f"site-{number}.example" for number in range(2_000)]
    chosen = {
        percentage: {name for name in workspaces if admits(Rollout(enabled=True, percentage=percentage), name, "")}
        for percentage in (0, 10, 50, 100)
    }
    both = [Rollout(provider_id=name, enabled=True, percentage=100, preferred=True) for name in ("a", "b")]

    assert len(chosen[0]) == 0
    assert 150 < len(chosen[10]) < 250
    assert chosen[10] < chosen[50] < chosen[100] == set(workspaces)
    assert [place("a", name) for name in workspaces] != [place("b", name) for name in workspaces]
    assert audience_of(both, "demo", "").preferred == "a"
    assert admits(Rollout(enabled=True, owner_ids=["acme"]), "demo", "acme")
    assert not admits(Rollout(enabled=True, owner_ids=[""]), "demo", "")
