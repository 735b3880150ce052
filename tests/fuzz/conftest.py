"""A router with two owners and the reference provider behind it: processes of their own, over real sockets."""

import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from alive.agent.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    session_pb2,
    workspace_service_pb2,
    workspace_service_pb2_grpc,
)
from alive_kit.testing.harness import collect, request
from alive_kit.testing.scripted_model import Reply, Script, ScriptedModel

from ..bench.processes import Process, python

KEY = "fuzz-key"
CANARY = "canary-9c41f2"
"""What only the workspace of the owner ``acme`` holds; no fuzzed request says it."""

ACME, RIVAL, CHANGED = "acme.example", "rival.example", "rival.changed"
"""Workspaces, by owner; settings of the last one are changed."""

_CALLERS = """
[[callers]]
name = "{name}"
owner = "{owner}"
workspaces = ["{owner}.*"]
scopes = {scopes}
[[callers.tokens]]
sha256 = "{sha256}"
"""
_OWN = ["turns", "sessions", "settings", "usage", "providers"]
_SCOPES = {
    "acme": ("acme", [*_OWN, "rollout"]),
    "rival": ("rival", [*_OWN, "rollout"]),
    "reader": ("rival", ["sessions"]),
}

FORKS = 20
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """What is fuzzed, and what it knows that is somebody's own."""

    router: grpc.aio.Channel
    provider: grpc.aio.Channel
    processes: dict[str, Process]
    turns: dict[str, str]
    """A turn of each owner, by workspace."""
    sessions: dict[str, str]
    secrets: list[str]
    """Ids of the other owner's that no request says."""
    forks: list[str]
    """Sessions that may be deleted."""

    async def turn(self, workspace_id: str, text: str = "hello", **fields: Any) -> list[Any]:
        """Run a turn of a workspace's owner."""
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(self.router)
        asked = request(text, workspace_id=workspace_id, **fields)
        return await collect(stub.StartTurn(asked, metadata=own(workspace_id)))

    async def state(self, workspace_id: str) -> list[bytes]:
        """Return what is kept of a workspace, as its owner sees it."""
        metadata = own(workspace_id)
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(self.router)
        watch = agent_service_pb2.WatchTurnRequest(workspace_id=workspace_id, turn_id=self.turns[workspace_id])
        sessions = session_pb2.ListSessionsRequest(workspace_id=workspace_id)
        items = session_pb2.ListItemsRequest(workspace_id=workspace_id, session_id=self.sessions[workspace_id])
        listed = await stub.ListSessions(sessions, metadata=metadata)
        for session in listed.sessions:
            session.ClearField("warm")  # Whoever asks the provider itself may have an agent start ahead.
        answers = [
            listed,
            await stub.ListItems(items, metadata=metadata),
            *await collect(stub.WatchTurn(watch, metadata=metadata)),
        ]
        return [(await self.settings(workspace_id))[0], *(answer.SerializeToString() for answer in answers)]

    async def settings(self, workspace_id: str) -> list[bytes]:
        """Return a workspace's settings, and to whom providers are rolled out."""
        metadata = own(workspace_id)
        stub: Any = workspace_service_pb2_grpc.WorkspaceServiceStub(self.router)
        workspace = workspace_service_pb2.GetWorkspaceRequest(workspace_id=workspace_id)
        answers = (
            await stub.GetWorkspace(workspace, metadata=metadata),
            await stub.GetRollout(workspace_service_pb2.GetRolloutRequest(), metadata=metadata),
        )
        return [answer.SerializeToString(deterministic=True) for answer in answers]


def bearer(name: str) -> Metadata:
    """Return the metadata of a caller, whose token is its name; none for nobody."""
    return (("authorization", f"Bearer {name}"),) if name else ()


def own(workspace_id: str) -> Metadata:
    """Return the metadata of a workspace's owner."""
    return bearer(workspace_id.partition(".")[0])


@pytest.fixture(scope="session")
async def fuzzed() -> AsyncIterator[Fuzzed]:
    """Return the system, in which each owner has had a turn."""
    async with contextlib.AsyncExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True)))
        model = await exits.enter_async_context(ScriptedModel(key=KEY))
        model.script("default", Script(loop=True, replies=[Reply(text="Hello.")]))
        model.script("acme", Script(loop=True, replies=[Reply(text=f"The word is {CANARY}-said.")]))
        processes = await _started(directory, model.url, exits)
        channels = [
            await exits.enter_async_context(
                grpc.aio.insecure_channel(f"unix:{directory}/{name}.sock", options=_OPTIONS)
            )
            for name in ("router", "reference")
        ]
        system = Fuzzed(
            router=channels[0], provider=channels[1], processes=processes, turns={}, sessions={}, secrets=[], forks=[]
        )
        await _ready(system.provider)
        await _prepare(system)
        yield system


async def _started(directory: Path, url: str, exits: contextlib.AsyncExitStack) -> dict[str, Process]:
    """Start the provider and the router."""
    for name in (ACME, RIVAL, CHANGED):
        (directory / "workspaces" / name).mkdir(parents=True)
        (directory / "workspaces" / name / "link").symlink_to("/etc/passwd")
    (directory / "key").write_text(KEY)
    (directory / "callers.toml").write_text(
        "".join(
            _CALLERS.format(name=name, owner=owner, scopes=scopes, sha256=hashlib.sha256(name.encode()).hexdigest())
            for name, (owner, scopes) in _SCOPES.items()
        )
    )
    common = {
        "ALIVE_WORKSPACES": f"{directory}/workspaces",
        "ALIVE_STATE_DIR": str(directory),
        "ALIVE_LOG_LEVEL": "WARNING",
    }
    provider = python(
        "alive_kit.testing.reference",
        socket=directory / "reference.sock",
        ALIVE_LISTEN=f"unix:{directory}/reference.sock",
        ALIVE_REFERENCE_BASE_URL=url,
        ALIVE_REFERENCE_API_KEY_FILE=f"{directory}/key",
        ALIVE_OVERLOAD="1000",
        ALIVE_BUSY_LOAD="1000",
        **common,
    )
    router = python(
        "alive_router",
        socket=directory / "router.sock",
        ALIVE_LISTEN=f"unix:{directory}/router.sock",
        ALIVE_PROVIDERS=f"reference=unix:{directory}/reference.sock,off=unix:{directory}/off.sock",
        ALIVE_DISABLED_PROVIDERS="off",
        ALIVE_CALLERS_FILE=f"{directory}/callers.toml",
        **common,
    )
    return {
        "provider": await exits.enter_async_context(provider),
        "router": await exits.enter_async_context(router),
    }


async def _ready(channel: grpc.aio.Channel) -> None:
    """Return once a service takes turns."""
    asked = health_pb2.HealthCheckRequest()
    async for answer in health_pb2_grpc.HealthStub(channel).Watch(asked, wait_for_ready=True, timeout=60):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return


async def _prepare(system: Fuzzed) -> None:
    """Give each owner a turn, and one of them what the other must never see."""
    settings: Any = workspace_service_pb2_grpc.WorkspaceServiceStub(system.router)
    secret = {"agent": {"system_prompt": {"append": f"{CANARY}-setting"}}}
    asked = workspace_service_pb2.UpdateWorkspaceRequest(workspace_id=ACME, settings=secret)
    await settings.UpdateWorkspace(asked, metadata=bearer("acme"))
    for workspace_id, text in ((ACME, f"[script:acme] {CANARY}-asked"), (RIVAL, "hello")):
        events = await system.turn(workspace_id, text)
        system.turns[workspace_id], system.sessions[workspace_id] = events[0].turn_id, events[0].session_id
    secret = (await system.turn(ACME, f"[script:acme] {CANARY}-asked"))[0]
    system.secrets.extend([secret.turn_id, secret.session_id])
    agents: Any = agent_service_pb2_grpc.AgentServiceStub(system.router)
    fork = session_pb2.ForkSessionRequest(workspace_id=RIVAL, session_id=system.sessions[RIVAL])
    for _ in range(FORKS):
        forked = await agents.ForkSession(fork, metadata=bearer("rival"))
        system.forks.append(forked.session.session_id)
