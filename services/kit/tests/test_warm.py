"""When the agent of a session serves its next turn too, and when it is parked."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from alive.agent.v1 import agent_service_pb2, options_pb2, session_pb2
from alive_kit.apis import Apis
from alive_kit.authz import TurnTokens
from alive_kit.errors import TurnFailure
from alive_kit.failures import turn_error
from alive_kit.provider import TurnSpec
from alive_kit.testing import fakes
from alive_kit.testing.fakes import FakeAgent, FakeProvider, started, waits_for_interrupt
from alive_kit.testing.harness import Caller, collect, serving
from alive_kit.warm import KIT_SEES_TO, WarmAgents, Warmth

BOUND = 5.0


def warm_provider() -> FakeProvider:
    """Return a provider whose agents wait for the next turn."""
    failing = [started(), TurnFailure(turn_error(1))]
    return FakeProvider({"wait": [started(), waits_for_interrupt], "fail": failing}, warm=True)


async def closed(agent: FakeAgent) -> None:
    """Return when an agent is closed."""
    async with asyncio.timeout(BOUND):
        await agent.closed.wait()


async def session_of(caller: Caller, text: str = "hello", **fields: Any) -> str:
    """Run the first turn of a session and return its id."""
    return (await caller.run(text, **fields))[0].session_id


async def test_the_next_turn_of_a_session_has_the_same_agent(directory: Path) -> None:
    """Another session has another one; the last events of each turn are its own."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        first = await caller.run("hello")
        second = await caller.run("hello", session_id=first[0].session_id)
        await caller.run("hello")

        assert [agent.turns for agent in provider.agents] == [2, 1]
        assert not provider.agents[0].closed.is_set()
    assert second[-1].HasField("turn_completed")
    assert {event.turn_id for event in second}.isdisjoint({event.turn_id for event in first})


FIXED: dict[str, dict[str, Any]] = {
    "model": {"agent": options_pb2.AgentOptions(model="other")},
    "effort": {"agent": options_pb2.AgentOptions(effort="high")},
    "append": {"agent": options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt(append="Be brief."))},
    "replace": {"agent": options_pb2.AgentOptions(system_prompt=options_pb2.SystemPrompt(replace="Be brief."))},
    "policy": {"permissions": options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_ASK)},
    "allowed": {"permissions": options_pb2.Permissions(tools=options_pb2.ToolRules(allowed=["Read"]))},
    "denied": {"permissions": options_pb2.Permissions(tools=options_pb2.ToolRules(denied=["Bash"]))},
    "sandbox": {"permissions": options_pb2.Permissions(sandbox=options_pb2.SANDBOX_READ_ONLY)},
    "network": {"permissions": options_pb2.Permissions(network=False)},
    "search": {"permissions": options_pb2.Permissions(web_search=True)},
    "max-turns": {"limits": options_pb2.Limits(max_turns=3)},
    "server": {
        "mcp_servers": [
            options_pb2.McpServer(name="a", stdio=options_pb2.StdioTransport(command="sh", args=["-c", "true"]))
        ]
    },
}
CHANGING: dict[str, dict[str, Any]] = {
    "schema": {"agent": options_pb2.AgentOptions(output_schema='{"type": "object"}')},
    "delivery": {"delivery": options_pb2.Delivery(include_raw=True)},
    "tokens": {"limits": options_pb2.Limits(max_tokens=10_000)},
    "provider": {"provider_id": "fake"},
}


@pytest.mark.parametrize("name", FIXED)
async def test_what_is_fixed_at_the_start_needs_a_fresh_agent(directory: Path, name: str) -> None:
    """The old one is parked before the new one starts."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        session_id = await session_of(caller)
        await caller.run("hello", session_id=session_id, **FIXED[name])

        assert [agent.turns for agent in provider.agents] == [1, 1]
        assert [agent.closed.is_set() for agent in provider.agents] == [True, False]


@pytest.mark.parametrize("name", CHANGING)
async def test_what_an_agent_takes_with_each_turn_does_not(directory: Path, name: str) -> None:
    """What the kit sees to, and what the provider names."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        session_id = await session_of(caller)
        await caller.run("hello", session_id=session_id, **CHANGING[name])

    assert [agent.turns for agent in provider.agents] == [2]


class Contexts:
    """Requests on behalf of somebody, straight to the agents: a product stands behind the gateway of none here."""

    def __init__(self) -> None:
        self.tokens = TurnTokens()
        self.provider = warm_provider()
        self.agents = WarmAgents(self.provider, Warmth(), self.tokens, Apis().lead)

    async def turn(self, context: options_pb2.ToolContext) -> tuple[bool, bool]:
        """Serve a turn; return whether its agent's token is honoured while it runs, and afterwards."""
        spec = spec_with(context)
        async with self.agents.serving(spec, {"product": {"cookie": context.session_cookie}}):
            token = self.provider.specs[-1].token
            during = self.tokens.headers(token, "product/x") == {"cookie": context.session_cookie}
        self.agents.end_turn(spec, failed=False)
        return during, self.tokens.headers(token, "v1/messages") is not None


def spec_with(context: options_pb2.ToolContext) -> TurnSpec:
    """Return the spec of a turn of one session on behalf of somebody."""
    spec = fakes.spec()
    request = agent_service_pb2.StartTurnRequest(workspace_id="demo", session_id="s", tool_context=context)
    return replace(spec, request=request)


async def test_a_token_lives_as_long_as_its_agent_and_counts_while_a_turn_runs() -> None:
    """The second turn has the same token, with a cookie of its own; between turns it opens nothing."""
    contexts = Contexts()
    first = await contexts.turn(options_pb2.ToolContext(user_id="ann", session_cookie="one"))
    second = await contexts.turn(options_pb2.ToolContext(user_id="ann", session_cookie="two"))

    assert (first, second) == ((True, False), (True, False))
    assert len(contexts.provider.specs) == 1


@pytest.mark.parametrize(
    "context",
    [options_pb2.ToolContext(user_id="bob"), options_pb2.ToolContext(user_id="ann", connected_providers=["github"])],
    ids=["user", "connected providers"],
)
async def test_another_user_never_gets_the_agent_of_the_first(context: options_pb2.ToolContext) -> None:
    """Nor the same one with other providers connected; the tokens differ."""
    contexts = Contexts()
    await contexts.turn(options_pb2.ToolContext(user_id="ann"))
    await contexts.turn(context)
    tokens = [spec.token for spec in contexts.provider.specs]

    assert contexts.provider.agents[0].closed.is_set()
    assert len(set(tokens)) == 2


@pytest.mark.parametrize("settings", [{"warm_seconds": 0.05}, {"warm_age_seconds": 0.05}], ids=["idle", "age"])
async def test_an_agent_is_parked_in_time(directory: Path, settings: dict[str, float]) -> None:
    """When it has waited long enough, or is too old; the session goes on with another one."""
    provider = warm_provider()
    async with serving(provider, directory, **settings) as caller:
        session_id = await session_of(caller)
        await closed(provider.agents[0])
        await caller.run("hello", session_id=session_id)

    assert [agent.turns for agent in provider.agents] == [1, 1]
    assert provider.specs[1].resume is not None


async def test_the_one_that_waited_longest_makes_room(directory: Path) -> None:
    """Two may be up; the first session was used again before the third came."""
    provider = warm_provider()
    async with serving(provider, directory, warm_agents=2) as caller:
        first, _ = await session_of(caller), await session_of(caller)
        await caller.run("hello", session_id=first)
        await session_of(caller)
        await closed(provider.agents[1])

        assert [agent.closed.is_set() for agent in provider.agents] == [False, True, False]


@pytest.mark.parametrize("settings", [{"warm_seconds": 0}, {"warm_agents": 0}], ids=["seconds", "agents"])
async def test_it_can_be_switched_off(directory: Path, settings: dict[str, int]) -> None:
    """Then an agent is closed when its turn's stream has ended."""
    provider = warm_provider()
    async with serving(provider, directory, **settings) as caller:
        await session_of(caller)

        assert provider.agents[0].closed.is_set()


async def test_an_agent_that_is_not_ready_is_replaced(directory: Path) -> None:
    """The turn does not notice."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        session_id = await session_of(caller)
        provider.agents[0].is_ready_for_more = False
        events = await caller.run("hello", session_id=session_id)

        assert provider.agents[0].closed.is_set()
    assert events[-1].HasField("turn_completed")
    assert len(provider.agents) == 2


async def test_an_agent_whose_turn_failed_is_closed(directory: Path) -> None:
    """Whether the agent said so, or it said nothing at all and the kit did."""
    provider = warm_provider()
    provider.scripts["mute"] = [started()]
    async with serving(provider, directory) as caller:
        for text in ("fail", "mute"):
            await caller.run(text)
            await closed(provider.agents[-1])


async def test_an_interrupted_agent_takes_the_next_turn(directory: Path) -> None:
    """It ended by itself when it was asked to."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        call = caller.start("wait", turn_id="t1")
        session_id = (await call.read()).events[0].session_id
        await caller.interrupt("t1")
        assert (await collect(call))[-1].HasField("turn_interrupted")
        await caller.run("hello", session_id=session_id)

    assert [agent.turns for agent in provider.agents] == [2]


async def test_the_agent_of_an_ephemeral_turn_never_waits(directory: Path) -> None:
    """Its session ends with it."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        await session_of(caller, ephemeral=True)

        assert provider.agents[0].closed.is_set()


@pytest.mark.parametrize("call", ["fork", "delete"])
async def test_a_session_is_parked_before_it_is_forked_or_deleted(directory: Path, call: str) -> None:
    """What the CLI still has to write is written then."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        session_id = await session_of(caller)
        if call == "fork":
            await caller.stub.ForkSession(session_pb2.ForkSessionRequest(workspace_id="demo", session_id=session_id))
        else:
            await caller.stub.DeleteSession(
                session_pb2.DeleteSessionRequest(workspace_id="demo", session_id=session_id)
            )

        assert provider.agents[0].closed.is_set()


async def test_no_agent_outlives_the_service(directory: Path) -> None:
    """The drain closes those that wait."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        await session_of(caller)
        assert not provider.agents[0].closed.is_set()

    assert provider.agents[0].closed.is_set()


def test_every_field_of_a_request_that_may_change_is_one() -> None:
    """A field that was renamed would be fixed from then on, silently."""
    for path in (*KIT_SEES_TO, *FakeProvider.per_turn):
        descriptor = agent_service_pb2.StartTurnRequest.DESCRIPTOR
        for name in path.split("."):
            field = descriptor.fields_by_name[name]
            descriptor = field.message_type


async def test_turns_that_run_are_not_held_up_by_those_that_wait(directory: Path) -> None:
    """One may be up: two turns run at once, and nobody waits afterwards but the last."""
    provider = warm_provider()
    async with serving(provider, directory, warm_agents=1) as caller:
        await session_of(caller)
        calls = [caller.start("wait", turn_id=name) for name in ("t1", "t2")]
        for call in calls:
            await call.read()
        await closed(provider.agents[0])
        for name in ("t1", "t2"):
            await caller.interrupt(name)

        assert [agent.turns for agent in provider.agents] == [1, 1, 1]
        assert len(caller.service.agents.waiting) == 1  # type: ignore[union-attr]


async def described(caller: Caller, session_id: str, *, warm: bool = False) -> session_pb2.Session:
    """Return a session, and have it warmed if so asked."""
    asked = session_pb2.GetSessionRequest(workspace_id="demo", session_id=session_id, warm=warm)
    return (await caller.stub.GetSession(asked)).session


async def until_warm(caller: Caller, session_id: str) -> None:
    """Return when an agent waits for a session's next turn."""
    async with asyncio.timeout(BOUND):
        while not (await described(caller, session_id)).warm:
            await asyncio.sleep(0)


async def test_an_agent_starts_ahead_of_the_turn_it_is_asked_for(directory: Path) -> None:
    """It resumes the session, as the latest turn had it, and serves the next one; one that is up already stays."""
    provider = warm_provider()
    policy = options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_ASK)
    async with serving(provider, directory) as caller:
        session_id = await session_of(caller, permissions=policy)
        await described(caller, session_id, warm=True)
        await caller.service.agents.park("demo", session_id)  # type: ignore[union-attr]
        cold = await described(caller, session_id, warm=True)
        await until_warm(caller, session_id)
        await caller.run("hello", session_id=session_id, permissions=policy)

        assert not cold.warm
        assert [agent.turns for agent in provider.agents] == [1, 1]
        assert provider.specs[1].resume is not None
        assert provider.specs[1].request.permissions == policy


async def test_a_turn_that_was_not_foreseen_has_another_agent(directory: Path) -> None:
    """The one that waited in vain is parked."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        session_id = await session_of(caller)
        await caller.service.agents.park("demo", session_id)  # type: ignore[union-attr]
        await described(caller, session_id, warm=True)
        await caller.run("hello", session_id=session_id, **FIXED["policy"])

        assert [agent.turns for agent in provider.agents] == [1, 0, 1]
        assert provider.agents[1].closed.is_set()


class SlowProvider(FakeProvider):
    """A provider whose agents take as long to start as the test wants."""

    def __init__(self) -> None:
        super().__init__(warm=True)
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls = 0

    async def start(self, spec: TurnSpec) -> FakeAgent:
        """Return an agent once the gate is open."""
        self.calls += 1
        await self.gate.wait()
        return await super().start(spec)


async def test_a_turn_waits_for_the_agent_that_starts_ahead_of_it(directory: Path) -> None:
    """Two CLIs must not have one session."""
    provider = SlowProvider()
    async with serving(provider, directory) as caller:
        session_id = await session_of(caller)
        await caller.service.agents.park("demo", session_id)  # type: ignore[union-attr]
        provider.gate.clear()
        await described(caller, session_id, warm=True)
        running = asyncio.create_task(caller.run("hello", session_id=session_id))
        done, _ = await asyncio.wait({running}, timeout=0.1)
        calls = provider.calls
        provider.gate.set()
        await running

        assert not done
        assert calls == 2
        assert [agent.turns for agent in provider.agents] == [1, 1]


NEVER_AHEAD: dict[str, dict[str, Any]] = {
    "switched off": {"warm_seconds": 0},
    "over HTTP": {},
    "ephemeral": {},
}


@pytest.mark.parametrize("name", NEVER_AHEAD)
async def test_an_agent_that_may_not_wait_does_not_start_ahead(directory: Path, name: str) -> None:
    """Where none waits, and with a server that it would greet while no token is honoured."""
    provider = warm_provider()
    http = options_pb2.McpServer(name="far", http=options_pb2.HttpTransport(url="https://mcp.example/"))
    servers = [http] if name == "over HTTP" else []
    async with serving(provider, directory, **NEVER_AHEAD[name]) as caller:
        session_id = await session_of(caller, mcp_servers=servers)
        if name == "ephemeral":
            await caller.run("hello", session_id=session_id, ephemeral=True)
        agents = caller.service.agents  # type: ignore[union-attr]
        started_before = len(provider.specs)
        await agents.park("demo", session_id)
        await described(caller, session_id, warm=True)
        await agents.close()

        assert len(provider.specs) == started_before


async def test_an_agent_that_could_not_wait_is_followed_by_one_that_does(directory: Path) -> None:
    """Where the service is told to: of a turn that failed, too."""
    provider = warm_provider()
    async with serving(provider, directory, warm_ahead=True) as caller:
        session_id = await session_of(caller, "fail")
        await until_warm(caller, session_id)
        await caller.run("hello", session_id=session_id)

        assert [agent.turns for agent in provider.agents] == [1, 1]
    assert all(agent.closed.is_set() for agent in provider.agents)


async def test_an_agent_that_starts_ahead_has_a_token_that_counts_for_nothing(directory: Path) -> None:
    """Before its turn begins."""
    contexts = Contexts()
    await contexts.turn(options_pb2.ToolContext(user_id="ann", session_cookie="one"))
    await contexts.agents.park("demo", "s")
    contexts.agents.start_ahead("demo", "s", None)
    async with asyncio.timeout(BOUND):
        while not contexts.agents.has_waiting("demo", "s"):
            await asyncio.sleep(0)
    token, remembered = contexts.provider.specs[-1].token, contexts.provider.specs[-1].request
    before = contexts.tokens.headers(token, "v1/messages")
    during = await contexts.turn(options_pb2.ToolContext(user_id="ann", session_cookie="two"))

    assert token
    assert not remembered.tool_context.session_cookie
    assert before is None
    assert during == (True, False)
    assert [agent.turns for agent in contexts.provider.agents] == [0, 0]
    assert len(contexts.provider.specs) == 2


async def test_an_agent_is_asked_for_each_turn(directory: Path) -> None:
    """Before its turn is checked; what it said before a turn that was refused does not count for the next one."""
    provider = warm_provider()
    async with serving(provider, directory) as caller:
        session_id = await session_of(caller)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.run("", session_id=session_id)
        provider.agents[0].is_ready_for_more = False
        await caller.run("hello", session_id=session_id)

    assert [agent.turns for agent in provider.agents] == [1, 1]
