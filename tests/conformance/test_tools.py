"""Alive's own tools: the same servers, the same results, with every provider, through the gateway and without one."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from google.protobuf.duration_pb2 import Duration

from alive.agent.v1 import approval_pb2, event_pb2, item_pb2, options_pb2
from alive_kit.testing import boxes
from alive_kit.testing.boxes import can_be_built, give_to_agent
from alive_kit.testing.harness import serving
from alive_kit.testing.product import Product
from alive_kit.testing.product_sites import Sites
from alive_kit.testing.requirements import requirement
from alive_kit.testing.scripted_model import CallTool, Reply, ScriptedModel

from .conftest import DECLARATIONS, KEY, PROVIDERS, Subject, boxed, configured, items, link_python, notices
from .test_approvals import ASK, Talk
from .test_mcp import notes

SECRET, SESSION = "canary-internal-secret", "session=canary-of-ada"
ADA = options_pb2.ToolContext(user_id="ada", session_cookie=SESSION, connected_providers=["github"])
QUESTION = {"id": "q", "question": "Which?", "options": [{"label": label} for label in ("red", "green", "blue")]}
READY = event_pb2.MCP_SERVER_STATUS_READY
BOUND = 30

INSTALLED = Path(sys.prefix).with_name("mcp")
"""Where `make services` has put the tools: a box shows no checkout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A provider's service with a product behind it."""

    subject: Subject
    product: Product

    def file(self, name: str) -> Path:
        """Make a file in the workspace."""
        path = self.subject.caller.workspaces / "demo" / name
        path.write_text("{}")
        return path

    async def run(self, name: str, *calls: CallTool, **fields: object) -> list[event_pb2.Event]:
        """Have the model call tools, one after the other, on behalf of a user."""
        prompt = self.subject.script(name, *(Reply(actions=[call]) for call in calls), Reply(text="Done."))
        return await self.subject.caller.run(prompt, tool_context=ADA, **fields)


@pytest.fixture(scope="module", params=[f"{name}-{where}" for name in PROVIDERS for where in ("box", "bare")])
async def site(request: pytest.FixtureRequest, model: ScriptedModel) -> AsyncIterator[Site]:
    """Return each provider in turn: in a box behind the gateway, and where neither stands."""
    name, _, where = request.param.rpartition("-")
    if where == "box" and not can_be_built():
        pytest.skip("no boxes: apt-get install bubblewrap socat")
    async with contextlib.AsyncExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="alive-", ignore_cleanup_errors=True)))
        directory.chmod(0o711)
        (directory / "key").write_text(KEY)
        (directory / "secret").write_text(SECRET)
        link_python(directory / "bin")
        product = Product(secret=SECRET, session=SESSION, sites=Sites(root=directory / "workspaces"))
        product_url = await exits.enter_async_context(product.serving())
        more = {"mcp_path": f"{INSTALLED}/bin:{directory}/bin:/usr/bin:/bin", "homes": directory / "homes"}
        if where == "box":
            url, variables = boxes.URL, await boxed(name, directory, exits, INSTALLED)
            exits.enter_context(gateway(name, model.url, product_url, directory))
            variables |= dict.fromkeys((base_url_of(name), "ALIVE_GATEWAY_URL"), boxes.URL)
            variables["ALIVE_GATEWAY_HAS_PRODUCT"] = "true"
            more["authz_listen"] = variables["ALIVE_AUTHZ_LISTEN"] = f"unix:{directory}/authz.sock"
        else:
            url = model.url
            variables = {"ALIVE_PRODUCT_URL": product_url, "ALIVE_PRODUCT_SECRET_FILE": f"{directory}/secret"}
        variables["ALIVE_TOOLS_STARTUP_SECONDS"] = str(BOUND)  # This machine may have other things to do.
        with configured(name, url, directory / "key", **variables) as create:
            caller = await exits.enter_async_context(serving(create(), directory, **more))
        if where == "box":
            give_to_agent(caller.workspaces / "demo")
        subject = Subject(
            name=name,
            kind=f"tools-{request.param}",
            caller=caller,
            model=model,
            directory=directory,
            boxed=where == "box",
        )
        yield Site(subject=subject, product=product)


def base_url_of(name: str) -> str:
    """Return the setting that tells a provider where its vendor is."""
    declaration = DECLARATIONS[name]
    assert declaration.gateway is not None
    return declaration.gateway.base_url


@contextlib.contextmanager
def gateway(name: str, model_url: str, product_url: str, directory: Path) -> Iterator[None]:
    """Run the key gateway for a provider until the block ends."""
    declaration = DECLARATIONS[name]
    assert declaration.gateway is not None
    route = {
        "name": name,
        "listen": f"unix:{directory}/gateway/gateway.sock",
        "upstream": model_url + declaration.scripted_model[declaration.gateway.base_url],
        "paths": declaration.gateway.paths,
        "header": declaration.gateway.header,
        "prefix": declaration.gateway.prefix,
        "key_file": f"{directory}/key",
        "authz_socket": f"{directory}/authz.sock",
    }
    (directory / "envoy").mkdir()
    environment = {
        "ALIVE_GATEWAY_ROUTES": json.dumps([route]),
        "ALIVE_GATEWAY_PRODUCT": json.dumps({"upstream": product_url, "key_file": f"{directory}/secret"}),
        "ALIVE_STATE_DIR": f"{directory}/envoy",
    }
    process = subprocess.Popen([sys.executable, "-m", "alive_gateway"], env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=BOUND)


def results(events: list[event_pb2.Event]) -> list[tuple[str, str, bool]]:
    """Return what tools said: server and tool, the text, and whether it went well."""
    return [
        (
            f"{item.tool_call.server} {item.tool_call.tool}",
            "".join(part.text for part in item.tool_call.result) or item.tool_call.error,
            item.status == item_pb2.ITEM_STATUS_COMPLETED,
        )
        for item in items(events, "tool_call")
    ]


def servers(events: list[event_pb2.Event]) -> dict[str, "event_pb2.McpServerStatus.ValueType"]:
    """Return the MCP servers of a turn."""
    started = next(event.turn_started for event in events if event.HasField("turn_started"))
    return {state.name: state.status for state in started.mcp_servers}


@requirement("tools:default")
async def test_a_turn_of_a_user_has_alives_tools(site: Site) -> None:
    """Each provider's results are these, to the letter. Source: alive.md §1.7, C1, C2 and C5."""
    old, kept = site.file("old.txt"), site.file("package.json")
    site.product.sites.logs["demo"].clear()
    site.product.sites.log("demo", "GET / 500")
    events = await site.run(
        "default",
        CallTool(server="alive-tools", tool="read_server_logs", arguments={"workspace": "demo"}),
        CallTool(server="alive-tools", tool="search_tools", arguments={"category": "external-mcp"}),
        CallTool(server="alive-workspace", tool="delete_file", arguments={"path": "old.txt"}),
        CallTool(server="alive-workspace", tool="delete_file", arguments={"path": "package.json"}),
        CallTool(server="alive-tools", tool="ask_clarification", arguments={"questions": [QUESTION]}),
    )
    external = {
        "name": "mcp__github__*",
        "category": "external-mcp",
        "description": "GitHub: repositories, issues, pull requests.",
    }
    shown = {"type": "clarification_questions", "questions": [QUESTION]}

    assert servers(events) == {"alive-tools": READY, "alive-workspace": READY}
    assert results(events) == [
        ("alive-tools read_server_logs", "GET / 500", True),
        ("alive-tools search_tools", json.dumps({"tools": [external]}, separators=(",", ":")), True),
        ("alive-workspace delete_file", "Deleted old.txt.", True),
        (
            "alive-workspace delete_file",
            "package.json is protected: without it the website does not start. Nothing was deleted.",
            False,
        ),
        ("alive-tools ask_clarification", json.dumps(shown, separators=(",", ":")), True),
    ]
    assert (old.exists(), kept.exists()) == (False, True)
    assert events[-1].HasField("turn_completed")


@requirement("tools:secrets")
async def test_the_tools_hold_no_secret_unless_no_wall_stands(site: Site) -> None:
    """And where they do, the turn says so."""
    seen: list[str] = []

    async def look() -> web.Response:
        seen.extend((process / "environ").read_text() for process in processes("alive-mcp-workspace"))
        return web.json_response({"message": "Restarted."})

    site.product.faults["/api/restart-workspace"] = look
    events = await site.run("secrets", CallTool(server="alive-workspace", tool="restart_dev_server"))
    site.product.faults.clear()

    assert results(events) == [("alive-workspace restart_dev_server", "Restarted.", True)]
    assert ("canary" in "".join(seen)) != site.subject.boxed
    assert ("secrets_exposed" in notices(events)) != site.subject.boxed
    assert "ALIVE_USER_ID=ada" in "".join(seen)
    assert SECRET not in site.subject.sent("secrets")


@requirement("tools:rules")
async def test_alives_tools_follow_the_rules(site: Site) -> None:
    """A server of the request takes the place of one; what is denied is not there; mail is for the background."""
    own = notes(site.subject)
    own.name = "alive-tools"
    before = len(site.product.calls)
    events = await site.run(
        "rules",
        CallTool(server="alive-tools", tool="add", arguments={"a": 1, "b": 41}),
        CallTool(server="alive-workspace", tool="delete_file", arguments={"path": "x"}),
        CallTool(server="alive-email", tool="send_reply", arguments={"text": "Hello"}),
        mcp_servers=[own],
        limits=options_pb2.Limits(workload_class=options_pb2.WORKLOAD_CLASS_BACKGROUND),
        permissions=options_pb2.Permissions(tools=options_pb2.ToolRules(denied=["mcp__alive-workspace__delete_file"])),
    )
    said = {name: text for name, text, _ in results(events)}

    assert servers(events) == {"alive-tools": READY, "alive-workspace": READY, "alive-email": READY}
    assert "42" in said["alive-tools add"]
    assert said["alive-email send_reply"] == "The reply (5 characters) is sent when this automation has ended."
    assert len(site.product.calls) == before


@requirement("tools:read-only")
async def test_a_plan_changes_nothing_through_alives_tools(site: Site) -> None:
    """Neither in the workspace nor at the product."""
    kept, before = site.file("plan.txt"), len(site.product.calls)
    events = await site.run(
        "plan",
        CallTool(server="alive-workspace", tool="delete_file", arguments={"path": "plan.txt"}),
        CallTool(server="alive-tools", tool="get_workflow", arguments={"workflow_type": "new-feature"}),
        permissions=options_pb2.Permissions(approval_policy=options_pb2.APPROVAL_POLICY_PLAN),
    )

    assert "Add a feature" in results(events)[-1][1]
    assert kept.exists()
    assert len(site.product.calls) == before


@requirement("tools:crash")
async def test_a_tool_whose_server_dies_fails(site: Site) -> None:
    """And the turn goes on. Source: alive.md §1.7, C3."""

    async def kill() -> web.Response:
        for process in processes("alive-mcp-workspace"):
            os.kill(int(process.name), signal.SIGKILL)
        return await asyncio.Event().wait() or web.Response()

    site.product.faults["/api/restart-workspace"] = kill
    events = await site.run("crash", CallTool(server="alive-workspace", tool="restart_dev_server"))
    site.product.faults.clear()

    assert [(name, is_well) for name, _, is_well in results(events)] == [("alive-workspace restart_dev_server", False)]
    assert events[-1].HasField("turn_completed")


@requirement("tools:timeout")
async def test_a_tool_that_takes_too_long_fails(site: Site) -> None:
    """After the server's tool timeout; the turn goes on. Source: alive.md §1.7, C4."""
    own = notes(site.subject, tool_timeout=Duration(seconds=1))
    events = await site.run("timeout", CallTool(server="notes", tool="wait"), mcp_servers=[own])

    assert [(name, is_well) for name, _, is_well in results(events)] == [("notes wait", False)]
    assert events[-1].HasField("turn_completed")


@requirement("tools:question")
async def test_a_question_of_a_tool_is_asked(site: Site) -> None:
    """Where the caller is asked for permission, the form becomes an approval, and the answer the tool's result."""
    answer = approval_pb2.Decision(kind=approval_pb2.DECISION_KIND_ANSWER, content_json='{"q": "green"}')
    call = CallTool(server="alive-tools", tool="ask_clarification", arguments={"questions": [QUESTION]})
    prompt = site.subject.script("question", Reply(actions=[call]), Reply(text="Green then."))
    talk = Talk(site.subject, prompt, permissions=ASK, tool_context=ADA)
    asked = await talk.question()
    if asked is None:
        assert "input that an MCP server asks the user for is declined" in capability(site, "ResolveApproval")
        assert '"type":"declined"' in results(talk.events)[0][1]
        return
    schema = json.loads(asked.elicitation.schema_json)
    await talk.answer(answer)
    assert await talk.question() is None

    assert asked.elicitation.server == "alive-tools"
    assert schema["properties"]["q"]["enum"] == ["red", "green", "blue"]
    assert json.loads(results(talk.events)[0][1]) == {"type": "answers", "answers": {"q": "green"}}


@requirement("tools:files")
async def test_file_tools_are_for_agents_without_their_own(site: Site) -> None:
    """Where an agent's own cannot be switched off, Alive's are not there, and the capability says so."""
    names = [f"mcp__alive-workspace__{tool}" for tool in ("write", "read")]
    events = await site.run(
        "files",
        CallTool(server="alive-workspace", tool="write", arguments={"file_path": "made.txt", "content": "by Alive\n"}),
        CallTool(server="alive-workspace", tool="read", arguments={"file_path": "made.txt"}),
        permissions=options_pb2.Permissions(tools=options_pb2.ToolRules(allowed=names)),
    )
    made = site.subject.caller.workspaces / "demo/made.txt"

    assert servers(events) == {"alive-workspace": READY}
    if "cannot be switched off" in capability(site, "tools.files"):
        assert not made.exists()
        return
    assert results(events) == [
        ("alive-workspace write", "Made made.txt (1 lines).", True),
        ("alive-workspace read", "1\tby Alive", True),
    ]
    assert made.read_text() == "by Alive\n"
    made.unlink()


def processes(program: str) -> list[Path]:
    """Return the processes that run a program of the tools."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
            if any(word.endswith(f"/{program}".encode()) for word in words[:2]):
                found.append(process)
    return found


def capability(site: Site, name: str) -> str:
    """Return how far a provider can do something."""
    assert site.subject.caller.service is not None
    return next(one.limit for one in site.subject.caller.service.info.capabilities if one.name == name)
