"""Failover: a turn that its provider cannot take goes to the next one the workspace allows."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from alive.agent.v1 import (
    agent_service_pb2,
    error_pb2,
    event_pb2,
    options_pb2,
    provider_pb2,
    session_pb2,
    workspace_service_pb2,
)
from alive_kit.failures import failure
from alive_kit.provider import Unsupported
from alive_kit.testing.fakes import FakeProvider, answers, started, waits_for_interrupt
from alive_kit.testing.harness import collect, serving
from alive_router.breaker import FAILURES
from alive_router.store import TurnRow

from .conftest import System, running

BOUND = 10
LIMITED = [started(), failure(error_pb2.FAILURE_REASON_RATE_LIMIT)]
NOT_READY = provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_NOT_READY, reason="no key")
READY = provider_pb2.Readiness(state=provider_pb2.READINESS_STATE_READY)


async def allow(system: System, *provider_ids: str) -> None:
    """Let providers take over in workspace ``demo``."""
    settings = workspace_service_pb2.WorkspaceSettings(failover={"provider_ids": provider_ids})
    await system.workspaces.UpdateWorkspace(
        workspace_service_pb2.UpdateWorkspaceRequest(workspace_id="demo", settings=settings)
    )


def notices(events: list[event_pb2.Event]) -> list[str]:
    """Return the codes of the notices."""
    return [event.notice.code for event in events if event.HasField("notice")]


def info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """Return why a call was refused."""
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    assert status is not None
    status.details[0].Unpack(info)
    return info


def set_ready(system: System, name: str, readiness: provider_pb2.Readiness) -> None:
    """Set what a provider says of itself."""
    service = system.services[name].service
    assert service
    service.info.readiness.CopyFrom(readiness)


async def test_a_turn_that_is_declined_is_taken_by_the_next_one(system: System) -> None:
    """Under the same id, in one stream, with a notice; repeating the call and watching find it there."""
    await allow(system, "blue")
    system.providers["red"].scripts["go"] = LIMITED
    events = await system.caller.run("go", turn_id="t")
    repeated = await system.caller.run("go", turn_id="t")
    watched = await system.caller.watch("t")
    said = next(event.notice for event in events if event.notice.code == "failover")

    assert {event.provider_id for event in events} == {"blue"}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].HasField("turn_completed")
    assert dict(said.details) == {"provider_id": "red", "reason": "RATE_LIMIT"}
    assert events == repeated == watched
    assert [len(system.providers[name].agents) for name in ("red", "blue")] == [1, 1]


async def test_without_leave_nobody_takes_over(system: System) -> None:
    """The turn fails where it was sent."""
    system.providers["red"].scripts["go"] = LIMITED
    events = await system.caller.run("go")

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_RATE_LIMIT
    assert system.providers["blue"].agents == []


async def test_when_all_fail_the_last_failure_ends_the_turn(system: System) -> None:
    """As an event, of the provider that was asked last."""
    await allow(system, "blue")
    system.providers["red"].scripts["go"] = LIMITED
    system.providers["blue"].scripts["go"] = [started(), failure(error_pb2.FAILURE_REASON_QUOTA)]
    events = await system.caller.run("go", turn_id="t")

    assert events[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_QUOTA
    assert "failover" in notices(events)
    assert await system.caller.watch("t") == events


async def test_who_does_not_honour_an_option_is_skipped() -> None:
    """And when nobody else does, the one that failed is asked for good."""

    def refuses(*_: object) -> list[Unsupported]:
        return [Unsupported(field="agent.effort", why="it has none")]

    async with running("red", "blue", "green") as system:
        await allow(system, "blue", "green")
        system.providers["red"].scripts["go"] = LIMITED
        system.providers["blue"].unsupported = refuses
        skipped = await system.caller.run("go")
        system.providers["green"].unsupported = refuses
        left = await system.caller.run("go", turn_id="left")
        watched = await system.caller.watch("left")

    assert skipped[0].provider_id == "green"
    assert skipped[-1].HasField("turn_completed")
    assert left[-1].turn_failed.error.reason == error_pb2.FAILURE_REASON_RATE_LIMIT
    assert {event.provider_id for event in left} == {"red"}
    assert watched == left


@pytest.mark.parametrize("how", ["not ready", "stopped", "full"])
async def test_a_provider_that_cannot_be_asked_is_passed_over(how: str) -> None:
    """One that says it is not ready, is not there, or has no room; nothing is known of the turn there."""
    async with running("red", "blue", service_settings={"red": {"turns": 1, "queue": 0}}) as system:
        await allow(system, "blue")
        red = system.services["red"].service
        assert red
        if how == "not ready":
            set_ready(system, "red", NOT_READY)
        elif how == "stopped":
            await red.server.stop(0)
        else:
            system.providers["red"].scripts["hold"] = [*answers("Hold."), waits_for_interrupt]
            held = system.caller.start("hold", turn_id="held")
            await held.read()
        events = await system.caller.run("go", turn_id="t")
        if how == "full":
            held.cancel()

    assert {event.provider_id for event in events} == {"blue"}
    assert notices(events) == ["failover"]


async def test_when_nobody_can_be_asked_the_first_refusal_is_what_the_caller_gets(system: System) -> None:
    """As a status; the id is free again."""
    await allow(system, "blue")
    for name in ("red", "blue"):
        set_ready(system, name, NOT_READY)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await system.caller.run("go", turn_id="t")
    set_ready(system, "red", READY)
    events = await system.caller.run("other", turn_id="t")

    assert info_of(refusal.value).reason == "PROVIDER_NOT_READY"
    assert info_of(refusal.value).metadata["provider_id"] == "red"
    assert events[-1].HasField("turn_completed")


async def test_a_model_of_another_vendor_is_replaced(system: System) -> None:
    """By the default one of the provider that takes over, with a notice."""
    await allow(system, "blue")
    system.providers["red"].scripts["go"] = LIMITED
    agent = options_pb2.AgentOptions(model="red-only", effort="high")
    events = await system.caller.run("go", agent=agent)

    assert system.providers["red"].specs[0].request.agent == agent
    assert system.providers["blue"].specs[0].request.agent == options_pb2.AgentOptions()
    assert notices(events) == ["failover", "model_replaced"]


async def test_a_session_that_was_taken_over_goes_back_with_what_was_done(system: System) -> None:
    """To the provider that was chosen, once it can; its memory is what the other one did."""
    await allow(system, "blue")
    first = await system.caller.run("go")
    session_id = first[0].session_id
    system.providers["red"].scripts["limited"] = LIMITED
    second = await system.caller.run("limited", session_id=session_id)
    third = await system.caller.run("go", session_id=session_id)
    told = [item.message.text for item in system.providers["blue"].specs[0].request.history.items]
    told_back = [item.message.text for item in system.providers["red"].specs[-1].request.history.items]

    assert [events[0].provider_id for events in (first, second, third)] == ["red", "blue", "red"]
    assert {events[0].session_id for events in (first, second, third)} == {session_id}
    assert told == ["go", "Hello."]
    assert told_back == ["limited", "Hello."]


async def test_what_cannot_be_told_is_told_later(system: System) -> None:
    """The provider that has the session's memory is away; once it is back, the other one is told."""
    session_id = (await system.caller.run("first", provider_id="blue"))[0].session_id
    blue = system.services["blue"].service
    assert blue
    await blue.stop(0.0)
    second = await system.caller.run("second", session_id=session_id, provider_id="red")
    again = serving(FakeProvider(provider_id="blue"), system.directory / "blue", workspaces=system.caller.workspaces)
    async with again, asyncio.timeout(BOUND):
        while not (await system.router._links["blue"].info()).vendor:
            pass
        third = await system.caller.run("third", session_id=session_id)
    specs = system.providers["red"].specs

    assert notices(second) == ["session_incomplete"]
    assert notices(third) == ["session_moved"]
    assert list(specs[0].request.history.items) == []
    assert [item.message.text for item in specs[1].request.history.items] == ["first", "Hello."]


async def test_an_interrupt_while_the_next_one_is_asked_ends_the_turn(system: System) -> None:
    """Wherever it is by then."""
    await allow(system, "blue")
    system.providers["red"].scripts["go"] = LIMITED
    system.providers["blue"].scripts["go"] = [started(), waits_for_interrupt]
    call = system.caller.start("go", turn_id="t")
    first = await call.read()
    async with asyncio.timeout(BOUND):
        await system.caller.interrupt("t")
        events = [*first.events, *await collect(call)]

    assert events[0].provider_id == "blue"
    assert events[-1].HasField("turn_interrupted")


async def test_a_provider_that_fails_again_and_again_is_left_alone_for_a_while(system: System) -> None:
    """Its turns go elsewhere at once, or are refused with the time to wait; then one tries, and it is used again."""
    await allow(system, "blue")
    red = system.providers["red"]
    red.scripts["go"] = LIMITED
    for _ in range(FAILURES):
        await system.caller.run("go")
    asked = len(red.agents)
    elsewhere = await system.caller.run("go")
    await allow_nobody(system)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await system.caller.run("go")
    listed = await system.workspaces.ListProviders(workspace_service_pb2.ListProvidersRequest(workspace_id="demo"))
    red.scripts["go"] = answers("Back.")
    async with asyncio.timeout(BOUND):
        while (back := await try_once(system)) is None:
            pass

    assert len(red.agents) == asked + 1
    assert elsewhere[0].provider_id == "blue"
    assert info_of(refusal.value).reason == "PROVIDER_NOT_READY"
    assert "latest turns" in (refusal.value.details() or "")
    assert [entry.usable for entry in listed.providers] == [False, True]
    assert back[0].provider_id == "red"


async def allow_nobody(system: System) -> None:
    """Let nobody take over."""
    request = workspace_service_pb2.UpdateWorkspaceRequest(
        workspace_id="demo", settings={}, update_mask={"paths": ["failover"]}
    )
    await system.workspaces.UpdateWorkspace(request)


async def try_once(system: System) -> list[event_pb2.Event] | None:
    """Start a turn at red; None when it is refused."""
    try:
        return await system.caller.run("go")
    except grpc.aio.AioRpcError:
        return None


async def test_sessions_are_listed_once_where_they_were_taken_over(system: System) -> None:
    """A session whose first turn was declined is only at the provider that took it."""
    await allow(system, "blue")
    system.providers["red"].scripts["go"] = LIMITED
    session_id = (await system.caller.run("go"))[0].session_id
    listed = await system.caller.stub.ListSessions(session_pb2.ListSessionsRequest(workspace_id="demo"))
    got = await system.caller.stub.GetSession(session_pb2.GetSessionRequest(workspace_id="demo", session_id=session_id))

    assert [(session.session_id, session.provider_id) for session in listed.sessions] == [(session_id, "blue")]
    assert got.session == listed.sessions[0]


async def test_a_model_that_nobody_has_says_nothing_of_the_provider(system: System) -> None:
    """However often it is asked for, other turns go there."""
    await allow(system, "blue")
    red = system.providers["red"]
    red.scripts["odd"] = [started(), failure(error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE)]
    for _ in range(FAILURES + 1):
        await system.caller.run("odd")
    events = await system.caller.run("go")

    assert len(red.agents) == FAILURES + 2
    assert events[0].provider_id == "red"


async def test_the_same_call_at_the_same_time_is_one_turn_wherever_it_goes(system: System) -> None:
    """In a session that the next provider does not know: whoever comes first brings its memory along."""
    await allow(system, "blue")
    session_id = (await system.caller.run("first"))[0].session_id
    system.providers["red"].scripts["go"] = LIMITED
    calls = [system.caller.run("go", turn_id="twice", session_id=session_id) for _ in range(5)]
    streams = await asyncio.gather(*calls)
    blue = system.providers["blue"]

    assert all(events == streams[0] for events in streams)
    assert streams[0][0].provider_id == "blue"
    assert len(blue.agents) == 1
    assert [item.message.text for item in blue.specs[0].request.history.items] == ["first", "Hello."]


async def test_an_interrupt_between_two_providers_reaches_the_turn(system: System) -> None:
    """The row still names the first one, which has declined; the second one keeps the interrupt for it."""
    system.providers["blue"].scripts["go"] = [started(), waits_for_interrupt]
    turn = TurnRow(workspace_id="demo", turn_id="t", session_id="s", provider_id="red")
    await system.router._store.add_turn(turn, opens_session=True)
    kept = await system.caller.interrupt("t")
    async with asyncio.timeout(BOUND):
        events = await system.services["blue"].run("go", turn_id="t")

    assert kept == agent_service_pb2.INTERRUPT_RESULT_KEPT
    assert events[-1].HasField("turn_interrupted")
