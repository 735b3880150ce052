"""Another agent server, sandbox-agent: native, over HTTP; it drives each vendor's CLI through an ACP adapter.

It and the adapters come from npm (`package.json`). Claude's is given our CLI: its own one (2.1.185) says its first word
twice as soon as 2.1.330. Codex's cannot be, and has 0.166.0. Nothing is boxed, and nothing is kept.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from alive_stack.stack import free_address

from ..conformance.conftest import cli_of
from .system import Times

NAME = "sandbox-agent"

_MODULES = Path(sys.prefix).parent / "bench-node/node_modules"
_START_SECONDS = 30.0


class SandboxAgent:
    """A session of an agent behind a running server."""

    def __init__(self, http: aiohttp.ClientSession, events: aiohttp.ClientResponse, url: str, session_id: str) -> None:
        self._http = http
        self._events = events
        self._url = url
        self._session_id = session_id
        self._ids = itertools.count(10)

    async def ask(self, prompt: str) -> Times:
        """Have a prompt answered, and return how soon it said something."""
        began, first, word = time.perf_counter(), 0.0, 0.0
        text = [{"type": "text", "text": prompt}]
        params = {"sessionId": self._session_id, "prompt": text}
        ended = asyncio.create_task(_call(self._http, self._url, "session/prompt", params, next(self._ids)))
        async for line in self._events.content:
            if not line.startswith(b"data:"):
                continue
            now, said = (time.perf_counter() - began) * 1e3, json.loads(line[5:])
            first = first or now
            kind = said.get("params", {}).get("update", {}).get("sessionUpdate")
            if kind == "agent_message_chunk":
                word = word or now
            if said.get("result", {}).get("stopReason"):
                break
        await ended
        return Times(event=first, word=word)


@contextlib.asynccontextmanager
async def sandbox_agent(provider: str, model_url: str, key: str, home: Path) -> AsyncIterator[SandboxAgent]:
    """Run a server with a session until the block ends.

    Raises:
        OSError: it is not installed, or does not start.
    """
    program = _MODULES / ".bin/sandbox-agent"
    if not program.exists():
        raise OSError("not installed: there is no npm, or no registry")
    host, _, port = free_address().rpartition(":")
    words = (str(program), "server", "--host", host, "--port", port, "--no-token", "--no-telemetry")
    mortal = ("setpriv", "--pdeathsig", "KILL", "--", *words)
    with (home / "server.log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            *mortal, env=_environment(provider, model_url, key, home), cwd=home, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=60)) as http:
            url = f"http://{host}:{port}/v1/acp/bench"
            session_id = await _open(http, url, provider, home)
            async with http.get(url, headers={"Accept": "text/event-stream"}) as events:
                yield SandboxAgent(http, events, url, session_id)
    except (aiohttp.ClientError, TimeoutError, RuntimeError) as error:
        raise OSError(f"{error!r}"[-80:]) from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        await server.wait()


async def _open(http: aiohttp.ClientSession, url: str, provider: str, home: Path) -> str:
    """Have the server start an agent, once it listens, and return the agent's session."""
    greeting = {"protocolVersion": 1, "clientCapabilities": {}, "clientInfo": {"name": "bench", "version": "0"}}
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await _call(http, f"{url}?agent={provider}", "initialize", greeting, 1)
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)
        opened = await _call(http, url, "session/new", {"cwd": str(home), "mcpServers": []}, 2)
    return str(opened["sessionId"])


async def _call(http: aiohttp.ClientSession, url: str, method: str, params: dict[str, Any], number: int) -> Any:
    asked = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    async with http.post(url, json=asked) as response:
        answer = await response.json(content_type=None)
    if "result" not in answer:
        raise RuntimeError(f"{method}: {answer}")
    return answer["result"]


def _environment(provider: str, model_url: str, key: str, home: Path) -> dict[str, str]:
    """Return the variables that lead the vendor's CLI to the scripted model."""
    programs = home / "bin"
    programs.mkdir()
    _, claude = cli_of("claude")
    (programs / "claude").symlink_to(claude)
    node = Path(shutil.which("node") or "/usr/bin/node").parent
    common = {"HOME": str(home), "PATH": f"{programs}:{_MODULES}/.bin:{node}:/usr/bin:/bin", "LANG": "C.UTF-8",
              "SANDBOX_AGENT_REQUIRE_PREINSTALL": "1"}  # fmt: skip
    if provider == "claude":
        quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "IS_SANDBOX": "1"}
        ours = {"CLAUDE_CODE_EXECUTABLE": str(claude)}
        return {**common, **quiet, **ours, "ANTHROPIC_BASE_URL": model_url, "ANTHROPIC_API_KEY": key}
    (home / ".codex").mkdir()
    (home / ".codex/config.toml").write_text(
        'model = "gpt-5.5"\nmodel_provider = "bench"\n[analytics]\nenabled = false\n'
        "[features]\nplugins = false\napps = false\n"
        f'[model_providers.bench]\nname = "bench"\nbase_url = "{model_url}/v1"\n'
        'wire_api = "responses"\nenv_key = "OPENAI_API_KEY"\n'
    )
    return {**common, "CODEX_HOME": str(home / ".codex"), "OPENAI_API_KEY": key, "CODEX_API_KEY": key}
