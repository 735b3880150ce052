"""Sessions through the router: each at its provider, all of them in one list."""

import asyncio

import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, session_pb2

from .conftest import System

BOUND = 10


async def test_sessions_of_every_provider_are_one_list(system: System) -> None:
    """Alternating providers, in pages of two, latest first, none twice."""
    opened = [
        (await system.caller.run("go", provider_id=provider))[0].session_id
        for provider in ("red", "blue", "red", "blue", "red")
    ]
    found: list[str] = []
    sizes = []
    request = session_pb2.ListSessionsRequest(workspace_id="demo", page_size=2)
    while True:
        page = await system.caller.stub.ListSessions(request)
        found += [session.session_id for session in page.sessions]
        sizes.append(len(page.sessions))
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break

    assert found == opened[::-1]
    assert sizes == [2, 2, 1]


async def test_a_session_is_read_forked_and_deleted_at_its_provider(system: System) -> None:
    """The fork takes its turns at the same provider; a deleted session is not found, deleting again is no error."""
    session_id = (await system.caller.run("go", provider_id="blue"))[0].session_id
    ids = {"workspace_id": "demo", "session_id": session_id}
    stub = system.caller.stub
    got = (await stub.GetSession(session_pb2.GetSessionRequest(**ids))).session
    items = (await stub.ListItems(session_pb2.ListItemsRequest(**ids))).items
    fork = (await stub.ForkSession(session_pb2.ForkSessionRequest(**ids))).session
    events = await system.caller.run("go", session_id=fork.session_id)
    for _ in range(2):
        await stub.DeleteSession(session_pb2.DeleteSessionRequest(**ids))
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await stub.GetSession(session_pb2.GetSessionRequest(**ids))

    assert got.provider_id == fork.provider_id == events[0].provider_id == "blue"
    assert [entry.item.provider_id for entry in items] == ["blue", "blue"]
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_session_is_warmed_where_its_next_turn_goes(system: System) -> None:
    """At the provider that had its latest turn, and nowhere else."""
    red, blue = (system.providers[name] for name in ("red", "blue"))
    session_id = (await system.caller.run("go", provider_id="blue"))[0].session_id
    await system.caller.run("go", provider_id="red", session_id=session_id)
    asked = session_pb2.GetSessionRequest(workspace_id="demo", session_id=session_id, warm=True)
    got = (await system.caller.stub.GetSession(asked)).session
    async with asyncio.timeout(BOUND):
        while len(red.specs) < 2:
            await asyncio.sleep(0)

    assert got.provider_id == "red"
    assert red.specs[1].resume
    assert len(blue.specs) == 1


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetSession", session_pb2.GetSessionRequest(workspace_id="demo", session_id="none")),
        ("ForkSession", session_pb2.ForkSessionRequest(workspace_id="demo", session_id="none")),
        ("ListItems", session_pb2.ListItemsRequest(workspace_id="demo", session_id="none")),
    ],
)
async def test_an_unknown_session_is_not_found(system: System, method: str, request_: object) -> None:
    """Whatever is asked of it."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await getattr(system.caller.stub, method)(request_)

    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_page_of_nonsense_is_refused(system: System) -> None:
    """By the field's name, at the router."""
    for fields, field in (({"page_size": 501}, "page_size"), ({"page_token": "?"}, "page_token")):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await system.caller.stub.ListSessions(session_pb2.ListSessionsRequest(workspace_id="demo", **fields))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (refusal.value.details() or "")


async def test_an_item_that_was_not_cut_has_no_content_to_read(system: System) -> None:
    """The provider's refusal arrives as it is."""
    turn = (await system.caller.run("go"))[0]
    asked = agent_service_pb2.ReadItemContentRequest(workspace_id="demo", turn_id=turn.turn_id, item_id="message-1")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await system.caller.stub.ReadItemContent(asked).read()

    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
