"""Who may call the router, and what each caller sees."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from alive.agent.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    approval_pb2,
    item_pb2,
    options_pb2,
    session_pb2,
    workspace_service_pb2,
)
from alive_kit.testing.fakes import answers, started
from alive_kit.testing.harness import collect, request
from alive_kit.tls import TlsFiles, channel_credentials
from alive_router.callers import FORWARDED_CERTIFICATE, SCOPES
from alive_router.settings import RouterSettings
from alive_stack.certificates import make_certificates

from .conftest import System, running
from .test_choice import refusal
from .test_usage import rows

FILE = """
[[callers]]
name = "acme"
owner = "acme"
workspaces = ["demo", "acme.*"]
scopes = ["turns", "sessions", "settings", "usage", "providers"]
certificates = ["caller"]
[[callers.tokens]]
sha256 = "{acme}"
[[callers.tokens]]
sha256 = "{expired}"
expires = 2020-01-01T00:00:00Z

[[callers]]
name = "reader"
owner = "acme"
workspaces = ["demo"]
scopes = ["sessions"]
[[callers.tokens]]
sha256 = "{reader}"

[[callers]]
name = "rival"
owner = "rival"
workspaces = ["rival.example", "demo"]
[[callers.tokens]]
sha256 = "{rival}"

[[callers]]
name = "operator"
owner = "operator"
workspaces = ["*"]
scopes = ["rollout", "usage"]
[[callers.tokens]]
sha256 = "{operator}"
"""
NAMES = ("acme", "expired", "reader", "rival", "operator", "new")


def file(text: str = FILE) -> str:
    """Return a file in which each token is its caller's name."""
    return text.format(**{name: hashlib.sha256(name.encode()).hexdigest() for name in NAMES})


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller."""
    return (("authorization", f"Bearer {name}"),)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[System]:
    """Return a system whose router knows its callers."""
    (tmp_path / "callers.toml").write_text(file())
    async with running("red", "blue", callers_file=tmp_path / "callers.toml") as system:
        for name in ("acme.example", "rival.example"):
            (system.caller.workspaces / name).mkdir()
        yield system


async def code(awaitable: Any) -> str:
    """Return the code and the reason with which a call is refused."""
    error = await refusal(awaitable)
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    reasons = ("IDENTITY_MISSING", "FORBIDDEN", "WORKSPACE_NOT_FOUND", "INVALID_FIELD")
    found = [reason for reason in reasons if isinstance(details, bytes) and reason.encode() in details]
    return f"{error.code().name} {found[0] if found else error.details()}"


async def run(system: System, name: str, workspace_id: str = "demo", **fields: Any) -> list[Any]:
    """Run a turn as a caller."""
    asked = request("hello", workspace_id=workspace_id, **fields)
    return await collect(system.caller.stub.StartTurn(asked, metadata=bearer(name)))


EVERY_CALL = [
    (service, method)
    for service in (agent_service_pb2, workspace_service_pb2)
    for description in service.DESCRIPTOR.services_by_name.values()
    for method in description.methods
]


@pytest.mark.parametrize("metadata", [(), bearer("wrong"), bearer("expired"), bearer("acme") * 2], ids=str)
async def test_every_call_needs_an_identity(guarded: System, metadata: tuple[tuple[str, str], ...]) -> None:
    """None, a wrong one, one that is no longer valid, two; health stays open."""
    for _, method in EVERY_CALL:
        path = f"/{method.containing_service.full_name}/{method.name}"
        call = guarded.caller.channel.unary_stream if method.server_streaming else guarded.caller.channel.unary_unary
        called = call(path)(b"", metadata=metadata)
        answer = await code(called.read() if method.server_streaming else called)
        assert answer == "UNAUTHENTICATED IDENTITY_MISSING", method.name
    health = health_pb2_grpc.HealthStub(guarded.caller.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_every_call_needs_its_scope(guarded: System) -> None:
    """Whoever may only look at sessions is refused everything else, before anything is looked at."""
    for _, method in EVERY_CALL:
        path = f"/{method.containing_service.full_name}/{method.name}"
        call = guarded.caller.channel.unary_stream if method.server_streaming else guarded.caller.channel.unary_unary
        called = call(path)(b"", metadata=bearer("reader"))
        answer = await code(called.read() if method.server_streaming else called)
        assert (answer == "PERMISSION_DENIED FORBIDDEN") is (SCOPES[method.name] != "sessions"), method.name


async def test_having_an_agent_start_needs_the_scope_of_turns(guarded: System) -> None:
    """Whoever may only look at sessions may look at them."""
    session_id = (await run(guarded, "acme"))[0].session_id
    looks = session_pb2.GetSessionRequest(workspace_id="demo", session_id=session_id)
    warms = session_pb2.GetSessionRequest(workspace_id="demo", session_id=session_id, warm=True)
    found = await guarded.caller.stub.GetSession(looks, metadata=bearer("reader"))
    refused = await code(guarded.caller.stub.GetSession(warms, metadata=bearer("reader")))
    allowed = await guarded.caller.stub.GetSession(warms, metadata=bearer("acme"))

    assert found.session.session_id == allowed.session.session_id == session_id
    assert refused == "PERMISSION_DENIED FORBIDDEN"


async def test_a_caller_does_what_its_scopes_say(guarded: System) -> None:
    """And nothing else; the owner reaches the provider's outcome, and the token does not reach the provider."""
    events = await run(guarded, "acme")
    sessions = session_pb2.ListSessionsRequest(workspace_id="demo")
    listed = await guarded.caller.stub.ListSessions(sessions, metadata=bearer("reader"))
    turn = await code(run(guarded, "reader"))
    rollout = workspace_service_pb2.UpdateRolloutRequest(rollout={"provider_id": "blue"})
    refused = await code(guarded.workspaces.UpdateRollout(rollout, metadata=bearer("acme")))
    allowed = await guarded.workspaces.UpdateRollout(rollout, metadata=bearer("operator"))

    assert events[-1].HasField("turn_completed")
    assert [session.session_id for session in listed.sessions] == [events[0].session_id]
    assert turn == refused == "PERMISSION_DENIED FORBIDDEN"
    assert allowed.rollout.provider_id == "blue"


async def test_a_foreign_workspace_is_as_one_that_does_not_exist(guarded: System) -> None:
    """In every way a request can name it; what is no id is refused as such."""
    foreign = await refusal(run(guarded, "acme", workspace_id="rival.example"))
    absent = await refusal(run(guarded, "acme", workspace_id="absent.example"))
    own_absent = await refusal(run(guarded, "acme", workspace_id="acme.absent"))
    directories = await code(run(guarded, "acme", permissions={"extra_directories": ["rival.example"]}))
    settings = workspace_service_pb2.UpdateWorkspaceRequest(
        workspace_id="demo", settings={"permissions": {"extra_directories": ["rival.example"]}}
    )
    set_ = await code(guarded.workspaces.UpdateWorkspace(settings, metadata=bearer("acme")))
    malformed = await code(run(guarded, "acme", workspace_id="../rival.example"))
    own = await run(guarded, "acme", workspace_id="acme.example")

    for error, name in ((absent, "absent.example"), (own_absent, "acme.absent")):
        assert error.code() is foreign.code() is grpc.StatusCode.NOT_FOUND
        assert (error.details() or "").replace(name, "x") == (foreign.details() or "").replace("rival.example", "x")
    assert directories == set_ == "NOT_FOUND WORKSPACE_NOT_FOUND"
    assert malformed == "INVALID_ARGUMENT INVALID_FIELD"
    assert own[-1].HasField("turn_completed")


async def test_a_caller_sees_usage_of_its_own_workspaces(guarded: System) -> None:
    """By owner; those of others are not there, whatever it asks for."""
    await run(guarded, "acme", workspace_id="acme.example")
    await run(guarded, "acme")
    await run(guarded, "rival", workspace_id="rival.example")
    seen: dict[str, Any] = {}
    for name, count in (("operator", 3), ("acme", 2), ("rival", 2)):
        request_ = workspace_service_pb2.GetUsageRequest()
        async with asyncio.timeout(20):
            while True:
                found = (await guarded.workspaces.GetUsage(request_, metadata=bearer(name))).rows
                if sum(row.turns for row in found) >= count:
                    break
                await asyncio.sleep(0.02)
        seen[name] = [(row.workspace_id, row.owner_id) for row in found]

    assert seen["operator"] == [("acme.example", "acme"), ("demo", "acme"), ("rival.example", "rival")]
    assert seen["acme"] == [("acme.example", "acme"), ("demo", "acme")]
    assert seen["rival"] == [("demo", "acme"), ("rival.example", "rival")]


async def test_an_approval_is_its_owners_to_answer(guarded: System) -> None:
    """Another one who shares the workspace is refused."""
    asks = approval_pb2.ApprovalRequested(command=item_pb2.CommandItem(command="true", cwd="."))
    guarded.providers["red"].scripts["hello"] = [started(), asks, *answers("Done.")[1:]]
    asked = request("hello", turn_id="t", permissions={"approval_policy": options_pb2.APPROVAL_POLICY_ASK})
    call = guarded.caller.stub.StartTurn(asked, metadata=bearer("acme"))
    approval_id = ""
    while not approval_id:
        for event in (await call.read()).events:
            approval_id = event.approval_requested.approval_id or approval_id
    answer = approval_pb2.ResolveApprovalRequest(
        workspace_id="demo",
        turn_id="t",
        approval_id=approval_id,
        decision=approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ALLOW_ONCE),
    )
    refused = await code(guarded.caller.stub.ResolveApproval(answer, metadata=bearer("rival")))
    await guarded.caller.stub.ResolveApproval(answer, metadata=bearer("acme"))
    rest = await collect(call)

    assert refused == "PERMISSION_DENIED FORBIDDEN"
    assert rest[-1].HasField("turn_completed")


async def test_callers_are_exchanged_while_the_router_runs(
    guarded: System, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A new token beside the old one, then instead; a broken file leaves those who are known, and is said loudly."""
    path = tmp_path / "callers.toml"
    added = file(FILE.replace('sha256 = "{acme}"\n', 'sha256 = "{acme}"\n[[callers.tokens]]\nsha256 = "{new}"\n'))
    path.write_text(added)
    both = [await run(guarded, name) for name in ("acme", "new")]
    path.write_text(file(FILE.replace("{acme}", "{new}")))
    gone = await code(run(guarded, "acme"))
    with caplog.at_level(logging.ERROR):
        path.write_text("[[callers]]\nname = 5\n")
        broken = await run(guarded, "new")
        path.unlink()
        absent = await run(guarded, "new")

    assert all(events[-1].HasField("turn_completed") for events in (*both, broken, absent))
    assert gone == "UNAUTHENTICATED IDENTITY_MISSING"
    assert len([record for record in caplog.records if "NOT in force" in record.message]) == 2


async def test_a_certificate_is_an_identity(tmp_path: Path) -> None:
    """By its name; one of the same authority whose name nobody has is nobody's."""
    certificates = tmp_path / "certificates"
    make_certificates(certificates, {})
    tls = {f"tls_{name}": certificates / file_ for name, file_ in (
        ("cert_file", "router.pem"), ("key_file", "router.key"), ("clients_ca_file", "callers-ca.pem"))}  # fmt: skip
    (tmp_path / "callers.toml").write_text(file())
    shown = TlsFiles(
        cert=certificates / "caller.pem", key=certificates / "caller.key", authorities=certificates / "router-ca.pem"
    )
    async with (
        running("red", listen="localhost:0", callers_file=tmp_path / "callers.toml", **tls) as system,
        grpc.aio.secure_channel(system.address, channel_credentials(shown)) as channel,
    ):
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        mine = await collect(stub.StartTurn(request("hello")))
        (tmp_path / "callers.toml").write_text(file().replace('"caller"', '"somebody"'))
        nobody = await code(collect(stub.StartTurn(request("hello"))))

    assert mine[-1].HasField("turn_completed")
    assert nobody == "UNAUTHENTICATED IDENTITY_MISSING"


async def test_a_certificate_that_is_only_named_is_nobodys(guarded: System) -> None:
    """A caller without one cannot say that it has shown it."""
    metadata = ((FORWARDED_CERTIFICATE, 'Subject="CN=caller";DNS=caller'),)
    nobody = await code(collect(guarded.caller.stub.StartTurn(request("hello"), metadata=metadata)))

    assert nobody == "UNAUTHENTICATED IDENTITY_MISSING"


async def test_without_callers_it_is_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """And only this host can call; turns are nobody's."""
    with caplog.at_level(logging.WARNING):
        async with running("red") as system:
            await system.caller.run("hello")
            found = await rows(system, until=1)

    assert any(record.message.startswith("OPEN") for record in caplog.records)
    assert [row.owner_id for row in found] == [""]


def test_an_address_that_others_can_reach_needs_callers(tmp_path: Path) -> None:
    """Certificates alone do not tell one caller from another."""
    files = {name: tmp_path / name for name in ("tls_cert_file", "tls_key_file", "tls_clients_ca_file")}
    values = {"listen": "0.0.0.0:1", "providers": {"red": "unix:/r"}, "workspaces": tmp_path, "state_dir": tmp_path}
    with pytest.raises(ValidationError, match="ALIVE_CALLERS_FILE"):
        RouterSettings(**values, **files)
