"""Every call of every service, with requests of any kind: nothing breaks, nothing leaks, nothing grows.

`make fuzz REQUESTS=100000` sends more than the suite does.
"""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from alive.agent.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    outcome_service_pb2,
    session_pb2,
    workspace_service_pb2,
)
from alive_kit.testing.harness import request
from alive_kit.testing.processes import Processes, Program

from .messages import FOREIGN, OWN, messages

REQUESTS = int(os.environ.get("ALIVE_FUZZ_REQUESTS", "10000"))
ROUNDS = 2
GROWTH = 24 << 20
"""Bytes by which a process may grow from the first round to the last: caches and fragments, not 5,000 requests."""

CANARY = "a-heron-that-nobody-else-sees"
SECONDS = 10.0
BROKEN = {
    *(grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS),
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
TOKENS = ("acme", "rival", "operator")
CALLERS = "".join(
    f"""
[[callers]]
name = "{name}"
owner = "{name}"
workspaces = {workspaces}
scopes = {scopes}
[[callers.tokens]]
sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"
"""
    for name, workspaces, scopes in (
        ("acme", [FOREIGN], ["turns", "sessions", "settings", "usage", "providers"]),
        ("rival", [OWN, "nobody.*"], ["turns", "sessions", "settings", "usage", "providers"]),
        ("operator", [], ["rollout"]),
    )
)


def methods(*services: object) -> list[MethodDescriptor]:
    """Return every call of some services."""
    return [
        method
        for service in services
        for described in service.DESCRIPTOR.services_by_name.values()  # type: ignore[attr-defined]
        for method in described.methods
    ]


TARGETS = [
    *(("router", method) for method in methods(agent_service_pb2, workspace_service_pb2)),
    *(("red", method) for method in methods(agent_service_pb2, outcome_service_pb2)),
]


@dataclass(kw_only=True)
class World:
    """A router and a provider, two owners, and what the one has that the other must not see."""

    directory: Path
    processes: Processes
    channels: dict[str, grpc.Channel]
    sessions: dict[str, str] = field(default_factory=dict)
    """The session of each owner."""
    answers: Counter[str] = field(default_factory=Counter)
    """How many calls ended in which way."""

    def stub(self, name: str = "router") -> "agent_service_pb2_grpc.AgentServiceStub":
        """Return AgentService of one of the two."""
        return agent_service_pb2_grpc.AgentServiceStub(self.channels[name])

    def call(self, target: str, method: MethodDescriptor, body: bytes, token: str) -> list[bytes]:
        """Make a call, and return its responses.

        Raises:
            grpc.RpcError: it is refused.
        """
        channel, path = self.channels[target], f"/{method.containing_service.full_name}/{method.name}"
        if not method.server_streaming:
            return [channel.unary_unary(path)(body, metadata=bearer(token), timeout=SECONDS)]
        call = channel.unary_stream(path)(body, metadata=bearer(token), timeout=SECONDS)
        if method.name == "WatchOutcomes":  # It ends with its caller.
            first = next(iter(call))
            call.cancel()
            return [first]
        return list(call)

    def foreign(self) -> tuple[object, ...]:
        """Return all that the other owner has."""
        metadata, stub = bearer("acme"), self.stub()
        sessions = stub.ListSessions(session_pb2.ListSessionsRequest(workspace_id=FOREIGN), metadata=metadata)
        session_id = sessions.sessions[0].session_id
        items = session_pb2.ListItemsRequest(workspace_id=FOREIGN, session_id=session_id)
        watch = agent_service_pb2.WatchTurnRequest(workspace_id=FOREIGN, turn_id="seed")
        events = [event for response in stub.WatchTurn(watch, metadata=metadata) for event in response.events]
        return sessions, stub.ListItems(items, metadata=metadata), events


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller."""
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Return it, with a turn of each owner."""
    with tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        for workspace in (OWN, FOREIGN):
            (directory / "workspaces" / workspace).mkdir(parents=True)
        (directory / "callers.toml").write_text(CALLERS)
        processes = Processes(directory, programs(directory))
        processes.start()
        channels = {target: grpc.insecure_channel(f"unix:{directory}/{target}.sock") for target in ("router", "red")}
        try:
            world = World(directory=directory, processes=processes, channels=channels)
            for token, workspace_id, turn_id, text in (
                ("acme", FOREIGN, "seed", CANARY),
                ("rival", OWN, "own", "hello"),
            ):
                asked = request(text, workspace_id=workspace_id, turn_id=turn_id)
                call = world.stub().StartTurn(asked, metadata=bearer(token), wait_for_ready=True, timeout=30)
                events = [event for response in call for event in response.events]
                assert events[-1].HasField("turn_completed")
                world.sessions[token] = events[-1].session_id
            yield world
        finally:
            for channel in channels.values():
                channel.close()
            processes.close()


def programs(directory: Path) -> dict[str, Program]:
    """Return the router, which knows its callers, and the provider."""
    common = {"ALIVE_WORKSPACES": f"{directory}/workspaces", "ALIVE_LOG_LEVEL": "WARNING"}
    provider = {"ALIVE_LISTEN": f"unix:{directory}/red.sock", "ALIVE_STATE_DIR": f"{directory}/red"}
    router = {
        "ALIVE_LISTEN": f"unix:{directory}/router.sock",
        "ALIVE_PROVIDERS": f"red=unix:{directory}/red.sock,blue=unix:{directory}/absent.sock",
        "ALIVE_DISABLED_PROVIDERS": "blue",
        "ALIVE_STATE_DIR": str(directory),
        "ALIVE_CALLERS_FILE": f"{directory}/callers.toml",
    }
    return {
        "red": Program(words=[str(Path(__file__).with_name("provider.py"))], variables={**common, **provider}),
        "router": Program(words=["-m", "alive_router"], variables={**common, **router}),
    }


def bodies(method: MethodDescriptor, sessions: dict[str, str]) -> st.SearchStrategy[bytes]:
    """Return what makes requests of a call; few of them are no messages at all."""
    whole = messages(method.input_type, sessions["rival"], sessions["acme"]).map(
        lambda message: message.SerializeToString()
    )
    cut = st.tuples(whole, st.integers(0, 40)).map(lambda both: both[0][: both[1]])
    return st.one_of(*[whole] * 8, cut, st.binary(max_size=60))


def check(world: World, target: str, method: MethodDescriptor, body: bytes, token: str) -> None:
    """Make a call, and see that whatever comes of it may."""
    error: Any = None
    responses: list[bytes] = []
    try:
        responses = world.call(target, method, body, token)
    except grpc.RpcError as refusal:
        error = refusal
    status = rpc_status.from_call(error) if error else None
    code = error.code() if error else grpc.StatusCode.OK
    world.answers[f"{target}.{method.name} {code.name}"] += 1

    assert code not in BROKEN, f"{error.details()}\n{world.processes.log(target)[-3000:]}"
    assert code is not grpc.StatusCode.INVALID_ARGUMENT or fields_of(status), error.details()
    told = [*responses, str(status).encode()]
    assert CANARY.encode() in body or not any(CANARY.encode() in answer for answer in told)


def fields_of(status: object) -> list[str]:
    """Return the fields that a refusal names."""
    found = error_details_pb2.BadRequest()
    for detail in getattr(status, "details", ()):
        if detail.Unpack(found):
            return [violation.field for violation in found.field_violations if violation.field]
    return []


@pytest.mark.timeout(max(300, REQUESTS // 20))
def test_whatever_is_asked_is_answered(world: World) -> None:
    """No INTERNAL, no crash, a name for each bad field; the other owner's data stays, unseen; memory stays flat."""
    before = world.foreign()
    count = -(-REQUESTS // (ROUNDS * len(TARGETS)))
    used: list[dict[str, int]] = []
    for number in range(ROUNDS):
        for target, method in TARGETS:
            fuzz(world, target, method, count, number)
        used.append({name: world.processes.memory(name) for name in ("router", "red")})

    answers = sorted(f"  {how} {many}" for how, many in world.answers.items())
    sys.stdout.write("\n".join([f"\n{sum(world.answers.values())} requests:", *answers, ""]))
    assert sum(world.answers.values()) > 0.9 * REQUESTS
    assert world.foreign() == before
    assert "Traceback" not in world.processes.log("router") + world.processes.log("red")
    for name in ("router", "red"):
        assert used[-1][name] - used[0][name] < GROWTH, used


def fuzz(world: World, target: str, method: MethodDescriptor, count: int, number: int) -> None:
    """Make one call again and again; the same calls in each run."""
    caller = "operator" if method.name in {"GetRollout", "UpdateRollout"} else "rival"

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(bodies(method, world.sessions))
    def one(body: bytes) -> None:
        if target == "router" or not is_foreign(method, body):
            check(world, target, method, body, caller)

    one()


def is_foreign(method: MethodDescriptor, body: bytes) -> bool:
    """Whether a request is about the other owner's workspace; a provider knows no owners, and is the router's alone."""
    with contextlib.suppress(DecodeError):
        message = GetMessageClass(method.input_type).FromString(body)
        return FOREIGN in str(message)
    return False
