"""What is another owner's, and what a caller's scopes leave out: every RPC, each by one line of a table."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

from alive.agent.v1 import agent_service_pb2
from alive_kit.testing.fakes import started, waits_for_interrupt
from alive_kit.testing.harness import collect, request
from alive_router.callers import SCOPES

from .conftest import System, running
from .test_callers import EVERY_CALL, bearer, code

FOREIGN, SHARED = "rival.example", "demo"

_TURN = {"turn_id": "theirs"}
_TEXT = {"input": [{"text": "hello"}]}
_DECISION = {"approval_id": "a", "decision": {"kind": "DECISION_KIND_DENY"}}
CALLS: dict[str, dict[str, Any]] = {
    "StartTurn": _TEXT,
    "WatchTurn": _TURN,
    "InterruptTurn": _TURN,
    "SteerTurn": {**_TURN, **_TEXT},
    "ReadItemContent": {**_TURN, "item_id": "i"},
    "ResolveApproval": {**_TURN, **_DECISION},
    "ListSessions": {},
    "GetSession": {"session_id": "s"},
    "ForkSession": {"session_id": "s"},
    "DeleteSession": {"session_id": "s"},
    "ListItems": {"session_id": "s"},
    "GetProviderInfo": {},
    "GetWorkspace": {},
    "UpdateWorkspace": {"settings": {"provider_id": "red"}},
    "ListProviders": {},
    "GetUsage": {},
}
"""What each call says beside the workspace."""

OPERATORS = {"GetRollout": {}, "UpdateRollout": {"rollout": {"provider_id": "blue"}}}
"""Calls that are about no workspace."""

OWNERS_ONLY = ("InterruptTurn", "SteerTurn", "ResolveApproval")
"""What is done on behalf of a turn's owner, by nobody else with whom its workspace is shared."""

_FILE = """
[[callers]]
name = "{name}"
owner = "{owner}"
workspaces = {workspaces}
scopes = {scopes}
[[callers.tokens]]
sha256 = "{sha256}"
"""


def _callers() -> str:
    """Return a file with two owners, and a caller without each scope."""
    scopes = sorted(set(SCOPES.values()))
    rows = [("acme", "acme", [SHARED], scopes), ("rival", "rival", [SHARED, FOREIGN], scopes)]
    rows += [(f"no-{scope}", "acme", ["*"], [other for other in scopes if other != scope]) for scope in scopes]
    return "".join(
        _FILE.format(name=name, owner=owner, workspaces=workspaces, scopes=held, sha256=_hash(name))
        for name, owner, workspaces, held in rows
    )


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
async def owned(tmp_path: Path) -> AsyncIterator[System]:
    """Return a system with two owners, who share a workspace; another one is only one's."""
    (tmp_path / "callers.toml").write_text(_callers())
    async with running("red", "blue", callers_file=tmp_path / "callers.toml") as system:
        (system.caller.workspaces / FOREIGN).mkdir()
        yield system


async def call(system: System, name: str, caller: str, **fields: Any) -> str:
    """Make a call as a caller and return how it is refused."""
    method = next(method for _, method in EVERY_CALL if method.name == name)
    asked = ParseDict({**(CALLS | OPERATORS)[name], **fields}, GetMessageClass(method.input_type)())
    channel, path = system.caller.channel, f"/{method.containing_service.full_name}/{name}"
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    made = make(path)(asked.SerializeToString(), metadata=bearer(caller))
    return await code(made.read() if method.server_streaming else made)


def test_every_call_has_a_line() -> None:
    """One that comes new to the contract needs one."""
    assert {method.name for _, method in EVERY_CALL} == {*CALLS, *OPERATORS} == {*SCOPES}


async def test_another_owners_workspace_is_not_there(owned: System) -> None:
    """Whatever is asked of it; a turn runs in it under the very id."""
    asked = request("hello", workspace_id=FOREIGN, turn_id="theirs")
    await collect(owned.caller.stub.StartTurn(asked, metadata=bearer("rival")))
    answers = {name: await call(owned, name, "acme", workspace_id=FOREIGN) for name in CALLS}

    assert answers == dict.fromkeys(CALLS, "NOT_FOUND WORKSPACE_NOT_FOUND")


async def test_another_owners_turn_is_its_own_to_steer_stop_and_answer(owned: System) -> None:
    """In a workspace that both share: there the turn is seen, and goes on."""
    owned.providers["red"].scripts["hello"] = [started(), waits_for_interrupt]
    stub, theirs = owned.caller.stub, {"workspace_id": SHARED, "turn_id": "theirs"}
    stream = stub.StartTurn(request("hello", turn_id="theirs"), metadata=bearer("rival"))
    await stream.read()
    answers = {name: await call(owned, name, "acme", workspace_id=SHARED) for name in OWNERS_ONLY}
    watched = stub.WatchTurn(agent_service_pb2.WatchTurnRequest(**theirs), metadata=bearer("acme"))
    seen = list((await watched.read()).events)
    await stub.InterruptTurn(agent_service_pb2.InterruptTurnRequest(**theirs), metadata=bearer("rival"))

    assert answers == dict.fromkeys(OWNERS_ONLY, "PERMISSION_DENIED FORBIDDEN")
    assert seen[0].turn_id == "theirs"
    assert (await collect(watched))[-1].HasField("turn_interrupted")


async def test_a_call_needs_its_scope(owned: System) -> None:
    """All the others are not enough."""
    where = {name: {"workspace_id": SHARED} if name in CALLS else {} for name in SCOPES}
    answers = {name: await call(owned, name, f"no-{scope}", **where[name]) for name, scope in SCOPES.items()}

    assert answers == dict.fromkeys(SCOPES, "PERMISSION_DENIED FORBIDDEN")
