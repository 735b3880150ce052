"""What agents reach through the gateway beside their model: the product's API, and HTTP MCP servers."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from alive.agent.v1 import event_pb2, options_pb2
from alive_kit.testing.product import Product
from alive_kit.testing.scripted_model import CallTool, Reply, RunCommand, Script
from alive_stack.stack import free_address

from .conftest import Deployment, deployed, output_of

SECRET, SESSION, BEARER = "canary-internal-secret", "session=canary-of-ada", "canary-bearer-of-ada"
PROVIDERS = ("claude", "codex")
Row = Callable[..., None]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can put agents into boxes")
each_provider = pytest.mark.parametrize("provider", PROVIDERS)

CONTEXT = options_pb2.ToolContext(user_id="ada", session_cookie=SESSION, connected_providers=["github"])

ASK = """
/usr/bin/python3 - <<'END'
import http.client, os
url, token = os.environ["ALIVE_API_URL"], os.environ["ALIVE_API_TOKEN"]
def ask(method, path, **headers):
    c = http.client.HTTPConnection("127.0.0.1", 43005, timeout=5)
    c.request(method, path, b"{}", {"x-turn-token": token, **headers})
    answer = c.getresponse()
    return answer.status, answer.read().decode()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A deployment with a product behind it."""

    deployment: Deployment
    product: Product
    notes_url: str


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Return a deployment whose gateway leads to a product and to an MCP server."""
    secret = tmp_path_factory.mktemp("product") / "secret"
    secret.write_text(f"{SECRET}\n")
    port = free_address().rpartition(":")[2]
    product, notes_url = Product(secret=SECRET, session=SESSION), f"http://127.0.0.1:{port}/mcp"
    words = (str(Path(__file__).with_name("notes_server.py")), port, BEARER)
    server = await asyncio.create_subprocess_exec(sys.executable, *words)
    try:
        async with (
            product.serving() as url,
            deployed(
                "one host",
                ALIVE_PRODUCT_URL=f"{url}",
                ALIVE_PRODUCT_SECRET_FILE=str(secret),
                ALIVE_MCP_SERVERS=f"notes={notes_url}",
            ) as deployment,
        ):
            yield World(deployment=deployment, product=product, notes_url=notes_url)
    finally:
        server.kill()
        await server.wait()


@each_provider
async def test_a_tool_calls_the_product_for_its_user(world: World, provider: str) -> None:
    """It is told where, and shows its turn's token; the product sees who it is for. Alive's own tools are there too."""
    called = "/product/api/internal-tools/switch-serve-mode"
    script = ASK + f'print(*ask("POST", "{called}"), url, os.environ["ALIVE_CONNECTED_PROVIDERS"])\nEND'
    output, events = await world.deployment.mcp(provider, f"{provider}-product", script, tool_context=CONTEXT)
    call = world.product.calls[-1]

    started = next(event.turn_started for event in events if event.HasField("turn_started"))
    ready = {state.name for state in started.mcp_servers if state.status == event_pb2.MCP_SERVER_STATUS_READY}

    assert '200 {"message": "attacker.example is served' in output
    assert ready == {"shell", "alive-tools", "alive-workspace"}
    assert "http://127.0.0.1:43005/product github" in output
    assert (call.headers["x-alive-user-id"], call.headers["cookie"]) == ("ada", SESSION)
    assert call.headers["x-alive-turn-id"]
    assert not {"authorization", "x-api-key", "x-turn-token"} & call.headers.keys()


@each_provider
async def test_an_http_mcp_server_is_reached_from_a_box(world: World, provider: str) -> None:
    """With the user's bearer, which the agent does not have."""
    http = options_pb2.HttpTransport(url=world.notes_url, headers={"Authorization": f"Bearer {BEARER}"})
    server = options_pb2.McpServer(name="notes", http=http, required=True)
    search = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; find $HOME /tmp . -type f | xargs cat"
    replies = [
        Reply(actions=[CallTool(server="notes", tool="recall")]),
        Reply(actions=[RunCommand(command=f"({search}) 2>/dev/null | grep -c canary-bearer-of-[a]da; echo TRIED")]),
        Reply(text="Done."),
    ]
    marker = await world.deployment.model.script(f"{provider}-notes", Script(replies=replies))
    events = await world.deployment.caller.run(
        f"{marker} go",
        provider_id=provider,
        workspace_id="attacker.example",
        mcp_servers=[server],
        permissions=options_pb2.Permissions(sandbox=options_pb2.SANDBOX_FULL_ACCESS),
    )
    started = next(event.turn_started for event in events if event.HasField("turn_started"))

    assert [state.status for state in started.mcp_servers] == [event_pb2.MCP_SERVER_STATUS_READY]
    assert "Buy milk." in output_of(events)
    assert "TRIED" in output_of(events)
    assert "0\nTRIED" in output_of(events)


@each_provider
async def test_an_expired_bearer_is_a_notice_and_a_fresh_one_works(world: World, provider: str) -> None:
    """The caller refreshes it, and says it with the next turn: nothing is restarted."""
    statuses = []
    for which, bearer in (("expired", "expired"), ("fresh", BEARER)):
        http = options_pb2.HttpTransport(url=world.notes_url, headers={"Authorization": f"Bearer {bearer}"})
        server = options_pb2.McpServer(name="notes", http=http)
        marker = await world.deployment.model.script(f"{provider}-{which}", Script(replies=[Reply(text="Done.")]))
        asked = {"provider_id": provider, "workspace_id": "attacker.example", "mcp_servers": [server]}
        events = await world.deployment.caller.run(f"{marker} go", **asked)
        started = next(event.turn_started for event in events if event.HasField("turn_started"))
        failed = [event.notice.code for event in events if event.HasField("notice")].count("mcp_server_failed")
        statuses += [(state.status, failed) for state in started.mcp_servers]
        assert events[-1].HasField("turn_completed")

    assert statuses == [(event_pb2.MCP_SERVER_STATUS_FAILED, 1), (event_pb2.MCP_SERVER_STATUS_READY, 0)]


@each_provider
async def test_the_product_cannot_be_attacked_through_the_gateway(world: World, provider: str, row: Row) -> None:
    """Other calls, other users, no session: nothing that was not granted reaches it."""
    row("product: call", "call what no tool needs, as somebody else, and renew the session", provider, "one host, MCP",
        "gateway: exact methods and paths; user and workspace are the gateway's")  # fmt: skip
    script = (
        ASK
        + """
for method, path in [("POST", "/product/api/admin"), ("GET", "/product/api/files/delete"), ("POST", "/product/../product/api/admin"),
                     ("POST", "/product/api/files/delete/../../admin"), ("POST", "/product//api/admin"), ("POST", "/api/files/delete")]:
    status, _ = ask(method, path)
    print("WON" if status < 400 else status, path)
forged = {"cookie": "session=admin", "x-alive-user-id": "root", "x-alive-workspace-id": "victim.example",
          "x-internal-tools-secret": "x", "authorization": "Bearer x"}
print(*ask("POST", "/product/api/files/delete", **forged))
END
"""
    )
    before = len(world.product.calls)
    output, _ = await world.deployment.mcp(provider, f"{provider}-forge", script, tool_context=CONTEXT)
    calls = world.product.calls[before:]

    assert "WON" not in output
    assert "TRIED" in output
    assert [call.path for call in calls] == ["/api/files/delete"]
    assert calls[0].headers["x-alive-user-id"] == "ada"
    assert calls[0].headers["x-alive-workspace-id"] == "attacker.example"
    assert calls[0].headers["cookie"] == SESSION


@each_provider
async def test_a_turn_without_tool_context_has_no_product(world: World, provider: str, row: Row) -> None:
    """Its token opens the model alone; another turn's token died with that turn."""
    row("product: no context", "call the product in a turn that was given no user", provider, "one host, MCP",
        "gateway: a token opens what its turn was granted")  # fmt: skip
    keep = "echo $ALIVE_API_TOKEN > token; echo kept"
    await world.deployment.mcp(provider, f"{provider}-keep", keep, tool_context=CONTEXT)
    script = ASK.replace(
        'os.environ["ALIVE_API_URL"], os.environ["ALIVE_API_TOKEN"]', 'None, open("token").read().strip()'
    )
    own = "tr '\\0=' '\\n\\n' < /proc/$PPID/environ | grep -E '^[A-Za-z0-9_-]{43}$' | sort -u"
    script += f"""
import subprocess
for token in [token, *subprocess.run(["sh", "-c", {own!r}], capture_output=True, text=True).stdout.split()]:
    for path in ("/product/api/files/delete", "/mcp/notes"):
        status, _ = ask("POST", path)
        print("WON" if status < 400 else status)
END
"""
    before = len(world.product.calls)
    output, _ = await world.deployment.command(provider, f"{provider}-plain", script)

    assert "WON" not in output
    assert "401" in output
    assert len(world.product.calls) == before


@each_provider
async def test_a_session_never_acts_for_the_user_before(world: World, provider: str, row: Row) -> None:
    """A CLI and its server wait, started for Ada; the next turn is Bob's, with nothing of hers."""
    row("warm: inherit", "act as the user of the turn before, in a session whose CLI waits", provider, "one host, MCP",
        "another user is another CLI; cookie and user are those of the turn")  # fmt: skip
    who = 'echo "I am $ALIVE_USER_ID with [$ALIVE_CONNECTED_PROVIDERS]"'
    marker = await world.deployment.model.script(f"{provider}-ada", Script(replies=[Reply(text="Calm.")]))
    path = world.deployment.running.state / "workspaces/attacker.example/shell_server.py"
    stdio = options_pb2.StdioTransport(command="python3", args=[str(path)])
    events = await world.deployment.caller.run(
        f"{marker} go",
        provider_id=provider,
        workspace_id="attacker.example",
        tool_context=CONTEXT,
        mcp_servers=[options_pb2.McpServer(name="shell", stdio=stdio, required=True)],
        permissions=options_pb2.Permissions(
            sandbox=options_pb2.SANDBOX_FULL_ACCESS, approval_policy=options_pb2.APPROVAL_POLICY_BYPASS
        ),
    )
    bob = options_pb2.ToolContext(user_id="bob", session_cookie="session=bob")
    call = ASK + f"""print("status", ask("POST", "/product/api/files/delete")[0])\nEND\n{who}"""
    before = len(world.product.calls)
    output, _ = await world.deployment.mcp(
        provider, f"{provider}-bob", call, tool_context=bob, session_id=events[0].session_id
    )

    assert events[-1].HasField("turn_completed")
    assert "I am bob with []" in output
    assert "status 403" in output  # The product knows no session of his.
    assert len(world.product.calls) == before


async def test_no_secret_of_the_product_is_kept_anywhere(world: World) -> None:
    """Not in a store, a log or a transcript; the gateway's own files hold the one secret that is its."""
    state = world.deployment.running.state
    kept = {path: path.read_bytes() for path in state.rglob("*") if path.is_file() and "secrets" not in path.parts}

    assert not [path for path, content in kept.items() if b"canary-of-ada" in content or BEARER.encode() in content]
    assert not [path for path, content in kept.items() if SECRET.encode() in content]


async def test_what_is_not_offered_is_refused(host: Deployment) -> None:
    """A server that the gateway does not lead to, and a user where there is no product."""
    http = options_pb2.HttpTransport(url="https://elsewhere.example/mcp")
    for fields in ({"mcp_servers": [options_pb2.McpServer(name="x", http=http)]}, {"tool_context": CONTEXT}):
        with pytest.raises(grpc.aio.AioRpcError, match=r"ALIVE_MCP_SERVERS|ALIVE_PRODUCT_URL") as refusal:
            await host.caller.run("go", provider_id="codex", workspace_id="attacker.example", **fields)
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
