"""Each server as a program, spoken to by a real MCP client."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from mcp import Client
from mcp.types import ElicitRequestParams, ElicitResult

from .conftest import SECRET, SESSION, World, answering, parameters, serving, text

READING, CHANGING, DESTROYING = (True, None), (False, False), (False, True)

ANNOTATED = {
    "tools": {
        "search_tools": (*READING, True, False),
        "list_workflows": (*READING, True, False),
        "get_workflow": (*READING, True, False),
        "debug_workspace": (*READING, True, False),
        "get_alive_super_template": (*READING, True, False),
        "read_server_logs": (*READING, True, False),
        "generate_persona": (*READING, True, True),
        "ask_clarification": (*READING, True, True),
        "ask_website_config": (*READING, True, True),
        "ask_automation_config": (*READING, True, True),
    },
    "workspace": {
        "restart_dev_server": (*CHANGING, True, False),
        "install_package": (*CHANGING, True, True),
        "check_codebase": (*CHANGING, True, False),
        "delete_file": (*DESTROYING, True, False),
        "switch_serve_mode": (*CHANGING, True, False),
        "copy_shared_asset": (*DESTROYING, True, False),
        "create_website": (*CHANGING, False, True),
        "read": (*READING, True, False),
        "write": (*DESTROYING, True, False),
        "edit": (*DESTROYING, False, False),
        "glob": (*READING, True, False),
        "grep": (*READING, True, False),
        "list": (*READING, True, False),
    },
    "email": {"read_email": (*READING, True, False), "send_reply": (*CHANGING, True, True)},
}
"""Every tool: whether it only reads, destroys, may be repeated, and reaches an open world."""

QUESTION = {"id": "q", "question": "Which?", "options": [{"label": label} for label in "abc"]}

STRUCTURED = {
    *("search_tools", "list_workflows", "debug_workspace", "ask_clarification", "ask_website_config"),
    *("ask_automation_config", "check_codebase", "create_website", "read_email"),
}


@pytest.mark.parametrize("name", ANNOTATED)
async def test_a_server_offers_its_tools(world: World, name: str) -> None:
    """With a description, a schema that describes every parameter and takes no other, and right annotations."""
    async with serving(name, {**world.environment, "ALIVE_FILE_TOOLS": "1"}) as server:
        tools = {tool.name: tool for tool in (await server.session.list_tools()).tools}
    hints = {
        tool.name: (
            tool.annotations.read_only_hint,
            tool.annotations.destructive_hint,
            tool.annotations.idempotent_hint,
            tool.annotations.open_world_hint,
        )
        for tool in tools.values()
        if tool.annotations
    }

    assert hints == ANNOTATED[name]
    assert {tool for tool, found in tools.items() if found.output_schema} == STRUCTURED & tools.keys()
    for tool in tools.values():
        assert tool.input_schema["additionalProperties"] is False
        assert all("description" in parameter for parameter in tool.input_schema["properties"].values()), tool.name
        assert tool.title
        assert len(tool.description or "") > 40


async def test_file_tools_are_hidden_from_agents_that_have_their_own(world: World) -> None:
    """They are offered only when the service says so."""
    async with serving("workspace", world.environment) as server:
        names = {tool.name for tool in (await server.session.list_tools()).tools}
        said = await server.refused("read", {"file_path": "x"})

    assert names == ANNOTATED["workspace"].keys() - {"read", "write", "edit", "glob", "grep", "list"}
    assert "Unknown tool" in said


async def test_where_a_turn_may_only_read_no_tool_changes_anything(world: World) -> None:
    """Those that would are not there."""
    environment = {**world.environment, "ALIVE_FILE_TOOLS": "1", "ALIVE_READ_ONLY": "1"}
    async with serving("workspace", environment) as server:
        names = {tool.name for tool in (await server.session.list_tools()).tools}
        said = await server.refused("delete_file", {"path": "x"})

    assert names == {name for name, hints in ANNOTATED["workspace"].items() if hints[0]}
    assert "Unknown tool" in said


async def test_what_a_caller_parses_is_structured(world: World) -> None:
    """And the text says the same, for front ends that read that."""
    async with serving("tools", world.environment) as server:
        result = await server.call("ask_clarification", {"questions": [QUESTION], "context": "why"})

    assert result.structured_content == json.loads(text(result))
    assert result.structured_content == {"type": "clarification_questions", "questions": [QUESTION], "context": "why"}


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_user_is_asked_through_a_client_that_can(world: World, mode: str) -> None:
    """By a form that every client takes, over a channel or by the call's result, as the protocol has it."""
    seen: list[dict[str, Any]] = []

    async def answer(_: object, asked: ElicitRequestParams) -> ElicitResult:
        seen.append(asked.model_dump(by_alias=True))
        return ElicitResult(action="accept", content={"q": "b"})

    arguments = {"questions": [QUESTION]}
    async with Client(parameters("tools", world.environment), elicitation_callback=answer, mode=mode) as client:
        result = await client.call_tool("ask_clarification", arguments)
    shows = {**world.environment, "ALIVE_QUESTIONS": "show"}
    async with Client(parameters("tools", shows), elicitation_callback=answer, mode=mode) as client:
        shown = await client.call_tool("ask_clarification", arguments)

    assert [asked["requestedSchema"] for asked in seen] == [
        {
            "type": "object",
            "properties": {"q": {"type": "string", "title": "Which?", "enum": ["a", "b", "c"]}},
            "required": ["q"],
        }
    ]
    assert result.structured_content == {"type": "answers", "answers": {"q": "b"}}
    assert "clarification_questions" in text(shown)


async def test_a_slow_tool_tells_how_far_it_is(world: World) -> None:
    """To whoever wants to know."""
    told: list[str | None] = []

    async def tell(_: float, __: float | None, message: str | None) -> None:
        told.append(message)

    async with serving("workspace", world.environment) as server:
        arguments = {"slug": "bakery"}
        await server.call("create_website", arguments, progress_callback=tell)

    assert told[0] == "Making bakery (0 s)"


async def test_a_call_is_cancelled(world: World) -> None:
    """What it waited for is given up, and the server goes on."""
    came, gone = asyncio.Event(), asyncio.Event()

    async def wait() -> web.Response:
        came.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    world.product.faults["/api/restart-workspace"] = wait
    async with serving("workspace", world.environment) as server:
        calling = asyncio.create_task(server.call("restart_dev_server", {}))
        await asyncio.wait_for(came.wait(), 10)
        calling.cancel()
        await asyncio.wait_for(gone.wait(), 10)
        del world.product.faults["/api/restart-workspace"]
        result = await server.call("restart_dev_server", {})

    assert "Restarted" in text(result)


async def test_a_program_of_a_cancelled_call_is_ended(world: World) -> None:
    """With whatever it has started."""
    started = world.workspace / "started"
    world.file(
        "node_modules/.bin/tsc", f"#!/bin/sh\nsleep 300 & echo $! > {started}.new; mv {started}.new {started}; wait\n"
    ).chmod(0o755)
    world.file("package.json", "{}")
    async with serving("workspace", world.environment) as server:
        calling = asyncio.create_task(server.call("check_codebase", {}))
        async with asyncio.timeout(30):
            while not started.exists():
                await asyncio.sleep(0.02)
        sleeper = Path("/proc") / started.read_text().strip()
        assert "sleep" in (sleeper / "cmdline").read_text()
        calling.cancel()
        async with asyncio.timeout(10):
            while sleeper.exists() and "sleep" in (sleeper / "cmdline").read_text():
                await asyncio.sleep(0.02)


async def test_no_secret_is_in_a_result_or_a_log(world: World, tmp_path: Path) -> None:
    """Not even when the product says it."""

    async def echo() -> web.Response:
        return web.json_response({"error": f"{SECRET} and {SESSION}"}, status=500)

    world.product.faults["/api/restart-workspace"] = echo
    world.file("note.txt", f"{SECRET}\n")
    log = tmp_path / "log"
    environment = {**world.environment, "ALIVE_FILE_TOOLS": "1"}
    async with serving("workspace", environment, log=log) as server:
        said = await server.refused("restart_dev_server", {})
        said += text(await server.call("read", {"file_path": "note.txt"}))

    assert "[hidden] and [hidden]" in said
    assert "canary" not in said + log.read_text()


def test_only_the_protocol_is_on_standard_output(world: World) -> None:
    """Each line is a message, whatever comes in; the server ends when its input does."""
    program = Path(sys.prefix) / "bin/alive-mcp-tools"
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "search_tools", "arguments": {"x": 1}}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "list_workflows"}},
    ]
    given = "garbage\n" + "".join(json.dumps(line) + "\n" for line in lines) + '{"jsonrpc": "2.0"}\n\\ud800\n'
    with subprocess.Popen([program], env=world.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(given.encode() + b"\xff\xfe\n")
        server.stdin.flush()
        said: list[dict[str, Any]] = []
        while not {1, 2, 3} <= {message.get("id") for message in said}:  # It may end before it has answered all.
            said.append(json.loads(server.stdout.readline()))
        rest, _ = server.communicate(timeout=60)
    said += [json.loads(line) for line in rest.splitlines()]

    assert all(message["jsonrpc"] == "2.0" for message in said)
    assert server.returncode == 0


async def test_a_package_is_installed_from_an_allowed_registry(world: World, tmp_path: Path) -> None:
    """By the package manager that is there, and with nothing of the package's own run."""
    registry = Registry(tmp_path)
    world.file("package.json", '{"name": "site"}')
    async with answering(registry.answer) as url:
        environment = {**world.environment, "ALIVE_REGISTRY_URL": url, "HOME": str(tmp_path)}
        async with serving("workspace", environment) as server:
            result = await server.call("install_package", {"packageName": "tiny", "dev": True})
            said = await server.refused("install_package", {"packageName": "unknown"})

    assert "Installed tiny for development." in text(result)
    assert json.loads((world.workspace / "package.json").read_text())["devDependencies"] == {"tiny": "^1.0.0"}
    assert (world.workspace / "node_modules/tiny/index.js").is_file()
    assert not (world.workspace / "node_modules/tiny/ran").exists()
    assert "unknown was not installed" in said


class Registry:
    """A registry with one package."""

    def __init__(self, directory: Path) -> None:
        self._package = directory / "package"
        self._package.mkdir()
        manifest = {"name": "tiny", "version": "1.0.0", "scripts": {"postinstall": "touch ran"}}
        (self._package / "package.json").write_text(json.dumps(manifest))
        (self._package / "index.js").write_text("module.exports = 1\n")
        subprocess.run(["tar", "-czf", "tiny.tgz", "package"], cwd=directory, check=True, timeout=30)
        self._archive = (directory / "tiny.tgz").read_bytes()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a package manager."""
        if request.path.endswith(".tgz"):
            return web.Response(body=self._archive)
        if request.path != "/tiny":
            return web.json_response({"error": "not found"}, status=404)
        version = {"name": "tiny", "version": "1.0.0", "dist": {"tarball": f"http://{request.host}/tiny-1.0.0.tgz"}}
        return web.json_response({"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})
