"""Deployments to attack, and the table of what came of it."""

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from alive.agent.v1 import event_pb2, options_pb2
from alive_kit.testing.harness import Caller, calling
from alive_kit.testing.scripted_model import CallTool, Reply, RunCommand, Script
from alive_kit.testing.scripted_model.control import ModelControl

from ..e2e.conftest import Running, up

_MCP_SERVER = """
import json, subprocess, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    result = {}
    if asked["method"] == "initialize":
        version = asked["params"]["protocolVersion"]
        info = {"name": "shell", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    elif asked["method"] == "tools/list":
        schema = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
        result = {"tools": [{"name": "run", "description": "Runs a command.", "inputSchema": schema}]}
    elif asked["method"] == "tools/call":
        words = ["/bin/sh", "-c", asked["params"]["arguments"]["command"]]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        result = {"content": [{"type": "text", "text": done.stdout + done.stderr}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A running system, with an attacker's workspace and a victim's."""

    mode: str
    running: Running
    caller: Caller
    model: ModelControl
    model_port: int

    def variables(self, provider: str) -> str:
        """Return shell text that tells an attacker where everything is, except the secret itself."""
        key = (self.running.state / "secrets/scripted-model/key").read_text().strip()
        values = {
            "VICTIM": self.running.state / "workspaces/victim.example",
            "STATE": self.running.state,
            "RUN": self.running.state / "run",
            "ROUTER_PORT": self.running.address.rpartition(":")[2],
            "MODEL_PORT": self.model_port,
            "SERVICE_PID": self.running.pid(f"alive_{provider}"),
            "SECRET_SUM": hashlib.sha256(key.encode()).hexdigest(),
        }
        return "".join(f"export {name}='{value}'\n" for name, value in values.items())

    async def command(self, provider: str, name: str, script: str, **fields: Any) -> tuple[str, list[event_pb2.Event]]:
        """Have the agent run a script with its own tool; return the output and the events."""
        reply = Reply(actions=[RunCommand(command=self._complete(provider, script))])
        return await self._run(provider, name, reply, **fields)

    async def mcp(self, provider: str, name: str, script: str, **fields: Any) -> tuple[str, list[event_pb2.Event]]:
        """Have the agent run a script through an MCP server; return the output and the events."""
        arguments: dict[str, object] = {"command": self._complete(provider, script)}
        reply = Reply(actions=[CallTool(server="shell", tool="run", arguments=arguments)])
        path = self.running.state / "workspaces/attacker.example/shell_server.py"
        stdio = options_pb2.StdioTransport(command="python3", args=[str(path)])
        server = options_pb2.McpServer(name="shell", stdio=stdio, required=True)
        return await self._run(provider, name, reply, mcp_servers=[server], **fields)

    def _complete(self, provider: str, script: str) -> str:
        return f"{self.variables(provider)}{script}\necho TRIED"

    async def _run(self, provider: str, name: str, *replies: Reply, **fields: Any) -> tuple[str, list[event_pb2.Event]]:
        marker = await self.model.script(name, Script(replies=[*replies, Reply(text="Done.")]))
        permissions = options_pb2.Permissions(
            sandbox=options_pb2.SANDBOX_FULL_ACCESS, approval_policy=options_pb2.APPROVAL_POLICY_BYPASS
        )
        asked = {"provider_id": provider, "workspace_id": "attacker.example", "permissions": permissions, **fields}
        events = await self.caller.run(f"{marker} go", **asked)
        return output_of(events), events


def output_of(events: list[event_pb2.Event]) -> str:
    """Return what the tools of a turn gave back."""
    items = [event.item_completed.item for event in events if event.HasField("item_completed")]
    return "\n".join(
        [item.command.output for item in items if item.HasField("command")]
        + [part.text for item in items if item.HasField("tool_call") for part in item.tool_call.result]
    )


@contextlib.asynccontextmanager
async def deployed(mode: str, **options: Any) -> AsyncIterator[Deployment]:
    """Run a system until the block ends."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as exits:
        running: Running = await loop.run_in_executor(None, lambda: exits.enter_context(up(**options)))
        url = re.search(r"scripted model at (http://\S+)", running.output)
        assert url is not None
        for name in ("attacker.example", "victim.example"):
            make_workspace(running, name)
        async with (
            calling(running.address, running.state / "workspaces") as caller,
            ModelControl(url[1]) as model,
        ):
            yield Deployment(
                mode=mode, running=running, caller=caller, model=model, model_port=int(url[1].rpartition(":")[2])
            )


def make_workspace(running: Running, name: str) -> None:
    """Make a workspace with something in it, before the stack gives it to its UID."""
    fresh = running.state / f".{name}"
    fresh.mkdir()
    (fresh / "secret.txt").write_text(f"canary of {name}\n")
    (fresh / "shell_server.py").write_text(_MCP_SERVER)
    if os.geteuid() == 0 and running.state.stat().st_mode & 0o777 == 0o777:
        for path in (fresh, *fresh.iterdir()):
            os.chown(path, 45999, 45999)
    fresh.rename(running.state / "workspaces" / name)


@pytest.fixture(scope="session")
async def host() -> AsyncIterator[Deployment]:
    """Return the system on one host, every service and every workspace with its own UID."""
    async with deployed("one host") as deployment:
        yield deployment


@pytest.fixture(scope="session")
async def one_uid() -> AsyncIterator[Deployment]:
    """Return the system as an ordinary user runs it: boxes, but one UID for all."""
    prefix = ("setpriv", "--reuid", "45999", "--regid", "45999", "--clear-groups", "--")
    async with deployed("one UID", prefix=prefix) as deployment:
        yield deployment


@pytest.fixture(scope="session")
async def bare(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """Return the system without boxes, because bubblewrap is nowhere to be found."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "setpriv").symlink_to(shutil.which("setpriv") or "")
    async with deployed("no box", PATH=str(programs)) as deployment:
        yield deployment
