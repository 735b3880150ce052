"""What only an edge does: it carries streams past the router, and speaks with pages and scripts."""

import asyncio
import base64
import json
import signal
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, options_pb2, resolved_pb2, workspace_service_pb2
from alive_kit.servicer import RESOLVED_KEY
from alive_kit.testing.fakes import answers, waits_for_interrupt
from alive_kit.testing.harness import calling, collect, request
from alive_router.callers import names_of
from alive_router.edge import CLUSTER_HEADER
from alive_router.providers import ProviderLink
from alive_stack.stack import listens

from .conftest import SURROUNDINGS, System, running
from .speaker import speaking

BOUND = 15
START_TURN = "/alive.agent.v1.AgentService/StartTurn"


@pytest.fixture(autouse=True)
def database() -> None:
    """Have every system be behind an edge, whose router keeps what it knows in SQLite."""
    SURROUNDINGS.update(database_url="", has_edge=True)


@pytest.fixture
async def page(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    """Return what speaks HTTP with the edge."""
    connector = aiohttp.UnixConnector(system.address.removeprefix("unix:"))
    async with aiohttp.ClientSession("http://edge", connector=connector) as http:
        yield http


async def calls_of_router(system: System) -> int:
    """Return how many streams the router itself carries."""
    return len(system.router._agents.relays._calls)


async def test_a_stream_goes_past_the_router(system: System) -> None:
    """A turn's, a watcher's; the router has written down who has the turn."""
    system.providers["blue"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    call = system.caller.start("wait", turn_id="t", provider_id="blue")
    await call.read()
    watching = system.caller.stub.WatchTurn(agent_service_pb2.WatchTurnRequest(workspace_id="demo", turn_id="t"))
    await watching.read()
    carried = await calls_of_router(system)
    await system.caller.interrupt("t")
    known = await system.router._store.turn("demo", "t")

    assert carried == 0
    assert known
    assert known.provider_id == "blue"
    assert (await collect(call))[-1].HasField("turn_interrupted")


async def test_what_needs_more_than_a_pick_is_the_routers(system: System) -> None:
    """Where another provider may take over, the router stays in the middle."""
    settings = workspace_service_pb2.WorkspaceSettings()
    settings.failover.provider_ids.append("blue")
    await system.workspaces.UpdateWorkspace(
        workspace_service_pb2.UpdateWorkspaceRequest(workspace_id="demo", settings=settings)
    )
    system.providers["red"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    call = system.caller.start("wait", turn_id="t")
    await call.read()
    carried = await calls_of_router(system)
    await system.caller.interrupt("t")

    assert carried == 1
    assert (await collect(call))[-1].HasField("turn_interrupted")


async def test_settings_too_large_for_a_header_go_through_the_router(system: System) -> None:
    """They reach the provider all the same."""
    prompt = options_pb2.SystemPrompt(append="x" * 100_000)
    settings = workspace_service_pb2.WorkspaceSettings(agent=options_pb2.AgentOptions(system_prompt=prompt))
    await system.workspaces.UpdateWorkspace(
        workspace_service_pb2.UpdateWorkspaceRequest(workspace_id="demo", settings=settings)
    )
    await system.caller.run("hello")

    assert system.providers["red"].specs[0].request.agent.system_prompt.append == "x" * 100_000


async def test_a_caller_leads_itself_nowhere(system: System) -> None:
    """Neither to a provider of its own choice past the policy, nor with words of the router's."""
    forged = resolved_pb2.ResolvedTurn(session_id="forged", owner_id="somebody")
    metadata = (
        (CLUSTER_HEADER, "provider-blue"),
        (RESOLVED_KEY, forged.SerializeToString()),
        ("x-forwarded-client-cert", "DNS=admin"),
    )
    events = await collect(system.caller.stub.StartTurn(request("hello"), metadata=metadata))

    assert {event.provider_id for event in events} == {"red"}
    assert events[0].session_id != "forged"


async def test_a_callers_credentials_end_at_the_edge() -> None:
    """No provider sees them, though the stream comes from it directly."""
    metadata = (("authorization", "Bearer secret"), ("cookie", "secret"), ("traceparent", "00-a-b"))
    async with speaking() as (speaker, system):
        speaker.go_on.set()
        await collect(system.caller.stub.StartTurn(request("hello"), metadata=metadata))

    assert ("traceparent", "00-a-b") in speaker.heard
    assert not {"authorization", "cookie", CLUSTER_HEADER}.intersection(name for name, _ in speaker.heard)


async def test_a_provider_that_is_gone_at_the_last_moment_is_lost(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the router has led a stream there, and before it begins: the status names the turn."""
    monkeypatch.setattr(ProviderLink, "is_fine", True)
    await system.services["red"].service.server.stop(0)
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        await system.caller.run("hello", turn_id="t")

    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    details = dict(lost.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert b"STREAM_LOST" in details
    assert b"red" in details


async def test_a_router_that_is_away_is_said(system: System) -> None:
    """What runs goes on; what is new has a status that says what to do."""
    system.providers["red"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    call = system.caller.start("wait", turn_id="t")
    await call.read()
    await system.router.stop(0.0)
    refusals = []
    for asked in (system.caller.run("hello"), system.caller.interrupt("t")):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await asked
        refusals.append((refusal.value.code(), refusal.value.details()))
    await system.services["red"].interrupt("t")

    assert set(refusals) == {(grpc.StatusCode.UNAVAILABLE, "the router cannot be reached: try again")}
    assert (await collect(call))[-1].HasField("turn_interrupted")


async def test_an_edge_that_is_asked_to_end_loses_no_stream(system: System, tmp_path: Path) -> None:
    """Its streams end first; it takes no new connections meanwhile, and exits with 0."""
    system.providers["red"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    address = f"unix:{system.directory}/second.sock"
    variables = {
        "PATH": "/usr/bin:/bin",
        "ALIVE_LISTEN": address,
        "ALIVE_ROUTER": f"unix:{system.directory}/router.sock",
        "ALIVE_EDGE_AUTHZ": f"unix:{system.directory}/authz.sock",
        "ALIVE_PROVIDERS": ",".join(f"{name}=unix:{system.directory}/{name}/agent.sock" for name in system.providers),
        "ALIVE_STATE_DIR": str(tmp_path / "edge"),
        "ALIVE_DRAIN_SECONDS": str(BOUND),
    }
    second = await asyncio.create_subprocess_exec(sys.executable, "-m", "alive_edge", env=variables)
    async with asyncio.timeout(BOUND), calling(address, tmp_path) as caller:
        call = caller.stub.StartTurn(request("wait", turn_id="t"), wait_for_ready=True)
        await call.read()
        second.send_signal(signal.SIGTERM)
        while await listens(address):
            await asyncio.sleep(0.05)
        await system.caller.interrupt("t")
        events = await collect(call)
        ended = await second.wait()

    assert events[-1].HasField("turn_interrupted")
    assert ended == 0


async def test_callers_that_leave_at_once_end_no_other_stream(system: System) -> None:
    """Fifteen hundred within seconds, over the connection of one that stays."""
    system.providers["red"].scripts["wait"] = [*answers("Wait."), waits_for_interrupt]
    stays = system.caller.start("wait", turn_id="t")
    await stays.read()
    watching = agent_service_pb2.WatchTurnRequest(workspace_id="demo", turn_id="t")
    async with asyncio.timeout(4 * BOUND):
        for _ in range(1_500):
            leaves = system.caller.stub.WatchTurn(watching)
            await leaves.read()
            leaves.cancel()
        await system.caller.interrupt("t")
        events = await collect(stays)

    assert events[-1].HasField("turn_interrupted")


async def test_the_id_of_a_refused_turn_is_free_for_any_provider(system: System) -> None:
    """The router did not see the refusal; it finds out when the id comes again."""
    with pytest.raises(grpc.aio.AioRpcError):
        await system.caller.run("go", turn_id="t", permissions={"extra_directories": ["other"]})
    async with asyncio.timeout(BOUND):
        events = await system.caller.run("hello", turn_id="t", provider_id="blue")

    assert {event.provider_id for event in events} == {"blue"}
    assert events[-1].HasField("turn_completed")


async def test_a_script_speaks_json(system: System, page: aiohttp.ClientSession) -> None:
    """A POST for each call; a line for each message of a stream; an error with its details."""
    turn = {"workspace_id": "demo", "input": [{"text": "hello"}], "delivery": {"include_deltas": True}}
    async with page.post(START_TURN, json=turn) as answer:
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
    async with page.post("/alive.agent.v1.WorkspaceService/ListProviders", json={}) as answer:
        listed = await answer.json()
    async with page.post(START_TURN, json={"workspace_id": "demo"}) as answer:
        refused = answer.status, await answer.json()
    async with page.post(START_TURN, json={"workspace_id": "nobody", "input": [{"text": "hello"}]}) as answer:
        unknown = answer.status

    events = [event for line in lines for event in line["events"]]
    assert "turn_completed" in events[-1]
    assert await calls_of_router(system) == 0
    assert [entry["info"]["provider_id"] for entry in listed["providers"]] == ["red", "blue"]
    assert refused[0] == 400
    assert refused[1]["details"][-1]["field_violations"][0]["field"] == "input"
    assert unknown == 404


async def test_a_page_speaks_grpc_web(page: aiohttp.ClientSession) -> None:
    """As browsers do, in base64: messages, and the trailers as the last one."""
    body = request("hello").SerializeToString()
    framed = base64.b64encode(struct.pack(">BI", 0, len(body)) + body)
    kind = {"content-type": "application/grpc-web-text+proto", "accept": "application/grpc-web-text+proto"}
    async with page.post(START_TURN, data=framed, headers=kind) as answer:
        text = await answer.read()
    frames = list(framed_of(b"".join(base64.b64decode(part) for part in parts_of(text))))
    responses = [agent_service_pb2.StartTurnResponse.FromString(data) for flag, data in frames if not flag & 0x80]

    assert responses[-1].events[-1].HasField("turn_completed")
    assert b"grpc-status:0" in next(data for flag, data in frames if flag & 0x80).replace(b" ", b"")


async def test_pages_of_named_origins_may_call() -> None:
    """A browser asks first; a page of any other origin is told nothing, and so may not."""
    async with running("red", edge_origins="https://app.example, https://beta.example") as system:
        connector = aiohttp.UnixConnector(system.address.removeprefix("unix:"))
        async with aiohttp.ClientSession("http://edge", connector=connector) as page:
            allowed = {}
            for origin in ("https://app.example", "https://evil.example"):
                headers = {"origin": origin, "access-control-request-method": "POST"}
                async with page.options(START_TURN, headers=headers) as answer:
                    allowed[origin] = answer.headers.get("access-control-allow-origin", "")
            turn = {"workspace_id": "demo", "input": [{"text": "hello"}]}
            async with page.post(START_TURN, json=turn, headers={"origin": "https://app.example"}) as answer:
                shown = answer.headers["access-control-allow-origin"], await answer.text()

    assert allowed == {"https://app.example": "https://app.example", "https://evil.example": ""}
    assert shown[0] == "https://app.example"
    assert "turn_completed" in shown[1]


def parts_of(text: bytes) -> list[bytes]:
    """Return the parts of a grpc-web-text body: each is padded by itself."""
    return [text[start : start + 4] for start in range(0, len(text), 4)]


def framed_of(data: bytes) -> Any:
    """Yield the flag and the content of each frame."""
    while data:
        flag, length = struct.unpack_from(">BI", data)
        yield flag, data[5 : 5 + length]
        data = data[5 + length :]


@pytest.mark.parametrize(
    ("forwarded", "names"),
    [
        ('Hash=ab;Subject="CN=caller";DNS=one;DNS=two', ["caller", "one", "two"]),
        (r'Hash=ab;Subject="CN=a\,b,O=x"', [r"a\,b"]),
        ('Subject="O=x;DNS=forged,CN=c"', ["c"]),
        ('Subject="O=\\"x\\";DNS=forged"', []),
        ("", []),
    ],
)
def test_the_names_of_a_certificate_are_read(forwarded: str, names: list[str]) -> None:
    """What a certificate calls itself adds no names."""
    assert list(names_of(forwarded)) == names
